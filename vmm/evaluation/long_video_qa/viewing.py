"""How a model looks at a long video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Aggregate = Literal["mean", "max", "lse", "embeddings"]


@dataclass(frozen=True)
class Viewing:
    """How a model looks at a video.

    Args:
        num_frames: Frames over the whole video; None = the model's number, or as ``fps`` says.
        fps: Frames per second instead.
        window: Frames per window; None = the whole video in one pass.
        aggregate: How windows become one score: the "mean" or the "max" of their scores, "lse" =
            the logarithm of the mean of their exponentials, or "embeddings" = the mean of their
            vectors, with the matching head looking at all of them at once.

    Raises:
        ValueError: If a number is not positive, or both numbers of frames are given.
    """

    num_frames: int | None = None
    fps: float | None = None
    window: int | None = None
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        if self.num_frames is not None and self.fps is not None:
            raise ValueError("give either --num-frames or --fps")
        for name in ("num_frames", "fps", "window"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
