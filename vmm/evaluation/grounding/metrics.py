"""Metrics of moments and highlights, each of one query; their means over queries are published.

Moments: R@n at IoU m and mIoU are those of TALL (Gao et al. 2017, arXiv 1705.02101), mean average
precision and the three ranges of length those of QVHighlights (Lei et al. 2021, arXiv 2107.09609),
as is all of highlights. Shape legend: N predicted windows, best first, M true ones, [start, end] in
seconds; C clips of a video, A annotators.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoUs over which the average precision is averaged."""
RANGES = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}
"""Name -> lengths of true windows in seconds, the lower end not included."""
CLIP_SECONDS = 2.0
"""Length of a clip that has marks."""
MARKS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""Name -> least mark of a clip that counts as a highlight; "HIT@1" alone means "VeryGood"."""
MOST = 10
"""Predicted windows of a query that count for the average precision."""


def iou(predicted: Floats, true: Floats) -> Floats:
    """Give the intersection over union of windows (N, 2) and (M, 2): (N, M); 0 / 0 is 0."""
    left = np.maximum(predicted[:, None, 0], true[None, :, 0])
    right = np.minimum(predicted[:, None, 1], true[None, :, 1])
    common = np.clip(right - left, 0, None)
    lengths = (predicted[:, 1] - predicted[:, 0])[:, None] + (true[:, 1] - true[:, 0])[None]
    lengths = (predicted[:, 1] - predicted[:, 0])[:, None] + (true[:, 1] - true[:, 0])[None]
    union = lengths - common
    shares: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def best_iou(predicted: Floats, true: Floats, n: int) -> float:
    """Give the highest IoU of the first ``n`` predicted windows with a true one; 0 without any.

    R@n at IoU m is the share of queries where it is m or more, mIoU the mean for n = 1.
    """
    found = iou(predicted[:n], true)
    return float(found.max()) if found.size else 0.0


def average_precision(
    predicted: Floats, true: Floats, thresholds: Sequence[float] = THRESHOLDS
) -> Floats:
    """Give the interpolated average precision at each IoU threshold.

    A predicted window, best first, is right if a true one overlaps it enough that none before it
    has taken; precision at a recall is the best at this recall or a higher one (PASCAL VOC 2010).

    Args:
        predicted: (N, 2), of which ``MOST`` count.
        true: (M, 2), M >= 1.
        thresholds: K of them.

    Returns:
        (K,) from 0 to 1.
    """
    overlaps = iou(predicted[:MOST], true)
    if not overlaps.size:
        return np.zeros(len(thresholds))
    if len(true) == 1:  # one over the rank of the first that fits
        fits = overlaps >= np.array(thresholds)
        return np.where(fits.any(0), 1 / (1 + fits.argmax(0)), 0.0)
    return np.array([_precision_at(overlaps, threshold) for threshold in thresholds])


def _precision_at(overlaps: Floats, threshold: float) -> float:
    """Give the average precision from IoUs (N, M) at one threshold."""
    free = np.ones(overlaps.shape[1], dtype=bool)
    right = np.zeros(len(overlaps), dtype=bool)
    for n, row in enumerate(overlaps):
        fits = np.flatnonzero(free & (row >= threshold))
        if len(fits):
            right[n] = True
            free[fits[row[fits].argmax()]] = False
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float(_interpolated(precision)[right].sum() / len(free))


def in_range(true: Floats, low: float, high: float) -> Floats:
    """Keep the true windows (M, 2) that are longer than ``low`` and at most ``high`` seconds."""
    lengths = true[:, 1] - true[:, 0]
    return true[(lengths > low) & (lengths <= high)]


def marks_of_clips(
    duration: float, numbers: Sequence[int], marks: Sequence[Sequence[int]]
) -> Floats:
    """Spread the marks of some clips over the whole video.

    Args:
        duration: Seconds.
        numbers: Which clips have marks; those after the end of the video are left out.
        marks: Of each of these, of A annotators.

    Returns:
        (C, A); 0 where there is none.
    """
    table = np.zeros((int(duration / CLIP_SECONDS), len(marks[0]) if marks else 1))
    for number, given in zip(numbers, marks, strict=True):
        if number < len(table):
            table[number] = given
    return table


def hit_at_1(scores: Floats, marks: Floats, least: int = MARKS["VeryGood"]) -> float:
    """Tell whether the best of the clips (C,), the first of equals, has ``least`` from anybody."""
    best = int(scores.argmax())
    return float(best < len(marks) and marks[best].max() >= least)


def highlight_precision(scores: Floats, marks: Floats, least: int) -> float:
    """Give the average precision of clips ranked by their scores, mean over the annotators.

    Precision is interpolated as in ``average_precision``, and averaged over the distinct scores at
    which a highlight is found. An annotator without a highlight counts as 0.

    Args:
        scores: Of clips; cut, or filled with 0, to as many as have marks.
        marks: (C, A) from ``marks_of_clips``.
        least: Mark of a highlight.
    """
    own = np.zeros(len(marks))
    common = min(len(scores), len(marks))
    own[:common] = scores[:common]
    values, places = np.unique(-own, return_inverse=True)  # of equal scores one step is made
    total = np.bincount(places, minlength=len(values)).cumsum()
    results = []
    for mine in (marks >= least).T:
        found = np.bincount(places, weights=mine, minlength=len(values))
        precision = _interpolated(found.cumsum() / total)
        results.append(float(precision[found > 0].mean()) if mine.any() else 0.0)
    return float(np.mean(results))


def _interpolated(precision: Floats) -> Floats:
    """Raise each precision to the best one at a higher recall."""
    return np.maximum.accumulate(precision[::-1])[::-1]
