"""The generated collection of ``benchmarks.collection``: files, and vectors of their moments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vmm.export.encoder import Floats
from vmm.search.index import Index
from vmm.search.parts import Record
from vmm.search.sources import digest_of

MOMENTS_OF_A_FILE = 10
QUERIES = 100


class Sizes(NamedTuple):
    """What is measured."""

    moments: int
    part: int
    """For what takes too long."""
    centres: int
    embedding_dim: int
    rounds: int

    @property
    def files(self) -> int:
        """How many there are."""
        return self.moments // MOMENTS_OF_A_FILE

    @property
    def part_files(self) -> int:
        """How many of them are in the part."""
        return self.part // MOMENTS_OF_A_FILE

    @property
    def of_a_folder(self) -> int:
        """How many of them are in a folder."""
        return max(self.files // 100, 1)


def unit(vectors: Floats) -> Floats:
    """Scale rows to length 1."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def directions(rng: np.random.Generator, count: int, width: int) -> Floats:
    """Draw (count, width) directions."""
    return unit(rng.standard_normal((count, width), np.float32))


class Collection:
    """Generated vectors, block by block.

    Args:
        sizes: How many.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        rng = np.random.default_rng(0)
        self._centres = directions(rng, sizes.centres, sizes.embedding_dim)
        self._aside = directions(rng, 1, sizes.embedding_dim)

    def files(self, first: int, count: int) -> Floats:
        """Return (count * 10, E) vectors of some files."""
        rng = np.random.default_rng((1, first))
        width = self.sizes.embedding_dim
        files = self._centres[rng.integers(0, len(self._centres), count)]
        files = files + 0.7 * directions(rng, count, width)
        moments = np.repeat(files, MOMENTS_OF_A_FILE, axis=0)
        return unit(moments + 0.5 * directions(rng, len(moments), width))

    def queries(self) -> Floats:
        """Return (QUERIES, E) vectors that lie off all others, as sentences do."""
        rng = np.random.default_rng(2)
        about = self._centres[rng.integers(0, len(self._centres), QUERIES)]
        return unit(about + self._aside + 0.7 * directions(rng, QUERIES, about.shape[1]))


def place(folder: Path, sizes: Sizes, number: int) -> Path:
    """Return where a file is."""
    return folder / f"{number // sizes.of_a_folder:03d}" / f"{number}.mp4"


def make_files(folder: Path, sizes: Sizes) -> None:
    """Write files with a content of their own."""
    for number in range(sizes.files):
        path = place(folder, sizes, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))


def add_files(index: Index, folder: Path, sizes: Sizes, first: int, vectors: Floats) -> None:
    """Write a part with the moments of some files."""
    records = []
    for number in range(first, first + len(vectors) // MOMENTS_OF_A_FILE):
        path = place(folder, sizes, number)
        status = os.stat(path)
        records.append(
            Record(
                str(path),
                "",
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                digest=digest_of(path),
                seconds=4.0 * MOMENTS_OF_A_FILE,
                count=MOMENTS_OF_A_FILE,
                done=True,
            )
        )
    starts = 4.0 * np.tile(np.arange(MOMENTS_OF_A_FILE), len(records))
    index.add(records, np.stack([starts, starts + 4], 1).tolist(), vectors)
