"""Moments of a video: where they begin and end, and their frames as the model sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vmm.data.decode import ChooseParts, DecodeError, decode_parts
from vmm.data.times import end_of, frames_between
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.export.frames import prepared

Span = tuple[float, float]
"""Start and end, seconds."""


def spans_of(times: np.ndarray, window: float, stride: float) -> list[Span]:
    """Cut a video into overlapping moments.

    Args:
        times: (V,) seconds at which the frames are shown, increasing, V >= 1.
        window: Length of a moment, seconds.
        stride: From start to start, seconds.

    Returns:
        Moments that cover the video; a short one is a moment as a whole, and the last one of a
        longer video ends with it.
    """
    begin, end = float(times[0]), end_of(times)
    count = 1 + max(0, int(np.ceil((end - begin - window) / stride - 1e-9)))
    starts = [begin + stride * i for i in range(count)]
    return [(start, min(start + window, end)) for start in starts]


DecodeParts = Callable[[bytes | Path, ChooseParts], Iterator[np.ndarray]]
"""``decode_parts``, or ``IsolatedDecoder.parts``."""


def load_moments(
    video: bytes | Path,
    plan: Callable[[np.ndarray], list[Span]],
    clip: ClipSettings,
    decode: DecodeParts = decode_parts,
) -> Iterator[tuple[Span, Tensor]]:
    """Decode moments of a video one after the other.

    Args:
        video: The file, or its content.
        plan: Gets when each frame is shown, as ``spans_of``; returns the moments wanted, in order.
        clip: How the frames of a moment become input.
        decode: Where to decode.

    Yields:
        The moment, and (T, C, H, W) float32, normalised.

    Raises:
        DecodeError: If the video cannot be decoded, perhaps only from some moment on.
        OSError: If it cannot be read.
    """
    spans: list[Span] = []

    def choose(times: np.ndarray) -> list[list[int]]:
        spans[:] = plan(times)
        return [_frames(times, span, clip) for span in spans]

    for number, frames in enumerate(decode(video, choose)):
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        yield spans[number], prepared(eval_transform(pixels, clip), clip)


def _frames(times: np.ndarray, span: Span, clip: ClipSettings) -> list[int]:
    try:
        first, last = frames_between(times, *span)
    except ValueError as error:
        raise DecodeError("bad window", str(error)) from error
    return [first + i for i in clip.choose(times[first:last])]
