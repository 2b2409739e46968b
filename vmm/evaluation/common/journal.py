"""What was scored, video by video, on disk, so that an evaluation that was killed goes on there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vmm.evaluation.common.results import content_hash

_FORMAT = 1  # one higher whenever the same model and data give other scores


class Journal:
    """One JSON line per finished video, in a file named after everything that scores depend on.

    Args:
        folder: Where journals are kept.
        depends_on: Everything that the scores depend on, as JSON.
    """

    def __init__(self, folder: Path, depends_on: dict[str, Any]) -> None:
        self.path = folder / f"scores-{content_hash([_FORMAT, depends_on])}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():  # cut off a line that a killed process did not finish
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)

    def entries(self) -> dict[int, Any]:
        """Return what is there, by the number of the video."""
        if not self.path.is_file():
            return {}
        with self.path.open(encoding="utf-8") as file:
            return dict(json.loads(line) for line in file)

    def add(self, number: int, entry: object) -> None:
        """Keep what a video gave.

        Raises:
            ValueError: If the disk is full.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([number, entry]) + "\n")
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.path} ({error.strerror}); give --out a folder with room"
            ) from error

    def remove(self) -> None:
        """Delete it; the evaluation is finished."""
        self.path.unlink(missing_ok=True)
