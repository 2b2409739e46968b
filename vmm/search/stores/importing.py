"""Vectors from a file back to an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from vmm.search.index import Index
from vmm.search.parts import Floats
from vmm.search.stores.table import Chunk, Table
from vmm.whole import whole_folder

_SAME_LENGTH = 1e-4
"""Rounding of float32 is less, that of float16 is more."""


def import_vectors(table: Table, out: Path) -> int:
    """Make an index of vectors.

    Args:
        table: Read from a file; nothing that it says is trusted. All moments of a video come one
            after the other.
        out: Folder of the new index, whole or not at all.

    Returns:
        How many vectors were not of length 1, and were normalised.

    Raises:
        ValueError: If the folder holds something, or what is read makes no index.
    """
    normalised, current, count = 0, -1, 0
    seen: set[int] = set()
    with whole_folder(out) as folder:
        try:
            index = Index.create(folder, table.settings)
        except ValueError as error:
            raise ValueError(
                f"what made the vectors is no encoder of vmm: {error.__cause__ or error}"
            ) from error
        for chunk in table.chunks:
            vectors, changed = _checked(chunk, table)
            normalised += changed
            records = []
            for number, rows in _runs(chunk):
                if number != current:
                    current, count = number, 0
                if not count and number in seen:
                    raise ValueError(
                        f"the moments of {table.records[number].source} are not together; sort "
                        "the table by its column id"
                    )
                seen.add(number)
                records.append(replace(table.records[number], first=count, count=rows))
                count += rows
            index.add(records, chunk.spans.tolist(), list(vectors))
        if Index.open(folder).num_moments != table.rows:
            raise ValueError("two of the videos are the same one; export the vectors again")
    return normalised


def _runs(chunk: Chunk) -> Iterator[tuple[int, int]]:
    """Yield each video and the number of its moments that come here."""
    starts = np.flatnonzero(np.diff(chunk.video, prepend=-1))
    ends = np.append(starts[1:], len(chunk.video))
    yield from zip(chunk.video[starts].tolist(), (ends - starts).tolist(), strict=True)


def _checked(chunk: Chunk, table: Table) -> tuple[Floats, int]:
    """Return vectors of length 1, and how many had another one.

    Raises:
        ValueError: If a vector has no direction, or a moment no time.
    """
    lengths = np.linalg.norm(chunk.vectors.astype(np.float64), axis=1)
    start, end = chunk.spans.T
    for usable, what in (
        (np.isfinite(chunk.vectors).all(1), "a vector that holds NaN or infinity"),
        (lengths > 0, "a vector of zeros, which has no direction"),
        (np.isfinite(end) & (start >= 0) & (start < end), "no start before its end"),
    ):
        if not usable.all():
            record = table.records[int(chunk.video[np.argmin(usable)])]
            raise ValueError(f"a moment of {record.source} has {what}; export the vectors again")
    other = np.abs(lengths - 1) > _SAME_LENGTH
    vectors = chunk.vectors.copy()
    vectors[other] = chunk.vectors[other] / lengths[other, None]
    return vectors, int(other.sum())
