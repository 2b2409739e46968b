"""Vectors of training videos' frames, on disk, so that what was stopped goes on from there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vmm.evaluation.common.journal import Journal
from vmm.evaluation.grounding.metrics import Floats


class Stored(NamedTuple):
    """What is known of one video."""

    problem: str | None
    """Why it could not be read; then there is nothing else."""
    first: int
    """Its first row."""
    edges: list[float]
    """(S + 1,) seconds between which each of its frames counts."""


class FrameStore:
    """Rows of float32 in one file, in the order in which videos were finished.

    Args:
        folder: Where stores are kept.
        depends_on: Everything that the vectors depend on, as JSON.
        width: Numbers of a row.
    """

    def __init__(self, folder: Path, depends_on: dict[str, Any], width: int) -> None:
        self._journal = Journal(folder, depends_on)
        self._path = self._journal.path.with_suffix(".f32")
        self._width = width
        self.videos = {n: Stored(*entry) for n, entry in self._journal.entries().items()}
        self._rows = sum(max(len(video.edges) - 1, 0) for video in self.videos.values())
        self._path.touch()
        os.truncate(self._path, self._rows * width * 4)  # what a killed process did not finish

    def add(self, number: int, problem: str | None, edges: Floats, vectors: Tensor | None) -> None:
        """Keep a video.

        Args:
            number: Of it.
            problem: Why it could not be read.
            edges: (S + 1,); none of a video that could not be read.
            vectors: (S, width).

        Raises:
            ValueError: If the disk is full.
        """
        try:
            if vectors is not None:
                with self._path.open("ab") as file:
                    file.write(vectors.float().numpy().tobytes())
        except OSError as error:
            raise ValueError(
                f"cannot write to {self._path} ({error.strerror}); give --out a folder with room"
            ) from error
        self.videos[number] = Stored(problem, self._rows, edges.tolist())
        self._journal.add(number, self.videos[number])
        self._rows += 0 if vectors is None else len(vectors)

    def vectors(self) -> dict[int, Tensor]:
        """Map the rows (S, width) of the videos that could be read, by their number.

        They stay on disk until they are looked at.
        """
        if not self._rows:
            return {}
        # Copy on write: a tensor wants to be writable, the file must not be.
        shape = (self._rows, self._width)
        rows = torch.from_numpy(np.memmap(self._path, np.float32, "c", shape=shape))
        return {
            number: rows[video.first : video.first + len(video.edges) - 1]
            for number, video in self.videos.items()
            if video.problem is None
        }

    def remove(self) -> None:
        """Delete the files; the head is trained."""
        self._path.unlink(missing_ok=True)
        self._journal.remove()
