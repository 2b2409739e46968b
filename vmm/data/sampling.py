"""Which frames of a video make a clip: segment sampling, as published (pure functions).

The video's V frames are cut into equal segments, one per wanted frame; training takes a random
frame of every segment, evaluation the middle one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch

TrainSampling = Literal["random", "random_published"]
Sampling = Literal["middle", "random", "random_published"]


def frame_indices(
    available: int,
    num_frames: int,
    sampling: Sampling,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Choose the frames of a clip.

    With a = min(n, V) and edges e = floor(linspace(0, V, a + 1)), segment i holds the frames
    e_i .. e_{i+1} - 1. "middle" takes floor((e_i + e_{i+1} - 1) / 2). "random" is uniform over
    the segment. "random_published" repeats the published code: it never draws the last frame of
    a segment, and where that leaves one empty it takes a sorted random subset of all frames.

    Args:
        available: Frames V of the video, at least 1.
        num_frames: Frames n of the clip; a shorter video repeats its last chosen frame.
        sampling: The rule.
        generator: Source of randomness of the random rules.

    Returns:
        n indices in [0, V), not decreasing.

    Raises:
        ValueError: If a number is below 1.
    """
    if available < 1 or num_frames < 1:
        raise ValueError(
            f"cannot take {num_frames} frames of {available}; both numbers must be at least 1"
        )
    count = min(num_frames, available)
    edges = np.linspace(0, available, count + 1).astype(int).tolist()
    segments = [(start, end - 1) for start, end in pairwise(edges)]
    if sampling == "middle":
        chosen = [(first + last) // 2 for first, last in segments]
    else:
        if sampling == "random_published":
            segments = [(first, last - 1) for first, last in segments]
        if any(last < first for first, last in segments):
            subset = torch.randperm(available, generator=generator)[:count]
            chosen = sorted(subset.tolist())
        else:
            draws = torch.rand(count, dtype=torch.float64, generator=generator).tolist()
            chosen = [
                first + int(draw * (last - first + 1))
                for draw, (first, last) in zip(draws, segments, strict=True)
            ]
    return chosen + chosen[-1:] * (num_frames - count)
