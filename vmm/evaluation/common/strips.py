"""What a clip shows, in one small picture: frames side by side."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Protocol

import torch
from PIL import Image

from vmm.data.faults import SampleError
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings
from vmm.pages import data_uri

_TILES, _SIDE = 4, 56
SHOWN = 20
"""Wrong answers that a page shows."""


class Clips(Protocol):
    """Samples by number, as a model sees them."""

    settings: ClipSettings

    def __getitem__(self, index: int) -> EvaluationSample: ...


def strips(clips: Clips, numbers: Iterable[int]) -> dict[int, str]:
    """Draw frames of some clips.

    Args:
        clips: All of them.
        numbers: Which to draw.

    Returns:
        Number -> data URI of a JPEG; those that cannot be read are left out.
    """
    drawn = {}
    for number in dict.fromkeys(numbers):
        try:
            video = clips[number].video
        except (SampleError, OSError):
            continue
        if video is not None:
            drawn[number] = data_uri("image/jpeg", _jpeg(video, clips.settings))
    return drawn


def _jpeg(video: torch.Tensor, settings: ClipSettings) -> bytes:
    """Draw (T, C, H, W) normalised frames, some at even distances."""
    chosen = torch.linspace(0, len(video) - 1, min(_TILES, len(video))).long()
    mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
    pixels = (video[chosen].permute(0, 2, 3, 1).float() * std + mean).clamp(0, 1)
    tiles = [Image.fromarray(tile) for tile in (255 * pixels).round().byte().numpy()]
    sheet = Image.new("RGB", (_SIDE * len(tiles), _SIDE))
    for place, tile in enumerate(tiles):
        sheet.paste(tile.resize((_SIDE, _SIDE)), (place * _SIDE, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
