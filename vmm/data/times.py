"""Which frames are on the screen when: pure functions of the times at which frames appear.

Times count from the first frame of a video, in seconds.
"""

from __future__ import annotations

import numpy as np

MAX_RATE = 1000
"""Frames per second; whoever asks for more means something else."""
_EXACT = 1e-6  # seconds: times like 0.1 are not exact in binary


def shown_at(times: np.ndarray, moments: np.ndarray) -> list[int]:
    """Return the frames on the screen at some moments, the first frame before it is shown.

    Args:
        times: (V,) seconds at which the frames are shown, increasing, V >= 1.
        moments: Seconds, in any order.
    """
    numbers = np.searchsorted(times, moments + _EXACT, side="right") - 1
    return [max(int(i), 0) for i in numbers]


def shown_at_rate(times: np.ndarray, rate: float) -> list[int]:
    """Return the frames on the screen at 0, 1 / rate, 2 / rate ... seconds to the last frame.

    Args:
        times: (V,) as for ``shown_at``.
        rate: Frames per second.

    Raises:
        ValueError: If the rate is not positive or too high.
    """
    if not 0 < rate <= MAX_RATE:
        raise ValueError(
            f"fps {rate} must be positive and at most {MAX_RATE}, e.g. 1 for a frame per second"
        )
    return shown_at(times, times[0] + np.arange(0, times[-1] - times[0] + _EXACT, 1 / rate))


def end_of(times: np.ndarray) -> float:
    """Return when the last of frames at (V,) ``times`` ends: it is shown as long as others."""
    step = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.04
    return float(times[-1]) + step


def frames_between(times: np.ndarray, start: float, end: float | None) -> tuple[int, int]:
    """Find the frames that are shown in a part of a video.

    Args:
        times: (V,) as for ``shown_at``.
        start: Seconds.
        end: Seconds; None = to the end of the video.

    Returns:
        Range [first, last) of frame numbers; the first is the one on the screen at ``start``.

    Raises:
        ValueError: If the part is empty or after the end of the video.
    """
    step = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else float("inf")
    until = float("inf") if end is None else end
    if not start < until or start > times[-1] + step or until <= times[0]:
        raise ValueError(
            f"{start} to {end} s is no part of a video with frames at {times[0]:.3f} to "
            f"{times[-1]:.3f} s"
        )
    first = max(int(np.searchsorted(times, start + _EXACT, side="right")) - 1, 0)
    last = len(times) if end is None else int(np.searchsorted(times, end - _EXACT, side="left"))
    return first, max(last, first + 1)
