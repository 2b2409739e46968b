"""Features of a test set's clips on disk, so that an evaluation that was killed goes on from there.

A folder named after everything that the features depend on holds ``projected.f32`` and
``tokens.f32``, one row per clip, and ``clips-RANK.jsonl``, a line for each clip that is finished;
a line is written after its rows. Features of another model, data set or setting have another name
and are never read. Features are read through a memory map: they need no memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vmm.evaluation.common.models import ClipVectors
from vmm.evaluation.common.results import content_hash
from vmm.whole import whole_file

_FORMAT = 1  # one higher whenever the same model and data give other features
_FILES = ("projected", "tokens")


class Clip(NamedTuple):
    """What is kept of a sample once its frames are encoded."""

    key: str
    captions: list[str]
    reversed_caption: str | None
    problem: str | None
    """Why it could not be read; None if it could."""


class MappedRows:
    """Some rows of features that stay on disk.

    Args:
        features: (num_clips, ...) from ``FeatureStore.read``.
        rows: Which of them, in order.
    """

    def __init__(self, features: Tensor, rows: Sequence[int]) -> None:
        self._features = features
        self._rows = rows

    def __getitem__(self, row: int) -> Tensor:
        return self._features[self._rows[row]]


class FeatureStore:
    """Features of the clips of one test set.

    Several processes may share a store; each writes clips of its own.

    Args:
        folder: Where stores are kept.
        depends_on: Everything that the features depend on, as JSON.
        num_clips: Clips of the test set.
        rank: Number of this process.
    """

    def __init__(
        self, folder: Path, depends_on: dict[str, Any], num_clips: int, rank: int = 0
    ) -> None:
        self.folder = folder / content_hash([_FORMAT, num_clips, depends_on])
        self.num_clips = num_clips
        self._lines = self.folder / f"clips-{rank}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._drop_torn_line()

    def finished(self) -> dict[int, Clip]:
        """Return the clips that are there, of all processes, by their number."""
        clips = {}
        for path in sorted(self.folder.glob("clips-*.jsonl")):
            *lines, _ = path.read_text(encoding="utf-8").split("\n")  # the last may be torn
            for line in lines:
                number, *rest = json.loads(line)
                clips[int(number)] = Clip(*rest)
        return clips

    def add(self, numbers: Sequence[int], clips: Sequence[Clip], vectors: ClipVectors) -> None:
        """Keep a batch.

        Args:
            numbers: Of the clips in the test set.
            clips: Readable and unreadable ones.
            vectors: Of the readable ones, in order.

        Raises:
            ValueError: If the disk is full.
        """
        readable = [n for n, clip in zip(numbers, clips, strict=True) if clip.problem is None]
        try:
            for name, rows in zip(_FILES, vectors, strict=True):
                if rows is not None and readable:
                    self._write_rows(name, readable, rows)
            with self._lines.open("a", encoding="utf-8") as file:
                for number, clip in zip(numbers, clips, strict=True):
                    file.write(json.dumps([number, *clip]) + "\n")
        except OSError as error:
            most = (
                "; most of them are tokens, which --no-rerank (vmm eval retrieval) or a --probe "
                "other than attentive (vmm eval probe) does without"
            )
            raise ValueError(
                f"cannot write features to {self.folder} ({error.strerror}); give --out a folder "
                f"with more room{most * (vectors.tokens is not None)}"
            ) from error

    def read(self, name: str) -> Tensor:
        """Map the features ``projected`` or ``tokens``: (num_clips, ...) float32.

        Rows of unreadable clips are zero.
        """
        shape = json.loads((self.folder / f"{name}.json").read_text())
        # Copy on write: a tensor wants to be writable, the file must not be.
        rows = np.memmap(self._file(name), np.float32, "c", shape=(self.num_clips, *shape))
        return torch.from_numpy(rows)

    def remove(self) -> None:
        """Delete the features; the evaluation is finished."""
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _write_rows(self, name: str, numbers: Sequence[int], rows: Tensor) -> None:
        shape = list(rows.shape[1:])
        described = self.folder / f"{name}.json"
        if not described.is_file():
            with whole_file(described, durable=False) as file:
                file.write_text(json.dumps(shape))
        elif json.loads(described.read_text()) != shape:
            raise ValueError(
                f"clips give {name} of {shape} and of {described.read_text()}; a test set must "
                "not mix images and videos"
            )
        data = rows.float().cpu().contiguous().numpy()
        descriptor = os.open(self._file(name), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.truncate(descriptor, self.num_clips * data[0].nbytes)
            for number, row in zip(numbers, data, strict=True):
                _write_all(descriptor, row.tobytes(), number * row.nbytes)
        finally:
            os.close(descriptor)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.f32"

    def _drop_torn_line(self) -> None:
        """Cut off a line that a killed process did not finish."""
        if self._lines.is_file():
            data = self._lines.read_bytes()
            os.truncate(self._lines, data.rfind(b"\n") + 1)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
