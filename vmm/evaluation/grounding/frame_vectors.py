"""Every frame of a video as a vector of the joint space, in its context, and where it counts.

Shape legend: see ``vmm.types``; S frames, E is the width of the joint space, M texts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.evaluation.common.frames import Frames, window_starts, windows
from vmm.evaluation.common.models import Encoder, LongEncoder
from vmm.evaluation.grounding.metrics import Floats

_WINDOWS_AT_ONCE = 8


def per_frame(encoder: Encoder, frames: Frames, window: int | None) -> Tensor:
    """Encode every frame of a video in its context.

    Args:
        encoder: The model.
        frames: S frames.
        window: Frames that are seen at a time; None = all, in one pass. A frame in the last two
            windows has the vector of the last.

    Returns:
        (S, E) float32 of length 1 each. Frames of one tubelet, or of a window of which the model
        gives one vector only, have the same.

    Raises:
        ValueError: If the model gives one vector for the whole video, which tells no moments.
    """
    total = len(frames.rows)
    if window is None:
        vectors = _whole(encoder, frames)
        if len(vectors) == 1 < total:
            raise ValueError(
                f"{encoder.name} gives one vector for all {total} frames of a video, which tells "
                "no moments; give --window, e.g. --window 1, to see so many frames at a time"
            )
        return vectors[torch.arange(total) * len(vectors) // total]
    starts, cut = window_starts(total, window), windows(frames, window)
    rows: Tensor | None = None
    for i in range(0, len(cut), _WINDOWS_AT_ONCE):
        some = cut[i : i + _WINDOWS_AT_ONCE]
        clips = torch.stack([torch.cat(list(one.portions(encoder.clip))) for one in some])
        encoded = F.normalize(encoder.encode_videos(clips).projected.float().cpu(), dim=-1)
        places = torch.arange(window) * encoded.shape[1] // window
        for start, vectors in zip(
            starts[i : i + _WINDOWS_AT_ONCE], encoded[:, places], strict=True
        ):
            rows = torch.empty(total, encoded.shape[-1]) if rows is None else rows
            rows[start : start + window] = vectors[: total - start]
    assert rows is not None
    return rows


def _whole(encoder: Encoder, frames: Frames) -> Tensor:
    """Encode a video in one pass: (P, E)."""
    if isinstance(encoder, LongEncoder) and encoder.takes_long_videos:
        vectors = encoder.encode_long(frames.portions(encoder.clip), len(frames.rows))
    else:
        vectors = encoder.encode_videos(torch.cat(list(frames.portions(encoder.clip)))[None])
    return F.normalize(vectors.projected[0].float().cpu(), dim=-1)


def text_vectors(encoder: Encoder, texts: list[str]) -> Tensor:
    """Encode texts: (M, E) float32 of length 1 each."""
    return F.normalize(encoder.encode_texts(texts).projected.float().cpu(), dim=-1)


def edges_of(frames: Frames, fps: float | None) -> Floats:
    """Give the seconds (S + 1,) between which each frame counts.

    Args:
        frames: S frames.
        fps: The rate at which they were chosen, each counting from its moment to the next one's;
            None = they are spread over the video, each in the middle of its part.
    """
    count = len(frames.rows)
    if fps is None:
        return np.linspace(0, frames.duration, count + 1)
    starts = np.arange(count) / fps
    return np.append(starts, max(frames.duration, starts[-1] + 1e-3))


def seed_of(film: bytes | Path) -> int:
    """Draw from a video's content what orders its shuffled frames."""
    if isinstance(film, bytes):
        digest = hashlib.sha256(film).digest()
    else:
        with film.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    return int.from_bytes(digest[:4], "big")
