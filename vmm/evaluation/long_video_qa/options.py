"""What an evaluation of questions about long videos is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmm.evaluation.common.options import ModelOptions
from vmm.evaluation.long_video_qa.protocols import Prompt
from vmm.evaluation.long_video_qa.viewing import Aggregate, Viewing


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What an evaluation of questions about long videos is told, beside what all are.

    Args:
        ids: List of the questions or videos to keep.
        prompt: Text of an option; None = the file's own statements, or question and option joined.
        fps: Frames per second instead of ``num_frames``.
        window: Frames that are seen at a time; None = all, in one pass.
        aggregate: How windows become one score, see ``Viewing``.

    Raises:
        ValueError: If shards are given, or no data set is.
    """

    ids: Path | None = None
    prompt: Prompt | None = None
    fps: float | None = None
    window: int | None = None
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        if self.shards is not None or self.dataset is None:
            raise ValueError("questions come in files of a data set: give one, not shards alone")

    @property
    def viewing(self) -> Viewing:
        """How a model looks at a video.

        Raises:
            ValueError: As ``Viewing`` does.
        """
        return Viewing(self.num_frames, self.fps, self.window, self.aggregate)

    @property
    def questions(self) -> str:
        """Name of the data set."""
        assert self.dataset is not None
        return self.dataset
