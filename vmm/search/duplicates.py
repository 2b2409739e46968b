"""Videos that show the same: copies, re-encoded or resized ones, and cuts of one another.

All moments are compared with all of other videos, block by block. First in few dimensions: with
an orthonormal basis P of these, cos(x, y) <= (Px)(Py) + |x - P'Px| |y - P'Py| (Cauchy-Schwarz),
which is a product of vectors that are one dimension longer. What the bound leaves is computed in
full, so that nothing is missed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from vmm.search.index import Index, Video
from vmm.search.parts import Floats
from vmm.search.sources import Source

THRESHOLD = 0.95
"""Cosine from which two moments show the same."""
SHARE = 0.5
"""Share of the moments of one of two videos that must have such a moment in the other."""
MOST = 10_000
"""Pairs that are kept, the surest ones."""

_ROWS = 4096
_DIMENSIONS = 63
_SAMPLE = 8192
_ROUNDING = 1e-4
_FEW = 1 / 64
_AT_ONCE = 2**15


@dataclass(frozen=True)
class Pair:
    """Two videos that show the same.

    Attributes:
        share: How much of one of them is in the other, the larger share of the two, 0.5 to 1.
        similarity: Mean cosine of the moments that are alike.
        same_bytes: Whether their content is the same, byte for byte.
        first: A video.
        second: Another one.
    """

    share: float
    similarity: float
    same_bytes: bool
    first: Source
    second: Source


class _Block:
    """Whole videos, one after the other.

    Args:
        index: Has their vectors.
        videos: Which.
    """

    def __init__(self, index: Index, videos: Sequence[Video]) -> None:
        self._index = index
        self.videos = videos
        self.counts = np.array([video.record.count for video in videos])
        self.owner = np.repeat(np.arange(len(videos)), self.counts)
        self.bounds = np.zeros((0, 0), np.float32)

    def vectors(self) -> Floats:
        """Read (n, E)."""
        return np.concatenate([self._index.moments_of(v.record.source)[1] for v in self.videos])


def find_duplicates(
    index: Index,
    threshold: float = THRESHOLD,
    *,
    most: int = MOST,
    rows: int = _ROWS,
    progress: bool = False,
) -> tuple[list[Pair], int]:
    """Find pairs of videos that show the same.

    Takes time with the square of the moments, and memory for 256 bytes of each.

    Args:
        index: Of the videos.
        threshold: Least cosine of two moments that show the same.
        most: How many pairs to return.
        rows: Moments of a block; a longer video is a block of its own.
        progress: Show a progress bar on stderr.

    Returns:
        The surest first, and how many there are.

    Raises:
        ValueError: If the threshold is no cosine above 0, or a part is damaged.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} must be above 0 and at most 1, e.g. {THRESHOLD}")
    blocks = list(_blocks(index, rows))
    _reduce(blocks)
    found: list[tuple[float, float, int, Pair]] = []
    total = 0
    loaded: tuple[int, Floats] = (-1, np.zeros((0, 0), np.float32))
    pairs = combinations_with_replacement(range(len(blocks)), 2)
    work = len(blocks) * (len(blocks) + 1) // 2
    for i, j in tqdm(pairs, total=work, unit="block", disable=not progress):
        one, other = blocks[i], blocks[j]
        candidates = _candidates(one, other, threshold)
        if candidates is None:
            continue
        if loaded[0] != i:
            loaded = i, one.vectors()
        theirs = loaded[1] if i == j else other.vectors()
        for pair in _pairs(one, other, *_alike(loaded[1], theirs, *candidates, threshold)):
            total += 1
            entry = (pair.share, pair.similarity, total, pair)
            if len(found) < most:
                heapq.heappush(found, entry)
            else:
                heapq.heappushpop(found, entry)
    return [pair for *_, pair in sorted(found, key=lambda e: (-e[0], -e[1], e[2]))], total


def _blocks(index: Index, rows: int) -> Iterator[_Block]:
    videos: list[Video] = []
    count = 0
    for video in index.videos.values():
        if videos and count + video.record.count > rows:
            yield _Block(index, videos)
            videos, count = [], 0
        if video.rows:
            videos.append(video)
            count += video.record.count
    if videos:
        yield _Block(index, videos)


def _reduce(blocks: Sequence[_Block]) -> None:
    """Give each block (n, D + 1) numbers, whose products bound the cosines."""
    if not blocks:
        return
    every = max(1, sum(map(len, (block.owner for block in blocks))) // _SAMPLE)
    sample = np.concatenate([block.vectors()[::every] for block in blocks])
    _, directions = np.linalg.eigh(sample.T @ sample)  # the most of them is in the last ones
    basis = np.ascontiguousarray(directions[:, -_DIMENSIONS:], np.float32)
    for block in blocks:
        vectors = block.vectors()
        kept = vectors @ basis
        rest = np.square(vectors).sum(1) - np.square(kept).sum(1)
        block.bounds = np.column_stack([kept, np.sqrt(np.maximum(rest, 0))])


Numbers = npt.NDArray[np.int64]


def _candidates(one: _Block, other: _Block, threshold: float) -> tuple[Numbers, Numbers] | None:
    """Return the rows of both that may be alike, of different videos; None if there are none."""
    near = one.bounds @ other.bounds.T >= threshold - _ROUNDING
    if one is other:
        near &= one.owner[:, None] < other.owner
    first, second = np.nonzero(near)
    return (first, second) if len(first) else None


def _alike(
    one: Floats, other: Floats, first: Numbers, second: Numbers, threshold: float
) -> tuple[Numbers, Numbers, Floats]:
    """Return the candidates that are alike, and their cosines."""
    if len(first) > _FEW * len(one) * len(other):
        cosines = (one @ other.T)[first, second]
    else:
        cosines = np.concatenate(
            [
                np.einsum("nd,nd->n", one[first[k : k + _AT_ONCE]], other[second[k : k + _AT_ONCE]])
                for k in range(0, len(first), _AT_ONCE)
            ]
        )
    alike = cosines >= threshold
    return first[alike], second[alike], cosines[alike]


def _pairs(
    one: _Block, other: _Block, first: Numbers, second: Numbers, cosines: Floats
) -> Iterator[Pair]:
    """Count what is alike for each pair of videos: both are whole in their blocks."""
    width = len(other.videos)
    keys, where = np.unique(one.owner[first] * width + other.owner[second], return_inverse=True)
    shares = np.maximum(
        _distinct(where, first, len(keys)) / one.counts[keys // width],
        _distinct(where, second, len(keys)) / other.counts[keys % width],
    )
    means = np.bincount(where, cosines, len(keys)) / np.bincount(where, minlength=len(keys))
    for number in np.flatnonzero(shares >= SHARE):
        a, b = (
            block.videos[int(i)].record
            for block, i in zip((one, other), divmod(int(keys[number]), width), strict=True)
        )
        yield Pair(
            float(shares[number]),
            min(float(means[number]), 1.0),
            a.digest == b.digest != "",
            *sorted((a.source, b.source)),
        )


def _distinct(where: Numbers, rows: Numbers, count: int) -> Numbers:
    """Count the distinct rows in each of some groups."""
    if not len(rows):
        return np.zeros(count, np.int64)
    size = int(rows.max()) + 1
    return np.bincount(np.unique(where * size + rows) // size, minlength=count)
