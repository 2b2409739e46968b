"""From a stored sample to the frames of a clip."""

from __future__ import annotations

import torch
from torch import Tensor

from vmm.data.decode import decode_image, decode_video
from vmm.data.schema import RawSample
from vmm.data.transforms import ClipSettings
from vmm.types import Media


def load_frames(
    raw: RawSample,
    media: Media,
    settings: ClipSettings,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Decode the frames of a clip, or the one of an image.

    Args:
        raw: The sample.
        media: How to read it.
        settings: Frame count and sampling rule.
        generator: Draws the frames for training; None = the middle frames.

    Returns:
        (T, C, H, W) uint8; T is 1 for an image.

    Raises:
        DecodeError: If it cannot be decoded.
    """
    if media == "image":
        return decode_image(raw.data)
    return decode_video(raw.data, lambda available: settings.choose(available, generator))
