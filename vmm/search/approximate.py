"""Approximate search: moments in lists around centroids; a query looks at the nearest lists.

An inverted file (Sivic and Zisserman, "Video Google", 2003) whose centroids faiss finds. The file
``approximate.safetensors`` beside the parts names those it knows, and has their vectors once more,
list after list: a list is read in one piece. Moments of other parts are all compared. What a query
finds is compared with the vectors of the parts, so that a wrong file can hide moments but invents
none.

==============  ============================================================================
``centroids``   (L, E) float32 of length 1
``parts``       UTF-8 JSON: names and numbers of rows of the parts, in this order
``rows``        (n,) int64 numbers of rows of the parts, one part after the other
``starts``      (L + 1,) int64: list i is ``rows[starts[i]:starts[i + 1]]``
``vectors``     (n, E) float32 of these rows
==============  ============================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from vmm.portable import lock
from vmm.search.index import Index, Moments
from vmm.search.parts import Floats, blocks_of, is_intact, json_table, write_tables
from vmm.whole import PARTIAL, whole_file

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
_ROUNDING = 1e-5
_REMEDY = "`vmm index {} --approximate` makes"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Lists of the moments of an index.

    Attributes:
        path: Their file.
        centroids: (L, E).
        starts: (L + 1,).
        rows: (n,) of the index's moments; -1 if outdated or gone.
        vectors: (n, E) mapped from the file.
        others: (m,) of the index's moments, whose part is not in the file; -1 if outdated.
        other_vectors: (m, E) together, mapped from the parts.
    """

    path: Path
    centroids: Floats
    starts: Rows
    rows: Rows
    vectors: Floats
    others: Rows
    other_vectors: list[Floats]

    @property
    def num_listed(self) -> int:
        """How many moments are in lists."""
        return int(np.count_nonzero(self.rows >= 0))

    @property
    def probes(self) -> int:
        """How many lists a query looks at."""
        count, moments = len(self.centroids), len(self.rows)
        if moments <= _ALL * _LEAST:
            return count
        return min(count, max(math.ceil(_LEAST * count / moments), round(_SHARE * count)))

    def near(self, vector: Floats) -> tuple[Rows, list[Floats]]:
        """Return the moments to compare a vector with.

        Args:
            vector: (E,).

        Returns:
            (k,) their numbers, -1 for those not to be found; (k, E) their vectors, in pieces.
        """
        count = min(self.probes, len(self.centroids))
        lists = np.argpartition(self.centroids @ -vector, count - 1)[:count]
        pieces = [slice(*self.starts[i : i + 2]) for i in np.sort(lists)]
        rows = np.concatenate([*(self.rows[piece] for piece in pieces), self.others])
        return rows, [*(self.vectors[piece] for piece in pieces), *self.other_vectors]

    def check(self, rows: Rows, cosines: Floats, vector: Floats, moments: Moments) -> None:
        """Compare what was found with the parts.

        Args:
            rows: (k,) of the index's moments.
            cosines: (k,) with the vector.
            vector: (E,).
            moments: Of the index.

        Raises:
            ValueError: If they are others.
        """
        starts = _starts(moments.vectors)
        parts = np.searchsorted(starts, rows, "right") - 1
        theirs = [
            float(moments.vectors[part][row - starts[part]] @ vector)
            for part, row in zip(parts, rows, strict=True)
        ]
        if not (np.abs(cosines - np.array(theirs)) <= _ROUNDING).all():
            raise self.damaged("its vectors are not those of the parts")

    def damaged(self, why: object) -> ValueError:
        """Return the error that says why the file cannot be used, and what to do."""
        return _damaged(self.path, why)


