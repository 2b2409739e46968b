"""The endless stream of training batches, from indexed shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from vmm.data.clips import load_frames
from vmm.data.collate import CONTENTS, Contents, Positives, Sample, draw_item, make_batch
from vmm.data.corpora import Mixture
from vmm.data.faults import BadSample, BadSamples, ReadingBoard, SampleError, UnusableData
from vmm.data.order import StepPlan, derive_seed
from vmm.data.transforms import ClipSettings, augmented
from vmm.distributed import world_size
from vmm.text_output import number_of
from vmm.types import Media, VideoTextBatch

OnBad = Literal["replace", "skip"]

_ATTEMPTS = 8


class TrainStream(IterableDataset[VideoTextBatch | UnusableData]):
    """Training batches as a function of the step: the same on any number of workers and ranks.

    Every batch holds one media type; the types alternate in shuffled order, in proportion to their
    (weighted) sizes. The samples of a media type are an endless sequence, so a pass that does not
    fill its last batch goes on into the next pass, and no sample loses its turn. A sample that
    cannot be decoded is replaced, media and caption together, by another one of its corpus that
    depends only on the seed and the place, so batches keep their size on every rank.

    Args:
        sources: The samples of each media type.
        batch_sizes: Samples of each media type per step and rank.
        settings: Frames, size and augmentation.
        seed: Seed of steps, crops and replacements.
        rank: This process.
        world_size: Processes that share every step.
        steps_per_epoch: Length of an epoch; None = until every sample was used about once.
        positives: "sample": every sample has an ``idx`` of its own. "caption": samples with equal
            captions share it, and so are positives of each other. "row": the row in its own
            corpus, as published.
        on_bad: "replace" as described, or "skip": leave it out, which makes the batch smaller.
        bad: Collects what cannot be decoded, and stops the run when it is too much.
        content: What goes with a clip; a sample without any, such as a question, counts as bad.
        sampler_repeats: How often a sample comes in a row, each time on another rank; then a pass
            over the data takes as many times the steps.

    Raises:
        ValueError: If a media type has fewer samples than one step of all ranks takes, or bad
            samples are to be skipped on several ranks.
    """

    def __init__(
        self,
        sources: Mapping[Media, Mixture],
        batch_sizes: Mapping[Media, int],
        settings: ClipSettings,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        steps_per_epoch: int | None = None,
        positives: Positives = "sample",
        on_bad: OnBad = "replace",
        bad: BadSamples | None = None,
        content: Contents = CONTENTS["captions"],
        sampler_repeats: int = 1,
    ) -> None:
        self.first_step = 0
        """Step that iteration starts with."""
        self.board = ReadingBoard(0)
        """Where workers note what they read; the loader gives each a line."""
        if on_bad == "skip" and world_size > 1:
            raise ValueError(
                f"on_bad='skip' makes batches of unequal sizes on the {world_size} processes, "
                "which cannot be compared across them; use on_bad='replace'"
            )
        self._sources = dict(sources)
        self.batch_sizes = dict(batch_sizes)
        self._settings = settings
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._positives = positives
        self._on_bad = on_bad
        self._content = content
        self._repeats = sampler_repeats
        self._bad = bad or BadSamples()
        batches: dict[Media, int] = {}
        self._first_idx: dict[Media, int] = {}
        total = 0
        for media in sorted(self._sources, reverse=True):  # videos first
            available, needed = self._sources[media].size, batch_sizes[media] * world_size
            if available < needed:
                setting = "batch_size" if media == "video" else "image_batch_size"
                there = number_of(available, f"{media} is", f"{media}s are")
                processes = number_of(world_size, "process", "processes")
                most = available // world_size
                remedy = f"lower data.init_args.{setting} (at most {most}) or add data"
                raise ValueError(
                    f"{there} fewer than one step takes: batch size {batch_sizes[media]} on "
                    f"{processes} needs {needed}; {remedy if most else 'add data'}"
                )
            batches[media] = max(1, len(self._sources[media]) // needed)
            self._first_idx[media] = total
            total += available
        self._plan = StepPlan(batches, seed)
        self._length = self._plan.round_length if steps_per_epoch is None else steps_per_epoch

    @property
    def sources(self) -> dict[Media, Mixture]:
        """The samples of each media type."""
        return self._sources

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[VideoTextBatch | UnusableData]:
        """Yield ``len(self)`` batches, shared out among the workers step by step.

        The reason to stop is yielded, not raised: a worker's exception would arrive as the text
        of a traceback.
        """
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in self.steps_of(own, workers):
            try:
                batch = self.batch(step)
            except UnusableData as error:
                yield error
                return
            yield batch
            del batch  # or its pixels stay while the next ones are read

    def batch(self, step: int) -> VideoTextBatch:
        """Return this rank's share of a step.

        Raises:
            UnusableData: If too much cannot be decoded.
        """
        media, turns = self.share_of(step)
        rows = self.batch_sizes[media] * self._settings.aug_repeats
        return make_batch(self._samples(media, turns), media, rows)

    def steps_of(self, worker: int, workers: int) -> range:
        """Return the steps whose batches one of so many workers makes, on every rank."""
        return range(self.first_step + worker, self.first_step + len(self), workers)

    def share_of(self, step: int) -> tuple[Media, list[tuple[int, int]]]:
        """Return a step's media type, and endless position and turn of each of this rank's samples.

        Where a position is, its media type's ``Mixture`` says.
        """
        media, number = self._plan.at(step)
        size, ranks = self.batch_sizes[media], self._world_size
        if self._repeats == 1:
            first = (number * ranks + self._rank) * size
            turns = [(position, 0) for position in range(first, first + size)]
        else:  # neighbours of the step's rows go to different ranks
            places = range(number * size * ranks + self._rank, (number + 1) * size * ranks, ranks)
            turns = [divmod(place, self._repeats) for place in places]
        return media, turns

    def _samples(self, media: Media, turns: list[tuple[int, int]]) -> Iterator[Sample]:
        """Yield the samples of some positions and turns; it must be something."""
        usable = 0
        for position, turn in turns:
            for sample in self._copies(media, position, turn, self._on_bad):
                usable += 1
                yield sample
        if not usable:
            yield from self._copies(media, *turns[0], "replace")

    def taken(self, steps: int) -> dict[str, int]:
        """Count the samples that all ranks together have taken before a step.

        Returns:
            By media type, ``video``, and where several corpora have names ``video/name``.
        """
        counts: dict[str, int] = {}
        for media, batches in self._plan.before(steps).items():
            positions = batches * self.batch_sizes[media] * self._world_size
            counts[media] = positions
            corpora = self._sources[media].taken(positions // self._repeats)
            if len(corpora) > 1:
                counts |= {f"{media}/{name}": count for name, count in corpora.items()}
        return counts

    def identity(self) -> dict[str, Any]:
        """Describe what the order of batches depends on; a resumed run must have the same."""
        data = [(media, source.identity()) for media, source in sorted(self._sources.items())]
        return {
            "seed": self._seed,
            "global_batch": {
                media: self.batch_sizes[media] * self._world_size for media in self._sources
            },
            "data": hashlib.blake2b(repr(data).encode(), digest_size=8).hexdigest(),
            **({"sampler_repeats": self._repeats} if self._repeats > 1 else {}),
        }

    def _copies(self, media: Media, position: int, turn: int, on_bad: OnBad) -> list[Sample]:
        """Return the sample of an endless position, or its replacement; nothing to skip it.

        It is there several times if it is to be augmented as often. In each turn it is another one.
        """
        source = self._sources[media]
        place = source.locate(position)
        where: tuple[Any, ...] = (self._seed, media, *divmod(position, len(source)))
        where += (turn,) if turn else ()
        worker = get_worker_info()
        for attempt in range(_ATTEMPTS):
            generator = torch.Generator().manual_seed(derive_seed("draws", *where))
            name = source.name(place)
            self.board.note(worker.id if worker else 0, "/".join(name))
            try:
                raw = source.read(place)
                frames = load_frames(raw, media, self._settings, generator)
                videos = augmented(frames, self._settings, generator, raw.captions)
                items = [draw_item(raw, self._content, generator) for _ in videos]
            except SampleError as error:
                failure = error
                self._bad.add(BadSample(*name, error.reason, error.detail))
                self._bad.check()
                if on_bad == "skip":
                    return []
                place = source.another(place, derive_seed("replacement", *where, attempt))
                continue
            self._bad.usable += 1
            number = raw.number
            if self._positives == "sample":
                number += self._first_idx[media] + source.first(place.corpus)
            by_caption = self._positives == "caption"
            ids = (derive_seed(item.text.lower()) if by_caption else number for item in items)
            return [Sample(*of_one, raw.key) for of_one in zip(videos, items, ids, strict=True)]
        raise UnusableData(
            f"{_ATTEMPTS} {media}s in a row could not be decoded, the last one because of: "
            f"{failure}. The shards look broken:\n{self._bad.table()}"
        )


def refuse_other_data(saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Check that a run goes on with the data it began with.

    Args:
        saved: Identity of the stream that the saved run read.
        own: Identity of the stream at hand.

    Raises:
        ValueError: If seed, global batch size, shards, captions' places or weights differ.
    """
    different = [name for name in own if saved.get(name) != own[name]]
    if not different:
        return
    changes = ", ".join(f"{name}: {saved.get(name)} -> {own[name]}" for name in different)
    remedy = "restore the setting, or start a new run from its weights with `init_from`"
    if different == ["global_batch"]:
        remedy = (
            "batch_size (or image_batch_size) times the number of processes must stay what it "
            "was: change data.init_args.batch_size to match"
        )
    raise ValueError(f"cannot continue this run with other data ({changes}); {remedy}")


def refuse_unequal_data(own: dict[str, Any]) -> None:
    """Check that all processes of a run see the same data; all of them must call this.

    Args:
        own: Identity of the stream of this process.

    Raises:
        ValueError: If a process sees other shards or has other settings than the first.
    """
    if world_size() == 1:
        return
    all_of_them: list[Any] = [None] * world_size()
    dist.all_gather_object(all_of_them, own)
    for rank, other in enumerate(all_of_them):
        if other != all_of_them[0]:
            raise ValueError(
                f"process {rank} sees other training data than process 0 ({other} and "
                f"{all_of_them[0]}); give every machine the same shards and settings"
            )
