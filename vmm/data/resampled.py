"""Training batches from shards that cannot be indexed: ``pipe:`` commands and object stores.

Shards are drawn with replacement and read from front to back, so no rank ever waits for another
one's data, but there are no passes over the data and a continued run draws other shards. The URLs
are opened by webdataset; the tars are read here, with the same care as local ones.
"""

from __future__ import annotations

import logging
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from vmm.data.clips import load_frames
from vmm.data.collate import CONTENTS, Contents, Positives, Sample, draw_item, make_batch
from vmm.data.corpora import Shards, by_name
from vmm.data.faults import BadSample, BadSamples, ReadingBoard, SampleError, UnusableData
from vmm.data.index import MAX_MEMBER_BYTES, MAX_TEXT_BYTES, TAR_ERRORS, why_ignored
from vmm.data.order import StepPlan, derive_rng, derive_seed
from vmm.data.patterns import expand_urls
from vmm.data.schema import (
    JSON_EXTENSION,
    TEXT_EXTENSION,
    RawSample,
    captions_of,
    failure_of,
    media_member,
    metadata_of,
    no_caption,
    split_member,
    text_fault,
)
from vmm.data.transforms import ClipSettings, augmented
from vmm.types import Media, VideoTextBatch

_log = logging.getLogger(__name__)

_FRUITLESS = 8


class ResampledStream(IterableDataset[VideoTextBatch | UnusableData]):
    """Endless training batches from shards that are drawn with replacement.

    A shard is drawn as often as its corpus' weight says; media types alternate in proportion to
    their (weighted) numbers of shards, as the numbers of samples are unknown. Not exactly
    resumable: a run that goes on takes other samples than one that was never stopped.

    Args:
        sources: Corpora of each media type; URLs, ``pipe:`` commands and local paths.
        batch_sizes: Samples of each media type per step and rank.
        settings: Frames, size and augmentation.
        steps_per_epoch: Length of an epoch.
        seed: Seed of draws and augmentation.
        rank: This process; each has draws of its own.
        positives: "sample" or "caption", as in ``TrainStream``.
        bad: Collects what cannot be decoded, and stops the run when it is too much.
        shuffle: Samples of each media type among which each worker draws the next.
        content: As in ``TrainStream``.

    Raises:
        ValueError: If a pattern is wrong, there is no ``steps_per_epoch``, positives are rows, or
            webdataset is not installed.
    """

    def __init__(
        self,
        sources: Mapping[Media, Shards],
        batch_sizes: Mapping[Media, int],
        settings: ClipSettings,
        steps_per_epoch: int | None,
        seed: int = 0,
        rank: int = 0,
        positives: Positives = "sample",
        bad: BadSamples | None = None,
        shuffle: int = 100,
        content: Contents = CONTENTS["captions"],
    ) -> None:
        if steps_per_epoch is None:
            raise ValueError(
                "set data.init_args.steps_per_epoch: the number of samples behind URLs and "
                "`pipe:` commands is not known"
            )
        if find_spec("webdataset") is None:
            raise ValueError(
                "shards behind URLs and `pipe:` commands need webdataset: pip install "
                '"vmm-video[remote]"'
            )
        if positives == "row":
            raise ValueError(
                "positives='row' needs row numbers, which samples behind URLs and `pipe:` "
                "commands do not have; use positives='sample'"
            )
        self.first_step = 0
        """Step that iteration starts with."""
        self.board = ReadingBoard(0)
        """Where workers note what they read."""
        self._urls: dict[Media, tuple[list[str], np.ndarray]] = {}
        shares: dict[Media, int] = {}
        for media, shards in sources.items():
            pairs = [
                (url, corpus.weight)
                for corpus in by_name(shards).values()
                for url in expand_urls(corpus.shards)
            ]
            weights = np.array([weight for _, weight in pairs])
            self._urls[media] = [url for url, _ in pairs], weights / weights.sum()
            shares[media] = max(1, round(weights.sum()))
        self._plan = StepPlan(shares, seed)
        self.batch_sizes = dict(batch_sizes)
        self._settings = settings
        self._length = steps_per_epoch
        self._seed, self._rank = seed, rank
        self._positives: Positives = positives
        self._bad = bad or BadSamples()
        self._shuffle = shuffle
        self._content = content
        _log.warning(
            "training shards behind URLs or `pipe:` commands have no index: they are drawn with "
            "replacement, and a continued run is not exactly the one that was stopped; copy them "
            "to a disk for passes over the data and exact resume"
        )

    def __len__(self) -> int:
        return self._length

    def identity(self) -> dict[str, Any]:
        """Say that there is no order to go on with."""
        return {"resampled": True}

    def __iter__(self) -> Iterator[VideoTextBatch | UnusableData]:
        """Yield ``len(self)`` batches, shared out among the workers step by step."""
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        samples = {media: self._samples(media, own) for media in self._urls}
        for step in self.steps_of(own, workers):
            media, _ = self._plan.at(step)
            try:
                size = self.batch_sizes[media] * self._settings.aug_repeats
                batch = make_batch(islice(samples[media], size), media, size)
            except UnusableData as error:
                yield error
                return
            yield batch
            del batch  # or its pixels stay while the next ones are read

    def steps_of(self, worker: int, workers: int) -> range:
        """Return the steps whose batches one of so many workers makes, on every rank."""
        return range(self.first_step + worker, self.first_step + len(self), workers)

    def read(self, url: str, media: Media) -> Iterator[RawSample]:
        """Read the samples of one shard from front to back; see ``read_stream``."""
        return read_stream(url, media, self._bad, self._content.captioned)

    def _samples(self, media: Media, worker: int) -> Iterator[Sample]:
        """Yield the usable samples of a media type for ever."""
        where = (self._seed, media, self._rank, worker, self.first_step)
        for number, (url, raw) in enumerate(self.shuffled(media, worker)):
            generator = torch.Generator().manual_seed(derive_seed("draws", *where, number))
            try:
                frames = load_frames(raw, media, self._settings, generator)
                videos = augmented(frames, self._settings, generator, raw.captions)
                items = [draw_item(raw, self._content, generator) for _ in videos]
            except SampleError as error:
                self._bad.add(BadSample(url, raw.key, error.reason, error.detail))
                self._bad.check()
                continue
            self._bad.usable += 1
            key = f"{url}/{raw.key}"
            for video, item in zip(videos, items, strict=True):
                idx = derive_seed(item.text.lower() if self._positives == "caption" else key)
                yield Sample(video, item, idx, key)

    def shuffled(self, media: Media, worker: int) -> Iterator[tuple[str, RawSample]]:
        """Yield (url, sample) for ever, in an order shuffled within a window."""
        rng = derive_rng(self._seed, "urls", media, self._rank, worker, self.first_step)
        urls, shares = self._urls[media]
        window: list[tuple[str, RawSample]] = []
        fruitless = 0
        while fruitless < _FRUITLESS:
            url = urls[int(rng.choice(len(urls), p=shares))]
            self.board.note(worker, url)
            fruitless += 1
            for raw in self.read(url, media):
                fruitless = 0
                window.append((url, raw))
                if len(window) > self._shuffle:
                    place = int(rng.integers(len(window)))
                    window[place], window[-1] = window[-1], window[place]
                    yield window.pop()
        raise UnusableData(
            f"{_FRUITLESS} shards in a row gave no {media} with a caption, the last is {url}; "
            f"see the quarantine file ({self._bad.record or 'data.init_args.quarantine, not set'})"
        )


