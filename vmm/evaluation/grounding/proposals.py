"""Windows of a video, best first: from a curve of relevance, and without looking at anything.

From a curve: wherever it stays above a level, for many levels of the curve and of smoothed ones,
there is a candidate. Its score tells how well "high inside, low outside" describes the curve: the
square root of the variance between the two parts (Otsu 1979), by which the best window is also the
box that fits the curve best in least squares. The next window is the best for what this one leaves
of the curve, and so on, none overlapping one before much.
Shape legend: S frames, N windows; edges (S + 1,) are the seconds between which a frame counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vmm.evaluation.grounding.metrics import CLIP_SECONDS, MOST, Floats, iou

LEVELS = 24
"""Levels between the lowest and the highest value of a curve."""
WIDTHS = (1, 3, 7)
"""Frames over which a curve is smoothed before it is cut."""
OVERLAP = 0.5
"""IoU above which of two candidates only the better one is kept."""
_TIE = 1e-3  # of equals the one that fits the curve itself better
_GRID, _AT_ONCE = 60, 1000
_REACHED = (0.3, 0.5, 0.7)


def from_curve(curve: Floats, edges: Floats) -> Floats:
    """Propose windows where a curve is high.

    Args:
        curve: (S,) relevance of each frame.
        edges: (S + 1,) seconds, increasing.

    Returns:
        (N, 3) start, end and score, best first, 1 <= N <= ``MOST``; the whole video alone, with
        score 0, where the curve is level.
    """
    spans = sorted({span for width in WIDTHS for span in _runs(_smooth(curve, width))})
    if not spans:
        return np.array([[edges[0], edges[-1], 0.0]])
    first, last = np.array(spans).T
    candidates = np.stack([edges[first], edges[last]], 1)
    alone, _ = _fit(curve, edges, first, last)
    rest, free = curve.copy(), np.ones(len(spans), dtype=bool)
    windows: list[list[float]] = []
    while free.any() and len(windows) < MOST:
        scores, rises = _fit(rest, edges, first, last)
        best = int(np.where(free, scores + _TIE * alone, -np.inf).argmax())
        score = min(float(scores[best]), windows[-1][2] if windows else np.inf)
        windows.append([*candidates[best].tolist(), score])
        rest[first[best] : last[best]] -= rises[best]
        free &= iou(candidates[best : best + 1], candidates)[0] <= OVERLAP
    return np.array(windows)


def _fit(
    curve: Floats, edges: Floats, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Score candidates, frames [first, last): (N,), and by how much it is higher inside: (N,)."""
    lengths = np.diff(edges)
    time, area = (np.concatenate([[0.0], x.cumsum()]) for x in (lengths, lengths * curve))
    inside = time[last] - time[first]
    outside = time[-1] - inside
    within = area[last] - area[first]
    rise = within / inside - (area[-1] - within) / outside
    return rise * np.sqrt(inside * outside) / time[-1], rise


def _runs(curve: Floats) -> set[tuple[int, int]]:
    """List the parts [first, last) of a curve above some level; its lowest frames are in none."""
    low, high = float(curve.min()), float(curve.max())
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return set()
    found = set()
    for level in np.linspace(low, high, LEVELS + 1)[:-1]:
        above = np.concatenate([[0], (curve > level).astype(int), [0]])
        turns = np.diff(above)
        firsts, lasts = np.flatnonzero(turns > 0), np.flatnonzero(turns < 0)
        found |= {(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True)}
    return found


def _smooth(curve: Floats, width: int) -> Floats:
    """Average over ``width`` frames, at the ends over those that are there."""
    if width > len(curve):
        return curve
    window = np.ones(width)
    total = np.convolve(curve, window, "same")
    smooth: Floats = total / np.convolve(np.ones(len(curve)), window, "same")
    return smooth


def best_apart(windows: Floats, most: int = MOST, overlap: float = OVERLAP) -> Floats:
    """Keep the best windows of those that overlap, by non-maximum suppression.

    Args:
        windows: (N, 3) start, end and score, in any order.
        most: How many to keep.
        overlap: IoU above which a window is dropped beside a better one.

    Returns:
        (n, 3), best first; of equal scores the earlier and then the shorter one.
    """
    left = windows[np.lexsort((windows[:, 1], windows[:, 0], -windows[:, 2]))]
    kept: list[Floats] = []
    while len(left) and len(kept) < most:
        kept.append(left[0])
        left = left[1:][iou(left[:1], left[1:])[0] <= overlap]
    return np.array(kept).reshape(-1, 3)


def clip_scores(curve: Floats, edges: Floats) -> Floats:
    """Average a curve over clips of two seconds: (C,), for highlights.

    Args:
        curve: (S,).
        edges: (S + 1,) seconds from 0 to the end of the video.
    """
    starts = np.arange(max(int(edges[-1] / CLIP_SECONDS), 1)) * CLIP_SECONDS
    left = np.maximum(edges[None, :-1], starts[:, None])
    right = np.minimum(edges[None, 1:], starts[:, None] + CLIP_SECONDS)
    shares = np.clip(right - left, 0, None)
    scores: Floats = shares @ curve / np.maximum(shares.sum(1), 1e-9)
    return scores


def centre(duration: float) -> Floats:
    """Propose the middle half of a video."""
    return np.array([[duration / 4, 3 * duration / 4, 1.0]])


def whole(duration: float) -> Floats:
    """Propose the whole video, which is the longest window."""
    return np.array([[0.0, duration, 1.0]])


class Prior:
    """Where the moments of a training set lie, whatever is said and shown (arXiv 2009.00325).

    Of windows that begin and end at sixtieths of a video, those come first that reach the most
    training moments, on average over the IoUs 0.3, 0.5 and 0.7.

    Args:
        moments: Pairs of a video's duration and [start, end] in seconds, of one training moment.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, moments: Sequence[tuple[float, Sequence[float]]]) -> None:
        if not moments:
            raise ValueError("there is no training moment; give a training split that has some")
        shares = np.array([[start / length, end / length] for length, (start, end) in moments])
        grid = np.arange(_GRID + 1) / _GRID
        pairs = np.array([(a, b) for a in grid for b in grid if a < b])
        hits = np.zeros(len(pairs))
        for part in np.array_split(np.clip(shares, 0, 1), len(shares) // _AT_ONCE + 1):
            overlaps = iou(pairs, part)
            hits += sum((overlaps >= least - 1e-9).sum(1) for least in _REACHED)
            hits += _TIE * overlaps.sum(1)
        self._windows = best_apart(np.concatenate([pairs, hits[:, None] / len(shares)], 1))

    def __call__(self, duration: float) -> Floats:
        """Propose windows of a video: (N, 3)."""
        windows: Floats = self._windows * np.array([duration, duration, 1.0])
        return windows
