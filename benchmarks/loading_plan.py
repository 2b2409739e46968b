"""Who reads which samples when, by vmm's own code, on shards that are only numbers."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np

from vmm.data.corpora import Mixture
from vmm.data.faults import ReadingBoard
from vmm.data.resampled import ResampledStream
from vmm.data.schema import RawSample
from vmm.data.shards import ShardSet
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings
from vmm.types import Media

RECENT_SHARDS = 32
"""Indexes that a reader keeps, ``ShardSet``'s default."""
_SETTINGS = ClipSettings(num_frames=1, image_size=1)


class Corpus(NamedTuple):
    """Samples that are only counted."""

    media: Media
    samples: int
    per_shard: int

    def counts(self) -> list[int]:
        """Samples of each shard; the last may have fewer."""
        whole, rest = divmod(self.samples, self.per_shard)
        return [self.per_shard] * whole + [rest] * bool(rest)


class Cluster(NamedTuple):
    """Who reads."""

    ranks: int
    workers: int
    batch: int
    """Samples per rank and step."""


class PaperShards(ShardSet):
    """A ``ShardSet`` without files: its counts are all that the order of samples depends on."""

    def __init__(self, name: str, corpus: Corpus) -> None:
        self.media = corpus.media
        self.counts = np.array(corpus.counts(), dtype=np.int64)
        self._ends = np.cumsum(self.counts)
        self.paths = [f"{name}/{number:06d}.tar" for number in range(len(self.counts))]
        self.first = self._ends - self.counts
        """Number of each shard's first sample."""


class Plan(NamedTuple):
    """What each rank receives as its k-th batch."""

    media: np.ndarray
    """(K,) name of the media type."""
    sample: np.ndarray
    """(K, ranks, batch) number of the sample among all of its media type."""
    opened: np.ndarray
    """(K, ranks) shards of which the worker has to read the index first, or the front."""
    read: np.ndarray
    """(K, ranks) samples whose bytes the worker reads meanwhile; those it keeps for later too."""


