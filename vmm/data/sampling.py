"""Which frames of a video make a clip (pure functions of the frames' times and a generator).

=====================  ==========================================================================
``random``             the video is cut into n equal segments; one frame of each
``random_published``   the same as stage 2 of the published code does it
``random_pretrain``    the same as stage 1 of the published code does it
``random_finetune``    the same as the published fine-tuning code does it
``random_ssv2``        the same as that code does it for Something-Something
``uniform``            n frames from the first to the last, equally far apart, in training too
``fps``                n frames at a rate in frames per second
``dense``              n frames, each ``stride`` frames after the one before
=====================  ==========================================================================

Training draws (a frame of each segment, or the start of the clip); evaluation takes the middle.
With S clips per video, evaluation spreads them: clip c takes the share (c + 1) / (S + 1) of each
segment as published (of ``random_ssv2`` c / S); ``fps`` and ``dense`` start them equally far apart,
from the first possible start to the last; ``uniform`` takes every S-th of n * S frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from vmm.data.times import shown_at

Sampling = Literal[
    "random", "random_published", "random_pretrain", "random_finetune", "random_ssv2", "uniform",
    "fps", "dense",
]  # fmt: skip


def choose_frames(
    times: np.ndarray,
    num_frames: int,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    *,
    fps: float | None = None,
    stride: int = 1,
    clip: int = 0,
    num_clips: int = 1,
) -> list[int]:
    """Choose the frames of a clip.

    Args:
        times: (V,) seconds at which the frames of the video are shown, increasing, V >= 1.
        num_frames: Frames n of the clip; a shorter video repeats its last chosen frame.
        sampling: The rule.
        generator: Source of the draws of training; None = the frames of evaluation.
        fps: Frames per second of the rule "fps".
        stride: Distance in frames of the rule "dense".
        clip: Which clip of a video, in evaluation; from 0.
        num_clips: Clips per video, in evaluation.

    Returns:
        n indices in [0, V), not decreasing.

    Raises:
        ValueError: If a number is out of range, or "fps" has no rate.
    """
    available = len(times)
    if min(available, num_frames, stride) < 1 or not 0 <= clip < num_clips:
        raise ValueError(
            f"cannot take clip {clip} of {num_clips} with {num_frames} frames of {available}, "
            f"stride {stride}; counts must be at least 1 and clips are numbered from 0"
        )
    if sampling == "uniform":
        everything = np.linspace(0, available - 1, num_frames * num_clips).round()
        return [int(i) for i in everything[clip::num_clips]]
    if sampling == "dense":
        last = available - 1 - stride * (num_frames - 1)
        first = int(_start(max(last, 0), clip, num_clips, generator, steps=1))
        return [min(first + stride * i, available - 1) for i in range(num_frames)]
    if sampling == "fps":
        if fps is None or not fps > 0:
            raise ValueError(f"sampling 'fps' needs a rate above 0, not fps={fps}")
        span = (num_frames - 1) / fps
        room = max(float(times[-1] - times[0]) - span, 0.0)
        start = float(times[0]) + _start(room, clip, num_clips, generator, steps=0)
        return shown_at(times, start + np.arange(num_frames) / fps)
    chosen = _one_per_segment(available, num_frames, sampling, generator, (clip + 1, num_clips + 1))
    return chosen + chosen[-1:] * (num_frames - len(chosen))


def _start(
    room: float, clip: int, num_clips: int, generator: torch.Generator | None, steps: int
) -> float:
    """Return where in [0, room] a clip starts; ``steps`` is 1 if starts are whole numbers."""
    if generator is not None:
        draw = torch.rand((), dtype=torch.float64, generator=generator, device="cpu")
        return float(draw) * (room + steps)
    return room * (clip / (num_clips - 1) if num_clips > 1 else 0.5)


def _one_per_segment(
    available: int,
    num_frames: int,
    sampling: Sampling,
    generator: torch.Generator | None,
    share: tuple[int, int],
) -> list[int]:
    """Choose one frame of each segment; fewer than n if the video has fewer frames.

    With a = min(n, V) and edges e = floor(linspace(0, V, a + 1)), segment i holds the frames
    e_i .. e_{i+1} - 1. The published variants differ. "random_published" never draws the last frame
    of a segment, and where that leaves one empty it takes a sorted random subset of all frames.
    "random_pretrain" and "random_ssv2" have segments of floor(V / n) frames and never see the rest;
    of a video shorter than n they take frame 0 only. "random_finetune" has edges
    round(i * (V - 1) / n), which neighbours share. Evaluation takes the frame at ``share`` (a
    fraction) of the segment; of "random_ssv2" segments of V / n frames.
    """
    if sampling == "random_finetune":
        return _finetune(available, num_frames, generator, share)
    count = min(num_frames, available)
    if sampling == "random_ssv2" and generator is None:
        clip, clips = share[0] - 1, share[1] - 1
        within = clip / clips if clips > 1 else 0.5
        return [int(available / num_frames * (i + within)) for i in range(num_frames)]
    if sampling in ("random_pretrain", "random_ssv2"):
        length = available // num_frames
        segments = [(i * length, max((i + 1) * length - 1, 0)) for i in range(num_frames)]
        if length == 0:
            segments = [(0, 0)] * num_frames
    else:
        edges = np.linspace(0, available, count + 1).astype(int).tolist()
        segments = [(start, end - 1) for start, end in pairwise(edges)]
    if generator is None:
        return [first + (last - first) * share[0] // share[1] for first, last in segments]
    if sampling == "random_published":
        segments = [(first, last - 1) for first, last in segments]
        if any(last < first for first, last in segments):
            order = torch.randperm(available, generator=generator, device="cpu")
            return sorted(order[:count].tolist())
    return _draw(segments, generator)


def _finetune(
    available: int, num_frames: int, generator: torch.Generator | None, share: tuple[int, int]
) -> list[int]:
    length = (available - 1) / num_frames
    edges = [round(length * i) for i in range(num_frames + 1)]
    if generator is None:
        return [first + int(length / share[1] * share[0]) for first in edges[:-1]]
    return _draw(list(pairwise(edges)), generator)


def _draw(segments: Sequence[tuple[int, int]], generator: torch.Generator) -> list[int]:
    """Draw a frame of each segment, given by its first and last frame."""
    draws = torch.rand(
        len(segments), dtype=torch.float64, generator=generator, device="cpu"
    ).tolist()
    return [
        first + int(draw * (last - first + 1))
        for draw, (first, last) in zip(draws, segments, strict=True)
    ]
