"""Long videos in use: one vector for the video, and one for every second or other interval.

The encoder sees the whole video at once (``vmm.models.long_video``); frames are decoded in
portions. Shape legend: see ``vmm.types``; E is the width of the joint space, S counts the frames
that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.data.decode import decode_video
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.models.long_video import encode_long_video
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

_PORTION = 64
"""Frames that are decoded at once."""


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
    data: bytes,
    fps: float,
    folder: str | Path | None,
    progress: bool,
) -> LongVideo:
    """Encode a video file of any length; see ``VideoTextEncoder.encode_long_video``.

    Raises:
        DecodeError: If it cannot be decoded.
        ValueError: If ``fps`` is not positive or the video encoder is not VideoMamba.
    """
    encoder = model.video_encoder
    if not isinstance(encoder, VideoMamba) or encoder.tubelet_size != 1:
        raise ValueError("long videos need VideoMamba with a tubelet size of 1")
    chosen, seconds = _frames_at(data, fps)
    features = encode_long_video(
        encoder, _portions(data, chosen, clip), len(chosen), folder=folder, progress=progress
    )

    per_frame = F.normalize(model.project_video(features.per_step).float(), dim=-1)
    whole = F.normalize(per_frame.mean(0), dim=-1)  # as of a clip, see VideoTower
    return LongVideo(whole.cpu().numpy(), per_frame.cpu().numpy(), seconds)


def _frames_at(data: bytes, fps: float) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the frames shown at 0, 1 / fps, 2 / fps ... seconds, and when each appears."""
    if not fps > 0:
        raise ValueError(f"fps {fps} must be positive, e.g. 1 for a frame per second")
    times = np.empty(0)

    def look(shown: npt.NDArray[np.float64]) -> list[int]:
        nonlocal times
        times = shown - shown[0]
        return [0]

    decode_video(data, look)
    wanted = np.arange(0, times[-1] + 1e-9, 1 / fps)
    chosen = np.searchsorted(times, wanted + 1e-9, side="right") - 1
    return chosen.tolist(), times[chosen]


def _portions(data: bytes, chosen: list[int], clip: ClipSettings) -> Iterator[Tensor]:
    for i in range(0, len(chosen), _PORTION):
        part = chosen[i : i + _PORTION]
        frames = decode_video(data, lambda _, part=part: part, decoder=clip.decoder)  # type: ignore[misc]
        yield eval_transform(torch.from_numpy(frames).permute(0, 3, 1, 2), clip)
