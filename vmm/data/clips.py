"""From a stored sample to the frames of a clip."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vmm.data.decode import decode_video
from vmm.data.faults import SampleError
from vmm.data.isolation import own_decoder
from vmm.data.pictures import decode_image
from vmm.data.schema import END, START, RawSample
from vmm.data.times import frames_between
from vmm.data.transforms import ClipSettings
from vmm.types import Media


def load_frames(
    raw: RawSample,
    media: Media,
    settings: ClipSettings,
    generator: torch.Generator | None = None,
    clip: int = 0,
    num_clips: int = 1,
) -> Tensor:
    """Decode the frames of a clip, or the one of an image.

    If the metadata has ``start`` or ``end`` (seconds), the clip is taken from that part.

    Args:
        raw: The sample.
        media: How to read it.
        settings: Frame count, sampling rule and decoder.
        generator: Draws the frames for training; None = those of evaluation.
        clip: Which clip of the video, in evaluation; from 0.
        num_clips: Clips per video, in evaluation.

    Returns:
        (T, C, H, W) uint8; T is 1 for an image.

    Raises:
        SampleError: If it cannot be decoded or there is no such part.
    """
    if media == "image":
        decode = own_decoder().image if settings.isolate_decode else decode_image
        return _channels_first(decode(raw.data))
    start, end = window(raw.metadata)

    def choose(times: np.ndarray) -> list[int]:
        try:
            first, last = frames_between(times, start, end)
        except ValueError as error:
            raise SampleError("bad window", str(error)) from error
        return [first + i for i in settings.choose(times[first:last], generator, clip, num_clips)]

    if settings.isolate_decode:
        frames = own_decoder().video(raw.data, choose, settings.decoder)
    else:
        frames = decode_video(raw.data, choose, decoder=settings.decoder)
    return _channels_first(frames)


def window(metadata: dict[str, Any]) -> tuple[float, float | None]:
    """Return the start and end of the part of a video that a sample is about, in seconds.

    Args:
        metadata: Of the sample; absent or null fields mean the whole video.

    Raises:
        SampleError: If a field is not a number of seconds.
    """
    start, end = metadata.get(START), metadata.get(END)
    try:
        if isinstance(start, bool) or isinstance(end, bool):
            raise TypeError("no number")
        first = -math.inf if start is None else float(start)
        last = None if end is None else float(end)
    except (TypeError, ValueError, OverflowError) as error:
        raise SampleError(
            "bad window", f"start {start!r:.40} and end {end!r:.40} must be seconds"
        ) from error
    if math.isnan(first) or (last is not None and math.isnan(last)):
        raise SampleError("bad window", f"start {start!r} and end {end!r} must be seconds")
    return first, last


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)
