"""The loader of training batches: worker processes, and a start anywhere in the stream."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset

from vmm.data.faults import ReadingBoard, UnusableData
from vmm.portable import STOP_SIGNALS
from vmm.types import VideoTextBatch

_log = logging.getLogger(__name__)

# What PyTorch's messages about dead and stuck workers begin with or hold.
_WORKER_FAILURES = ("DataLoader worker", "DataLoader timed out")
_SHOW_STACK = getattr(signal, "SIGUSR2", None)
"""None on Windows."""
_PARENT_CHECK_S = 2.0
_MOST_WORKERS = 1024


class BatchStream(Protocol):
    """What a loader needs of a stream; both kinds are iterable data sets too."""

    first_step: int
    board: ReadingBoard

    def __len__(self) -> int: ...


class TrainLoader:
    """Loads a training stream from wherever training stands.

    The position is asked for, not counted here: batches that workers have prepared but training
    has not finished must not be skipped after a restart. Lightning needs the length to stop at the
    right batch and the state methods to know that the loader can resume; the datamodule keeps the
    state.

    Args:
        stream: The batches, an iterable data set with a ``first_step``.
        num_workers: Processes that decode; 0 = this one.
        completed: Returns the number of batches that training has finished since its start.
        timeout: Seconds to wait for a batch before giving up on a stuck worker.
    """

    def __init__(
        self,
        stream: BatchStream,
        num_workers: int,
        completed: Callable[[], int],
        timeout: float = 600,
    ) -> None:
        self._stream = stream
        self._num_workers = num_workers
        self._completed = completed
        self._timeout = timeout
        self.waited = 0.0
        """Seconds that training has waited for batches."""

    @property
    def stream(self) -> BatchStream:
        """What gives the batches."""
        return self._stream

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[VideoTextBatch]:
        """Yield an epoch's number of batches from the first one not completed.

        Raises:
            UnusableData: If too much of the data is bad.
            RuntimeError: If a worker died or is stuck; says what it was reading.
        """
        assert isinstance(self._stream, IterableDataset)
        self._stream.first_step = self._completed()
        self._stream.board = ReadingBoard(self._num_workers)
        loader: DataLoader[Any] = DataLoader(
            self._stream,
            batch_size=None,
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
            timeout=self._timeout if self._num_workers else 0,
            worker_init_fn=init_worker,
        )
        batches = iter(loader)
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if reason := self.explain(error):
                    show_stacks()
                    kill_workers()  # or closing the loader waits for those that are stuck
                    raise RuntimeError(reason) from error
                raise
            self.waited += time.perf_counter() - began
            if isinstance(batch, UnusableData):
                kill_workers()
                raise batch
            yield batch
            del batch  # or its pixels stay while the next ones are read

    def explain(self, error: BaseException) -> str | None:
        """Say what the workers were reading, if the error is about a dead or stuck worker.

        PyTorch notices a dead worker in a signal handler, so such an error can surface anywhere in
        the training process.
        """
        message = str(error)
        if not message.startswith(_WORKER_FAILURES):
            return None
        return (
            f"{message.splitlines()[0]} The workers were reading: {self._stream.board}. A worker "
            "that is killed often needs more memory than there is (lower num_workers), one that "
            "is stuck waits for storage or for a hostile file"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the datamodule saves the position."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore the nothing of ``state_dict``."""


def init_worker(worker: int) -> None:
    """Prepare a worker process: no garbage of its parent, no stopping by signal, one thread.

    It ends soon after its parent, however that ends; PyTorch's own watch misses a parent that was
    killed before the watch began, and a worker that hangs.

    A fork has its parent's objects but not its threads. If its garbage collector came upon a
    decoder that the parent has dropped, FFmpeg would wait for ever for that decoder's threads.
    Schedulers send SIGTERM to the whole process group, and a worker that dies of it breaks the
    step that the main process wants to finish and save.
    """
    gc.freeze()
    if _SHOW_STACK:
        faulthandler.register(_SHOW_STACK)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and os.getppid() == parent.pid:
        time.sleep(_PARENT_CHECK_S)
    if parent is not None:
        os._exit(1)


def show_stacks() -> None:
    """Let the workers that still live write to stderr where they are."""
    for child in multiprocessing.active_children():
        if child.daemon and child.pid and _SHOW_STACK:
            os.kill(child.pid, _SHOW_STACK)
    time.sleep(0.2)  # until they have


@atexit.register
def kill_workers() -> None:
    """End workers that a failed run leaves; Python's own SIGTERM would wait for them for ever."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    in_main = threading.current_thread() is threading.main_thread()
    # PyTorch's handler would raise an error for each one that is killed here.
    listening = in_main and hasattr(signal, "SIGCHLD")
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if listening else None
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(5)
    if listening:
        signal.signal(signal.SIGCHLD, handler)


def refuse_counts(
    batch_size: int, image_batch_size: int | None, steps_per_epoch: int | None, num_workers: int
) -> None:
    """Refuse counts with which nothing can be loaded.

    Args:
        batch_size: Of videos.
        image_batch_size: Of images; None = the same.
        steps_per_epoch: Length of an epoch; None = as many as there are.
        num_workers: Processes.

    Raises:
        ValueError: If a count is out of range.
    """
    counts = (batch_size, image_batch_size, steps_per_epoch)
    if min(n for n in counts if n is not None) < 1 or num_workers < 0:
        raise ValueError(
            f"batch_size {batch_size}, image_batch_size {image_batch_size}, steps_per_epoch "
            f"{steps_per_epoch} and num_workers {num_workers}: the first three must be at "
            "least 1 and num_workers at least 0"
        )
    if num_workers > _MOST_WORKERS:
        raise ValueError(f"num_workers {num_workers}: about one for each CPU core is enough")
