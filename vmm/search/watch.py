"""Folders that are looked at again and again, and encoded as videos come into them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from vmm.command_line import PREEMPTED
from vmm.export.encoder import VideoTextEncoder
from vmm.search.encode import Counts, encode_videos
from vmm.search.index import Index
from vmm.search.sources import NothingThereError, Source


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which stops a watch as Ctrl-C does."""

    status = PREEMPTED
    by = "SIGTERM"


class Settled:
    """Knows which videos are not being written: those that did not change since the last look.

    Networks tell of no changes, and programs copy and record without a lock; size and time of the
    last change are seen everywhere.
    """

    def __init__(self) -> None:
        self._seen: dict[Source, tuple[int, int]] = {}

    def __call__(self, source: Source) -> bool:
        """Look at a video; called once in each look."""
        try:
            stamp = source.stamp()
        except OSError:  # renamed or deleted
            return False
        if self._seen.pop(source, None) == stamp:
            return True
        self._seen[source] = stamp
        return False


def watch_videos(
    index: Index,
    encoder: VideoTextEncoder,
    inputs: Sequence[Path],
    report: Callable[[Counts], object],
    warn: Callable[[str], object],
    *,
    every: float = 10.0,
    batch_size: int = 8,
    progress: bool = False,
) -> NoReturn:
    """Keep an index up to date with folders, until Ctrl-C or SIGTERM.

    By looking, for network drives tell of no changes. A new or changed video is encoded when it is
    the same in two looks. Where all is gone, as when a drive is away, nothing is forgotten.

    Args:
        index: To change; what other processes add to it is taken in.
        encoder: The one that the index was made with.
        inputs: See ``find_sources``.
        report: Gets what was done, whenever something was.
        warn: Gets a sentence when the inputs cannot be read, once until they can.
        every: Seconds from the end of a look to the next one.
        batch_size: Moments that are encoded at once.
        progress: Show a progress bar on stderr while something is encoded.

    Raises:
        KeyboardInterrupt: When it is stopped.
        ValueError: As ``encode_videos``.
    """
    settled, warned = Settled(), ""
    with _terminated() as was_terminated:
        while True:
            if was_terminated():  # where Python swallowed the exception, as in a destructor
                raise Terminated
            index.reload()
            try:
                counts = encode_videos(
                    index,
                    encoder,
                    inputs,
                    batch_size=batch_size,
                    progress=progress,
                    is_settled=settled,
                )
            except NothingThereError as error:
                if str(error) != warned:
                    warned = str(error)
                    warn(f"{warned}; waiting for it")
            else:
                warned = ""
                if counts.encoded or counts.failed or counts.reused or counts.removed:
                    report(counts)
            time.sleep(every)


@contextmanager
def _terminated() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM end the block as Ctrl-C does, where signals come; gives whether it came."""
    came = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        came.set()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, old)
