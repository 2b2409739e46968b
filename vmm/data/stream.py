"""The endless stream of training batches, and the loader that can start anywhere in it."""

from __future__ import annotations

import atexit
import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vmm.data.clips import load_frames
from vmm.data.decode import DecodeError
from vmm.data.order import ShardOrder, StepPlan, derive_seed
from vmm.data.shards import BadSamples, ShardSet
from vmm.data.transforms import ClipSettings, train_transform
from vmm.types import Media, VideoTextBatch

Positives = Literal["sample", "caption", "row"]

_ATTEMPTS = 8


class TrainStream(IterableDataset[VideoTextBatch]):
    """Training batches as a function of the step: the same on any number of workers and ranks.

    Every batch holds one media type; the types alternate in shuffled order, in proportion to their
    sizes. A sample that cannot be decoded is replaced, media and caption together, by another one
    that depends only on the seed and the place, so batches keep their size on every rank.

    Args:
        sources: The shards of each media type.
        batch_sizes: Samples of each media type per step and rank.
        settings: Frames, size and augmentation.
        seed: Seed of order, crops and replacements.
        rank: This process.
        world_size: Processes that share every step.
        steps_per_epoch: Length of an epoch; None = until every sample was used once.
        positives: "sample": every sample has an ``idx`` of its own. "caption": samples with equal
            captions share it, and so are positives of each other. "row": the row in its own media
            type, as published.
        bad: Collects what cannot be decoded.

    Raises:
        ValueError: If a media type has fewer samples than one step of all ranks takes.
    """

    def __init__(
        self,
        sources: Mapping[Media, ShardSet],
        batch_sizes: Mapping[Media, int],
        settings: ClipSettings,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        steps_per_epoch: int | None = None,
        positives: Positives = "sample",
        bad: BadSamples | None = None,
    ) -> None:
        self.first_step = 0
        """Step that iteration starts with."""
        self._sources = dict(sources)
        self._batch_sizes = dict(batch_sizes)
        self._settings = settings
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._positives = positives
        self._bad = bad or BadSamples()
        self._orders = {
            media: ShardOrder(source.counts.tolist(), derive_seed(seed, media))
            for media, source in self._sources.items()
        }
        batches: dict[Media, int] = {}
        self._first_idx: dict[Media, int] = {}
        total = 0
        for media in sorted(self._sources, reverse=True):  # videos first
            available, needed = len(self._sources[media]), batch_sizes[media] * world_size
            if available < needed:
                raise ValueError(
                    f"{available} {media}s are fewer than one step takes: batch size "
                    f"{batch_sizes[media]} on {world_size} processes needs {needed}; "
                    "lower the batch size or add data"
                )
            batches[media] = available // needed
            self._first_idx[media] = total
            total += available
        self._plan = StepPlan(batches, seed)
        self._length = steps_per_epoch or self._plan.round_length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[VideoTextBatch]:
        """Yield ``len(self)`` batches, shared out among the workers step by step."""
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first_step + own, self.first_step + len(self), workers):
            yield self.batch(step)

    def batch(self, step: int) -> VideoTextBatch:
        """Return this rank's share of a step."""
        media, pass_number, number = self._plan.at(step)
        size = self._batch_sizes[media]
        first = (number * self._world_size + self._rank) * size
        samples = [self._sample(media, pass_number, first + i) for i in range(size)]
        videos, texts, idx, keys = zip(*samples, strict=True)
        return {
            "video": torch.stack(videos),
            "text": list(texts),
            "idx": torch.tensor(idx, dtype=torch.int64),
            "key": list(keys),
            "media": media,
        }

    def identity(self) -> dict[str, Any]:
        """Describe what the order of batches depends on; a resumed run must have the same."""
        shards = [
            (media, source.names, source.counts.tolist())
            for media, source in sorted(self._sources.items())
        ]
        return {
            "seed": self._seed,
            "global_batch": {
                media: size * self._world_size for media, size in self._batch_sizes.items()
            },
            "data": hashlib.blake2b(repr(shards).encode(), digest_size=8).hexdigest(),
        }

    def _sample(
        self, media: Media, pass_number: int, position: int
    ) -> tuple[Tensor, str, int, str]:
        """Return video, caption, idx and key of a position, or of its replacement."""
        source = self._sources[media]
        place = self._orders[media].locate(pass_number, position)
        where = (self._seed, media, pass_number, position)
        for attempt in range(_ATTEMPTS):
            generator = torch.Generator().manual_seed(derive_seed("draws", *where))
            try:
                raw = source.read(*place)
                frames = load_frames(raw, media, self._settings, generator)
            except DecodeError as error:
                failure = error
                self._bad.add(source.key(*place), error)
                other = derive_seed("replacement", *where, attempt) % len(source)
                place = source.locate(other)
                continue
            video = train_transform(frames, self._settings, generator, raw.captions)
            drawn = torch.randint(len(raw.captions), (), generator=generator)
            caption = raw.captions[int(drawn)]
            if self._positives == "caption":
                idx = derive_seed(caption.lower())
            else:
                idx = raw.number + (self._first_idx[media] if self._positives == "sample" else 0)
            return video, caption, idx, raw.key
        raise RuntimeError(
            f"{_ATTEMPTS} {media}s in a row could not be decoded, the last one because of: "
            f"{failure}. The shards look broken; set `quarantine` to record every failure"
        )


class TrainLoader:
    """Loads a training stream from wherever training stands.

    The position is asked for, not counted here: batches that workers have prepared but training
    has not finished must not be skipped after a restart. Lightning needs the length to stop at the
    right batch and the state methods to know that the loader can resume.

    Args:
        stream: The batches.
        num_workers: Processes that decode; 0 = this one.
        completed: Returns the number of batches that training has finished since its start.
        timeout: Seconds to wait for a batch before giving up on a stuck worker.
    """

    def __init__(
        self,
        stream: TrainStream,
        num_workers: int,
        completed: Callable[[], int],
        timeout: float = 600,
    ) -> None:
        self._stream = stream
        self._num_workers = num_workers
        self._completed = completed
        self._timeout = timeout

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[VideoTextBatch]:
        """Yield an epoch's number of batches from the first one not completed."""
        self._stream.first_step = self._completed()
        yield from DataLoader(
            self._stream,
            batch_size=None,
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
            timeout=self._timeout if self._num_workers else 0,
            worker_init_fn=init_worker,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what must not change between a run and its continuation."""
        return self._stream.identity()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse to continue with other data.

        Raises:
            ValueError: If seed, global batch size or shards differ from the saved run's.
        """
        own = self._stream.identity()
        different = [name for name in own if state.get(name) != own[name]]
        if different:
            changes = ", ".join(f"{n}: {state.get(n)} -> {own[n]}" for n in different)
            raise ValueError(
                f"cannot continue this run with other data ({changes}); restore the setting, "
                "or start a new run from its weights with `init_from`"
            )


def init_worker(worker: int) -> None:
    """Ignore the signals that stop a run, and use one thread.

    Schedulers send SIGTERM to the whole process group, and a worker that dies of it breaks the
    step that the main process wants to finish and save.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


@atexit.register
def _kill_left_over_workers() -> None:
    """End workers that a failed run leaves; Python's own SIGTERM would wait for them for ever."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
