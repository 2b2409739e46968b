"""Several views of one sample: clips of the video, and squares that are cut out of each.

Shape legend: see ``vmm.types``; here V is the number of views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vmm.data.clips import load_frames
from vmm.data.schema import RawSample
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.types import Media


@dataclass(frozen=True)
class Views:
    """How many views of each video.

    Args:
        clips: Clips, spread over the video.
        crops: Squares of each clip, spread over its longer side.

    Raises:
        ValueError: If a number is below 1.
    """

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if min(self.clips, self.crops) < 1:
            raise ValueError(f"{self.clips} clips and {self.crops} crops: give at least 1 of each")

    def check(self, settings: ClipSettings) -> None:
        """Refuse crops that would all be the same.

        Raises:
            ValueError: If there are several and frames are squashed.
        """
        if self.crops > 1 and settings.fit == "squash":
            raise ValueError(
                f"{self.crops} crops of squashed frames are all the same; ask for 1, or set fit to "
                "crop"
            )


def look(raw: RawSample, media: Media, settings: ClipSettings, views: Views) -> Tensor:
    """Make all views of a sample, clip by clip.

    Args:
        raw: The sample.
        media: How to read it; an image has one clip however many are asked for.
        settings: Frames and size of a view.
        views: How many.

    Returns:
        (V, T, C, image_size, image_size) float32.

    Raises:
        SampleError: If it cannot be decoded.
    """
    seen, clips = [], views.clips if media == "video" else 1
    for clip in range(clips):
        frames = load_frames(raw, media, settings, clip=clip, num_clips=clips)
        for crop in range(views.crops):
            place = crop / (views.crops - 1) if views.crops > 1 else None
            seen.append(eval_transform(frames, settings, place))
    return torch.stack(seen)