def make_lists(index: Index, seed: int = 0) -> Path:
    """Sort the moments of an index into lists, and write them beside its parts.

    Args:
        index: With moments.
        seed: Of the sample that the centroids are made of, and their beginning.

    Returns:
        The file.

    Raises:
        ValueError: If faiss is not installed, the index is empty, or another process writes lists.
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
    centroids = np.ascontiguousarray(means.centroids, np.float32)
    tables: dict[str, npt.NDArray[Any]] = {
        "centroids": centroids,
        "parts": json_table(parts, centroids.nbytes),
        "rows": rows,
        "starts": starts,
    }
    path = index.folder / FILE
    with _alone(index.folder), whole_file(path) as file:
        shape = (total, index.settings.embedding_dim)
        write_tables(file, tables, shape, _in_order(moments.vectors, rows))
    return path


def remove_lists(index: Index) -> None:
    """Remove the lists of an index, if there are any."""
    (index.folder / FILE).unlink(missing_ok=True)


def read_lists(index: Index, moments: Moments) -> Lists:
    """Read the lists of an index, and fit them to the parts it has now.

    Args:
        index: The index.
        moments: Of the index.

    Raises:
        ValueError: If there are none, they are damaged, or know less than half of the moments.
    """
    path = index.folder / FILE
    if not path.is_file():
        raise ValueError(f"{index.folder} has no {FILE}; {_REMEDY.format(index.folder)} it")
    lists = _fitted(index, moments)
    listed = lists.num_listed
    if index.num_moments - listed > max(listed, _FEW):
        raise ValueError(
            f"{path} knows {listed} of {index.num_moments} moments; "
            f"{_REMEDY.format(index.folder)} it again"
        )
    return lists


def size_of_lists(index: Index) -> tuple[int, int]:
    """Return how many moments are in lists, and how many bytes these are; 0, 0 without lists.

    Raises:
        ValueError: If they are damaged.
    """
    path = index.folder / FILE
    if not path.is_file():
        return 0, 0
    return _fitted(index, index.moments()).num_listed, path.stat().st_size


def verify_lists(index: Index) -> list[str]:
    """Compare the lists of an index, if there are any, with their checksum; return what is wrong.

    Raises:
        ValueError: If they are damaged so much that they cannot be read.
    """
    path = index.folder / FILE
    if not path.is_file():
        return []
    _read(path, index.settings.embedding_dim)
    return [] if is_intact(path) else [str(_damaged(path, "its checksum is another one"))]


def _fitted(index: Index, moments: Moments) -> Lists:
    """Read the lists; what is outdated or gone is -1."""
    path = index.folder / FILE
    content, parts = _read(path, index.settings.embedding_dim)
    starts = _starts(moments.vectors)
    names = {part.name: number for number, part in enumerate(index.parts)}
    known, shifts, begin = set(), [np.zeros(0, np.int64)], 0
    for name, size in parts:
        number = names.get(name, -1)
        there = number >= 0 and len(moments.vectors[number]) == size
        shifts.append(np.full(size, starts[number] - begin if there else -1 - begin - size))
        known.add(number if there else -1)
        begin += size
    moved = content["rows"] + np.concatenate(shifts)[content["rows"]]
    others = [number for number in range(len(moments.vectors)) if number not in known]
    rest = np.concatenate(
        [np.zeros(0, np.int64), *(np.arange(starts[n], starts[n + 1]) for n in others)]
    )
    return Lists(
        path,
        content["centroids"],
        content["starts"],
        _current(moved, moments),
        content["vectors"],
        _current(rest, moments),
        [moments.vectors[number] for number in others],
    )


def _current(rows: Rows, moments: Moments) -> Rows:
    """Return numbers of moments with -1 in place of those below 0 or outdated."""
    there = rows >= 0
    there[there] = moments.owner[rows[there]] >= 0
    return np.where(there, rows, -1)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing lists, and remove what killed ones have left.

    Raises:
        ValueError: If one writes already.
    """
    with (folder / "index.json").open("r+b") as file:
        try:
            lock(file)
        except BlockingIOError as error:
            raise ValueError(f"another process makes the lists of {folder}; wait for it") from error
        except OSError:  # a drive without locks
            yield
            return
        for path in folder.glob(f".{FILE}.*{PARTIAL}"):
            path.unlink()
        yield


def _read(path: Path, width: int) -> tuple[dict[str, npt.NDArray[Any]], list[tuple[str, int]]]:
    """Read the file, and check all that is used as a place in something else.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:  # once: another process may put a new file there
            names = ("centroids", "parts", "rows", "starts", "vectors")
            tables = {name: file.get_tensor(name).numpy() for name in names}
        parts = [(str(name), size) for name, size in json.loads(tables.pop("parts").tobytes())]
        _check(tables, parts, width)
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError, OSError) as error:
        raise _damaged(path, error) from error
    return tables, parts


def _check(tables: dict[str, npt.NDArray[Any]], parts: list[tuple[str, int]], width: int) -> None:
    if any(type(size) is not int or size < 0 for _, size in parts):
        raise ValueError("a part has no number of rows")
    centroids, rows, starts = tables["centroids"], tables["rows"], tables["starts"]
    total, count = sum(size for _, size in parts), len(centroids)
    wanted = {
        "centroids": ((count, width), np.float32),
        "rows": ((total,), np.int64),
        "starts": ((count + 1,), np.int64),
        "vectors": ((total, width), np.float32),
    }
    for name, (shape, kind) in wanted.items():
        if tables[name].shape != shape or tables[name].dtype != kind:
            raise ValueError(f"{name} of {tables[name].shape} are not {shape} of the right kind")
    if not count:
        raise ValueError("it has no lists")
    if not np.isfinite(centroids).all():
        raise ValueError("a centroid holds NaN or infinity")
    if starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
        raise ValueError("its lists overlap")
    if total and not (rows.min() == 0 and np.array_equal(np.sort(rows), np.arange(total))):
        raise ValueError("a moment is in two lists or in none")


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path} is damaged: {why}; {_REMEDY.format(path.parent)} it again")


def _starts(tables: list[Floats]) -> Rows:
    return np.cumsum([0, *map(len, tables)])


def _of_parts(tables: list[Floats], rows: Rows) -> Iterator[tuple[Floats, Rows]]:
    """Yield each part with the numbers that increasing numbers of all rows have in it."""
    starts = _starts(tables)
    edges = np.searchsorted(rows, starts)
    for part, table in enumerate(tables):
        yield table, rows[edges[part] : edges[part + 1]] - starts[part]


def _in_order(tables: list[Floats], rows: Rows) -> Iterator[Floats]:
    """Yield (k, E) of rows in any order."""
    for some in blocks_of(rows):
        order = np.argsort(some)
        block = np.empty((len(some), tables[0].shape[1]), np.float32)
        block[order] = np.concatenate([t[here] for t, here in _of_parts(tables, some[order])])
        yield block