def read_stream(
    url: str, media: Media, bad: BadSamples, captioned: bool = True
) -> Iterator[RawSample]:
    """Read the samples of one shard from front to back.

    The members of a sample must follow each other, as both downloaders write them.

    Args:
        url: URL, ``pipe:`` command or path.
        media: Which media the samples must have.
        bad: Gets a record of what is not used; damage ends the shard, not the run.
        captioned: Whether samples without a caption are not used.

    Yields:
        Samples with media, numbered from 0.
    """
    number = 0
    try:
        for key, parts in _grouped(url, bad):
            metadata = metadata_of(parts)
            text = parts.get(TEXT_EXTENSION)
            captions = captions_of(text, metadata)
            extension = media_member(parts, media)
            if extension is None or (captioned and not captions):
                if extension is None:
                    reason, failure = f"no {media}", failure_of(metadata)
                else:
                    failure = text_fault(text, parts.get(JSON_EXTENSION))
                    reason = no_caption(failure)
                bad.write(BadSample(url, key, reason, failure))
                continue
            yield RawSample(key, number, extension, parts[extension], captions, metadata)
            number += 1
    except TAR_ERRORS as error:
        bad.write(BadSample(url, "", "damaged shard", f"{type(error).__name__}: {error}"))


def _grouped(url: str, bad: BadSamples) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, extension -> content) of neighbouring members; the last one if it is whole."""
    current, parts = "", dict[str, bytes]()
    with _open(url) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
            if not 0 <= member.size <= MAX_MEMBER_BYTES:  # tarfile would read on past the end
                raise tarfile.ReadError(f"{member.name} claims to have {member.size} bytes")
            split = split_member(member.name)
            if split is None or not member.isreg() or member.issparse():
                if reason := why_ignored(member):
                    bad.write(BadSample(url, member.name, f"member {reason}"))
                continue
            key, extension = split
            if key != current and parts:
                yield current, parts
                parts = {}
            current = key
            content = tar.extractfile(member)
            if member.size > MAX_TEXT_BYTES.get(extension, MAX_MEMBER_BYTES) or content is None:
                bad.write(BadSample(url, member.name, "member too large"))
            elif extension in parts:
                bad.write(BadSample(url, member.name, "member repeated name"))
            else:
                parts[extension] = content.read()
    if parts:
        yield current, parts


def _open(url: str) -> BinaryIO:
    """Open a URL through webdataset."""
    from webdataset.gopen import gopen

    if url.startswith("s3://"):  # not among webdataset's own
        url = f"pipe:aws s3 cp {shlex.quote(url)} -"
    return cast(BinaryIO, gopen(url))
