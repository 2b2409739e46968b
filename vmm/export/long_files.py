"""Long videos in use: one vector for the video, and one for every second or other interval.

The encoder sees the whole video at once (``vmm.models.long_video``); frames are decoded in one
pass over the file, a few at a time. Shape legend: see ``vmm.types``; E is the width of the joint
space, S counts the frames that are looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vmm.data.decode import read_film
from vmm.data.times import shown_at_rate
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.models.long_video import encode_long_video, takes_long_videos
from vmm.models.video_text import VideoTextModel


class LongVideo(NamedTuple):
    """A long video, encoded; all vectors have length 1."""

    vector: npt.NDArray[np.float32]
    """(E,) of the whole video."""
    per_frame: npt.NDArray[np.float32]
    """(S, E) of every frame that was looked at, in its context: the whole video."""
    seconds: npt.NDArray[np.float64]
    """(S,) when the frames are shown."""


def encode_file(
    model: VideoTextModel,
    clip: ClipSettings,
    video: bytes | Path,
    fps: float,
    folder: str | Path | None,
    progress: bool,
) -> LongVideo:
    """Encode a video file of any length; see ``VideoTextEncoder.encode_long_video``.

    Raises:
        DecodeError: If it cannot be decoded.
        ValueError: If ``fps`` is not positive or the video encoder is another one.
    """
    encoder = model.video_encoder
    if not takes_long_videos(encoder) or encoder.tubelet_size != 1:
        raise ValueError("long videos need VideoMamba with a tubelet size of 1, or FrameMamba")
    film = read_film(video, lambda times: shown_at_rate(times, fps))
    portions = (
        eval_transform(torch.from_numpy(f).permute(0, 3, 1, 2), clip) for f in film.portions
    )
    features = encode_long_video(
        encoder, portions, len(film.seconds), folder=folder, progress=progress
    )

    per_frame = F.normalize(model.project_video(features.per_step).float(), dim=-1)
    whole = F.normalize(per_frame.mean(0), dim=-1)  # as of a clip, see VideoTower
    return LongVideo(whole.cpu().numpy(), per_frame.cpu().numpy(), film.seconds)
