"""What an evaluation of moments is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmm.evaluation.common.options import ModelOptions

USUAL_FPS = 1.0


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What an evaluation of moments is told, beside what all are.

    Args:
        ids: List of the sentences or videos to keep.
        fps: Frames per second that are looked at; None = 1, unless ``num_frames`` says how many.
        window: Frames that are seen at a time; None = all, in one pass.
        head: Folder of a trained head; where there is none yet, it is trained and put there.
        train_annotations: Training split, for its distribution and to train a head.
        train_media: Its media, as for the test set; to train a head.

    Raises:
        ValueError: If shards are given, no data set is, or numbers contradict each other.
    """

    ids: Path | None = None
    fps: float | None = None
    window: int | None = None
    head: Path | None = None
    train_annotations: Path | None = None
    train_media: str | None = None

    def __post_init__(self) -> None:
        if self.shards is not None or self.dataset is None:
            raise ValueError("moments come in files of a data set: give one, not shards alone")
        if self.num_frames is not None and self.fps is not None:
            raise ValueError("give either --num-frames or --fps")
        if self.train_media is not None and self.train_annotations is None:
            raise ValueError("--train-media needs --train-annotations, which say what is shown")
        for name in ("num_frames", "fps", "window"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be above 0")

    @property
    def rate(self) -> float | None:
        """Frames per second; None where their number is given."""
        return self.fps or (USUAL_FPS if self.num_frames is None else None)

    @property
    def moments(self) -> str:
        """Name of the data set."""
        assert self.dataset is not None
        return self.dataset
