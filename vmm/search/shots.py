"""Shots of a video: from cut to cut, as PySceneDetect finds them in frames that vmm decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmm.data.decode import DecodeError, decode_parts
from vmm.data.times import end_of

if TYPE_CHECKING:  # so that what is missing can be told before torch is loaded
    from vmm.search.windows import DecodeParts, Span

SHORTEST_S = 0.6
"""A flash that is shorter is no shot."""
_WIDTH = 256
"""Frames are compared at about this width."""
_PORTION = 8


def check_installed(instead: str = "leave out --shots") -> None:
    """Refuse to begin without the library that finds the cuts.

    Args:
        instead: What to do without it.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'shots need PySceneDetect; `pip install "vmm-video[shots]"`, or {instead}'
        ) from error


def find_cuts(video: bytes | Path, decode: DecodeParts = decode_parts) -> list[float]:
    """Find where shots begin, by the adaptive detector of PySceneDetect: every frame is decoded.

    Args:
        video: The file, or its content.
        decode: Where to decode.

    Returns:
        Seconds, increasing, of the first frame of each shot but the first. Of a video that is
        damaged somewhere, those before that place.

    Raises:
        DecodeError: If no frame can be decoded.
        OSError: If the video cannot be read.
    """
    shown = np.zeros(0)

    def all_frames(times: np.ndarray) -> list[range]:
        nonlocal shown
        shown = times
        return [
            range(first, min(first + _PORTION, len(times)))
            for first in range(0, len(times), _PORTION)
        ]

    frames = _one_by_one(decode(video, all_frames))
    cuts = _detected(frames, lambda: float(end_of(shown)) / max(len(shown), 1))
    return [float(shown[number]) for number in sorted(set(cuts)) if 0 < number < len(shown)]


def split(begin: float, cuts: list[float], end: float, longest: float) -> list[Span]:
    """Cut a video into moments: its shots, long ones in equal pieces.

    Args:
        begin: Time of the first frame, seconds.
        cuts: Seconds, increasing, between ``begin`` and ``end``.
        end: When the last frame ends, seconds.
        longest: Seconds of a moment at most.

    Returns:
        Moments that cover the video and do not overlap.
    """
    spans: list[Span] = []
    for start, stop in pairwise([begin, *cuts, end]):
        pieces = max(1, int(np.ceil((stop - start) / longest - 1e-9)))
        edges = np.linspace(start, stop, pieces + 1).tolist()
        spans += pairwise(edges)
    return spans


def _one_by_one(portions: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield frames; where the video is damaged they end."""
    count = 0
    try:
        for portion in portions:
            for frame in portion:
                yield frame
                count += 1
    except DecodeError:
        if not count:
            raise


def _detected(frames: Iterator[np.ndarray], step: Callable[[], float]) -> list[int]:
    """Return the numbers of frames that begin a shot."""
    import cv2
    from scenedetect.common import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(min_scene_len=SHORTEST_S)
    cuts: list[FrameTimecode] = []
    now = None
    for number, frame in enumerate(frames):
        now = FrameTimecode(number, fps=1 / step())
        width = min(_WIDTH, frame.shape[1])
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        cuts += detector.process_frame(now, cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    if now is not None:
        cuts += detector.post_process(now)
    return [int(cut.frame_num) for cut in cuts]
