"""Approximate search: moments in lists around centroids; a query looks at the nearest lists.

An inverted file (Sivic and Zisserman, "Video Google", 2003) whose centroids faiss finds. The file
``approximate.safetensors`` beside the parts holds them and the numbers of rows alone: the vectors
are those of the parts, so similarities are exact, and a wrong file can hide moments but invents
none. It names the parts it knows; moments of others are all compared.

==============  ============================================================================
``centroids``   (L, E) float32 of length 1
``starts``      (L + 1,) int64: list i is ``rows[starts[i]:starts[i + 1]]``
``rows``        (n,) int64 numbers of rows of the parts, one part after the other
``parts``       UTF-8 JSON: names and numbers of rows of the parts, in this order
==============  ============================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vmm.search.index import Index, Moments
from vmm.search.parts import Floats, blocks_of
from vmm.whole import whole_file

FILE = "approximate.safetensors"
_SAMPLES_OF_A_LIST = 48
_ROUNDS = 6
_SHARE = 1 / 64
_LEAST = 8192
"""Moments that a query is compared with at least."""
_ALL = 8
"""Times so many are compared in full: to pick some of them costs as much."""
_FEW = 1000
"""Moments that need no list."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Lists of the moments of an index.

    Attributes:
        centroids: (L, E).
        starts: (L + 1,).
        rows: (n,) of the index's moments.
        rest: (m,) moments that are in no list, increasing.
    """

    centroids: Floats
    starts: Rows
    rows: Rows
    rest: Rows

    @property
    def probes(self) -> int:
        """How many lists a query looks at."""
        count, moments = len(self.centroids), len(self.rows)
        if moments <= _ALL * _LEAST:
            return count
        return min(count, max(math.ceil(_LEAST * count / moments), round(_SHARE * count)))

    def near(self, vector: Floats, probes: int | None = None) -> Rows:
        """Return the moments to compare a vector with.

        Args:
            vector: (E,).
            probes: How many lists; None = as usual.

        Returns:
            (k,) increasing.
        """
        count = min(probes or self.probes, len(self.centroids))
        scores = self.centroids @ vector
        lists = np.argpartition(-scores, count - 1)[:count]
        found = [self.rows[self.starts[i] : self.starts[i + 1]] for i in lists]
        return np.sort(np.concatenate([*found, self.rest]))


def similarities_of(moments: Moments, rows: Rows | None, vector: Floats) -> list[Floats]:
    """Compare a vector with moments.

    Args:
        moments: Of an index.
        rows: (k,) increasing numbers of those to compare; None = all.
        vector: (E,).

    Returns:
        Products, (n,) of each part.
    """
    if rows is None:
        return [table @ vector for table in moments.vectors]
    return [
        # All of a part need not be copied to be compared.
        (table if len(here) == len(table) else table[here]) @ vector
        for table, here in _of_parts(moments.vectors, rows)
    ]


def make_lists(index: Index, seed: int = 0) -> Path:
    """Sort the moments of an index into lists, and write them beside its parts.

    Args:
        index: With moments.
        seed: Of the sample that the centroids are made of, and their beginning.

    Returns:
        The file.

    Raises:
        ValueError: If faiss is not installed, or the index is empty.
    """
    try:
        import faiss
    except ImportError as error:
        raise ValueError(
            "approximate search needs faiss once, to make its lists; `pip install "
            '"vmm-video[faiss]"`'
        ) from error
    moments = index.moments()
    total = len(moments.owner)
    if not index.num_moments:
        raise ValueError(f"{index.folder} holds no moments; `vmm encode` fills it")
    count = max(1, min(round(2 * total**0.5), total // 8))
    some = np.random.default_rng(seed).permutation(total)[: count * _SAMPLES_OF_A_LIST]
    means = faiss.Kmeans(
        index.settings.embedding_dim,
        count,
        niter=_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLES_OF_A_LIST,
    )
    means.train(
        np.concatenate([table[here] for table, here in _of_parts(moments.vectors, np.sort(some))])
    )
    owner = np.concatenate(
        [
            means.index.search(np.ascontiguousarray(block), 1)[1][:, 0]
            for table in moments.vectors
            for block in blocks_of(table)
        ]
    )
    rows = np.argsort(owner, kind="stable").astype(np.int64)
    starts = np.searchsorted(owner[rows], np.arange(count + 1)).astype(np.int64)
    parts = [[path.name, len(t)] for path, t in zip(index.parts, moments.vectors, strict=True)]
    tables: dict[str, npt.NDArray[Any]] = {
        "centroids": np.ascontiguousarray(means.centroids, np.float32),
        "starts": starts,
        "rows": rows,
        "parts": np.frombuffer(json.dumps(parts).encode(), np.uint8),
    }
    with whole_file(index.folder / FILE) as file:
        file.write_bytes(save(tables))
    return index.folder / FILE


def read_lists(index: Index, moments: Moments) -> Lists:
    """Read the lists of an index, and fit them to the parts it has now.

    Args:
        index: The index.
        moments: Of the index.

    Raises:
        ValueError: If there are none, they are damaged, or know less than half of the moments.
    """
    lists = _fitted(index, moments)
    if len(lists.rest) > max(len(lists.rows), _FEW):
        raise ValueError(
            f"{index.folder / FILE} knows {len(lists.rows)} of {index.num_moments} moments; "
            f"`vmm index {index.folder} --approximate` makes it again"
        )
    return lists


def _fitted(index: Index, moments: Moments) -> Lists:
    """Read the lists, without what is outdated or gone."""
    path = index.folder / FILE
    again = f"`vmm index {index.folder} --approximate` makes it"
    if not path.is_file():
        raise ValueError(f"{index.folder} has no {FILE}; {again}")
    try:
        centroids, starts, rows, parts = _read(path, index.settings.embedding_dim)
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}; {again} again") from error
    places = dict(zip((part.name for part in index.parts), _starts(moments.vectors), strict=False))
    sizes = dict(zip((part.name for part in index.parts), map(len, moments.vectors), strict=True))
    shifts, begin = [], 0
    for name, size in parts:
        known = sizes.get(name) == size
        shifts.append(np.full(size, places[name] - begin if known else -1 - begin - size, np.int64))
        begin += size
    moved = rows + np.concatenate([np.zeros(0, np.int64), *shifts])[rows]
    lists = np.repeat(np.arange(len(centroids)), np.diff(starts))
    kept = moved >= 0
    kept[kept] = moments.owner[moved[kept]] >= 0
    edges = np.searchsorted(lists[kept], np.arange(len(centroids) + 1))
    listed = np.zeros(len(moments.owner), np.bool_)
    listed[moved[kept]] = True
    rest = np.flatnonzero(~listed & (moments.owner >= 0))
    return Lists(centroids, edges, moved[kept], rest)


def num_listed(index: Index) -> int:
    """Return how many moments are in lists; 0 without such lists."""
    if not (index.folder / FILE).is_file():
        return 0
    moments = index.moments()
    return len(_fitted(index, moments).rows)


def _read(path: Path, width: int) -> tuple[Floats, Rows, Rows, list[tuple[str, int]]]:
    """Read the file, and check all that is used as a place in something else."""
    with safe_open(path, "numpy") as file:
        centroids, starts, rows = (file.get_tensor(n) for n in ("centroids", "starts", "rows"))
        parts = [(str(n), size) for n, size in json.loads(file.get_tensor("parts").tobytes())]
    if any(type(size) is not int or size < 0 for _, size in parts):
        raise ValueError("a part has no number of rows")
    total = sum(size for _, size in parts)
    shapes = (centroids.shape, starts.shape, rows.shape)
    if shapes != ((len(centroids), width), (len(centroids) + 1,), (total,)):
        raise ValueError(f"its tables of {shapes} do not fit together")
    kinds = [table.dtype for table in (centroids, starts, rows)]
    if not len(centroids):
        raise ValueError("it has no lists")
    if kinds != [np.float32, np.int64, np.int64] or not np.isfinite(centroids).all():
        raise ValueError("its tables hold no numbers, or other ones")
    if starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
        raise ValueError("its lists overlap")
    if total and not (rows.min() == 0 and np.array_equal(np.sort(rows), np.arange(total))):
        raise ValueError("a moment is in two lists or in none")
    return centroids, starts, rows, parts


def _starts(tables: list[Floats]) -> Rows:
    return np.cumsum([0, *map(len, tables)])


def _of_parts(tables: list[Floats], rows: Rows) -> Iterator[tuple[Floats, Rows]]:
    """Yield each part with the numbers that increasing numbers of all rows have in it."""
    starts = _starts(tables)
    edges = np.searchsorted(rows, starts)
    for part, table in enumerate(tables):
        yield table, rows[edges[part] : edges[part + 1]] - starts[part]