def received(stream: TrainStream | ResampledStream, count: int, workers: int) -> list[int]:
    """Return the steps of a rank's batches as PyTorch's loader hands them out: worker by worker."""
    steps = [stream.steps_of(worker, workers) for worker in range(workers)]
    return [steps[number % workers][number // workers] for number in range(count)]


def indexed_plan(corpora: dict[str, Corpus], cluster: Cluster, count: int, seed: int = 0) -> Plan:
    """Say what is read in so many steps from shards with an index (``TrainStream``)."""
    sources = {
        media: Mixture(
            {n: PaperShards(n, c) for n, c in corpora.items() if c.media == media}, seed=seed
        )
        for media in dict.fromkeys(corpus.media for corpus in corpora.values())
    }
    sizes = dict.fromkeys(sources, cluster.batch)
    streams = [
        TrainStream(sources, sizes, _SETTINGS, seed, rank, cluster.ranks, steps_per_epoch=count)
        for rank in range(cluster.ranks)
    ]
    plan = _empty(count, cluster)
    plan.read[:] = cluster.batch
    steps = [received(stream, count, cluster.workers) for stream in streams]
    kept: dict[tuple[int, int, str, int], OrderedDict[int, None]] = {}
    for number in range(count):
        for rank, stream in enumerate(streams):
            media, turns = stream.share_of(steps[rank][number])
            plan.media[number] = media
            mixture = sources[media]
            for column, (position, _) in enumerate(turns):
                corpus, shard, sample = mixture.locate(position)
                own = mixture.sets[corpus]
                whole = mixture.first(corpus) + own.first[shard] + sample
                plan.sample[number, rank, column] = whole
                reader = kept.setdefault(
                    (rank, number % cluster.workers, media, corpus), OrderedDict()
                )
                plan.opened[number, rank] += _first_look(reader, shard)
    return plan


def _first_look(recent: OrderedDict[int, None], shard: int) -> bool:
    """Keep the shards last used, as ``ShardSet`` does; say whether this one was not among them."""
    new = shard not in recent
    recent[shard] = None
    recent.move_to_end(shard)
    if len(recent) > RECENT_SHARDS:
        recent.popitem(last=False)
    return new


class _Unread(ResampledStream):
    """Draws shards and samples as a stream of URLs does, and reads nothing."""

    def count(self, corpus: Corpus) -> None:
        """Begin to count what is opened and read."""
        self._counts = corpus.counts()
        self._per_shard = corpus.per_shard
        self.opened = self.samples_read = 0

    def read(self, url: str, media: Media) -> Iterator[RawSample]:
        """Yield samples of a shard that are only numbers."""
        shard = int(url.rpartition("-")[2].removesuffix(".tar"))
        self.opened += 1
        for place in range(self._counts[shard]):
            self.samples_read += 1
            yield RawSample("", shard * self._per_shard + place, "mp4", b"", [], {})


def resampled_plan(corpus: Corpus, cluster: Cluster, count: int, seed: int = 0) -> Plan:
    """Say what is read in so many steps from shards behind URLs (``ResampledStream``)."""
    last = len(corpus.counts()) - 1
    urls = f"https://store/shard-{{000000..{last:06d}}}.tar"
    plan = _empty(count, cluster)
    plan.media[:] = corpus.media
    for rank in range(cluster.ranks):
        with _silent("vmm.data.resampled"):  # it would warn once for each rank
            stream = _Unread(
                {corpus.media: urls}, {corpus.media: cluster.batch}, _SETTINGS, count, seed, rank
            )
        stream.count(corpus)
        stream.board = ReadingBoard(cluster.workers)
        for worker in range(cluster.workers):
            drawn = stream.shuffled(corpus.media, worker)
            for number in stream.steps_of(worker, cluster.workers):
                before = stream.opened, stream.samples_read
                batch = [raw.number for _, raw in islice(drawn, cluster.batch)]
                plan.sample[number, rank] = batch
                plan.opened[number, rank] = stream.opened - before[0]
                plan.read[number, rank] = stream.samples_read - before[1]
    return plan


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _empty(count: int, cluster: Cluster) -> Plan:
    shape = count, cluster.ranks
    return Plan(
        np.empty(count, dtype=object),
        np.full((*shape, cluster.batch), -1, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
    )


def audit(plan: Plan, corpora: Sequence[Corpus]) -> dict[str, int]:
    """Look at every whole pass that a plan has, of each media type by itself.

    Returns:
        ``passes`` looked at, samples ``repeated`` within a pass and samples ``lost`` from it.
    """
    found = {"passes": 0, "repeated": 0, "lost": 0}
    for media in dict.fromkeys(corpus.media for corpus in corpora):
        size = sum(corpus.samples for corpus in corpora if corpus.media == media)
        order = plan.sample[plan.media == media].reshape(-1)
        for number in range(len(order) // size):
            times = np.bincount(order[number * size : (number + 1) * size], minlength=size)
            found["passes"] += 1
            found["repeated"] += int(np.maximum(times - 1, 0).sum())
            found["lost"] += int((times[:size] == 0).sum())
    return found


def steps_for(passes: int, corpora: Sequence[Corpus], cluster: Cluster) -> int:
    """Return steps that hold so many whole passes over each media type."""
    each = cluster.ranks * cluster.batch
    sizes: dict[Media, int] = {}
    for corpus in corpora:
        sizes[corpus.media] = sizes.get(corpus.media, 0) + corpus.samples
    # A round has the whole batches of a pass, so the rest needs as many rounds more.
    whole = [max(1, size // each) for size in sizes.values()]
    rounds = [-(-passes * n // (each * b)) for n, b in zip(sizes.values(), whole, strict=True)]
    return max(rounds) * sum(whole)
