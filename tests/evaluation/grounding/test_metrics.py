"""Cases by hand, and numbers that moment_detr's standalone_eval printed for hand-made files."""

import numpy as np
import pytest

from vmm.evaluation.grounding.metrics import (
    MARKS,
    RANGES,
    THRESHOLDS,
    average_precision,
    best_iou,
    highlight_precision,
    hit_at_1,
    in_range,
    iou,
    marks_of_clips,
)

NONE = np.zeros((0, 2))


def a(*rows):
    return np.array(rows, dtype=np.float64)


def test_iou_by_hand():
    found = iou(a([0, 10], [5, 7], [20, 30], [3, 3]), a([5, 15], [0, 10], [3, 3]))
    expected = [[1 / 3, 1, 0], [0.2, 0.2, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(found, expected)


def test_recall_counts_the_best_of_the_first_windows_with_any_moment():
    windows, true = a([0, 10], [5, 15], [4, 14]), a([4, 14], [40, 50])
    assert best_iou(windows, true, 1) == pytest.approx(6 / 14)
    assert best_iou(windows, true, 2) == pytest.approx(9 / 11)
    assert best_iou(windows, true, 5) == 1
    assert best_iou(NONE, true, 5) == 0
    assert best_iou(a([0, 5]), a([0, 10]), 1) >= 0.5  # the threshold itself is enough


def test_average_precision_by_hand():
    true = a([0, 10], [20, 30])
    windows = a([40, 50], [0, 10], [0, 10], [20, 28])
    # Right are the second, which takes the first moment, and, up to IoU 0.8, the fourth.
    assert average_precision(windows, true, [0.5, 0.8, 0.85]).tolist() == [0.5, 0.5, 0.25]
    assert average_precision(true[::-1], true).tolist() == [1.0] * len(THRESHOLDS)
    assert average_precision(NONE, true).tolist() == [0.0] * len(THRESHOLDS)
    assert average_precision(windows, a([20, 28]), [0.5])[0] == 0.25
    later = np.concatenate([np.repeat(a([90, 91]), 10, 0), true])
    assert average_precision(later, true).max() == 0  # ten windows count


def test_one_moment_and_several_agree():
    draw = np.random.default_rng(0)
    for _ in range(50):
        starts = draw.uniform(0, 20, 8)
        windows = np.stack([starts, starts + draw.uniform(1, 20, 8)], 1)
        one = a([5, 15])
        far = np.concatenate([one, a([1000, 1001])])
        np.testing.assert_allclose(
            average_precision(windows, one), 2 * average_precision(windows, far)
        )


def test_ranges_leave_their_lower_end_out():
    true = a([0, 10], [0, 10.5], [0, 30], [0, 31], [0, 150], [0, 151])
    kept = [in_range(true, *ends)[:, 1].tolist() for ends in RANGES.values()]
    assert kept == [[10], [10.5, 30], [31, 150]]


def test_highlights_by_hand():
    marks = marks_of_clips(11, [1, 3, 9], [[4, 0], [2, 3], [4, 4]])
    assert marks.tolist() == [[0, 0], [4, 0], [0, 0], [2, 3], [0, 0]]  # five whole clips
    assert hit_at_1(np.array([0, 5, 1, 1, 1]), marks) == 1
    assert hit_at_1(np.array([0, 1, 1, 5, 1]), marks) == 0
    assert hit_at_1(np.array([0, 1, 1, 5, 1]), marks, MARKS["Good"]) == 1
    assert hit_at_1(np.array([0, 0, 0, 0, 0, 9]), marks, 0) == 0  # a clip that is not there
    # The first annotator's two highlights are first and fourth, the second's one is fourth.
    scores = np.array([4.0, 5.0, 3.0, 2.0, 1.0])
    assert highlight_precision(scores, marks, 2) == pytest.approx(((1 + 2 / 4) / 2 + 1 / 4) / 2)
    assert highlight_precision(scores, marks, 4) == pytest.approx((1 + 0) / 2)
    assert highlight_precision(np.ones(5), marks, 2) == pytest.approx((2 / 5 + 1 / 5) / 2)
    few = np.array([0.0, 1.0])  # the others are as good as 0
    assert highlight_precision(few, marks, 2) == pytest.approx(((1 + 2 / 5) / 2 + 1 / 5) / 2)


TRUE = (
    (20, [[2, 10], [14, 18]], [1, 2, 3, 4, 7, 8],
     [[4, 2, 3], [3, 3, 2], [2, 1, 4], [4, 4, 1], [1, 2, 2], [0, 3, 4]]),
    (40, [[4, 26]], [2, 3, 12], [[2, 2, 2], [3, 4, 1], [4, 0, 0]]),
    (60, [[0, 6], [10, 50]], [0, 5, 20], [[1, 1, 1], [2, 3, 2], [3, 2, 3]]),
)  # fmt: skip
PREDICTED = (
    ([[3, 10], [0, 12], [14, 19], [2, 9]], [1, 5, 9, 2, 6, 3, 3, 8, 4, 0]),
    ([[20, 40], [6, 24], [4, 27]], [1, 2, 7, 9, 3, 3, 2, 1, 1, 1, 2, 3, 8, 1, 2, 3, 1, 1, 1, 6]),
    ([[1, 6], [12, 46], [8, 52]], [9, 2, 1, 1, 1, 5, 5, 3]),  # fewer scores than clips
)
OFFICIAL = {  # mAP at 0.5, 0.85, 0.95 and their mean over all; R@1 at 0.5 and 0.85
    "short": ([91.67, 25.0, 0.0, 66.67], [100.0, 50.0]),
    "middle": ([50.0, 33.33, 33.33, 45.0], [0.0, 0.0]),
    "long": ([50.0, 50.0, 0.0, 43.33], [0.0, 0.0]),
    "full": ([77.78, 36.11, 11.11, 60.83], [66.67, 33.33]),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_moments_of_these_files_are_as_the_official_script_has_them(name):
    ends = RANGES.get(name, (0, 150))
    precisions, best = [], []
    for (_, windows, *_), (predicted, _) in zip(TRUE, PREDICTED, strict=True):
        true = in_range(np.array(windows, float), *ends)
        if len(true):
            precisions.append(average_precision(np.array(predicted, float), true))
            best.append(best_iou(np.array(predicted, float), true, 1))
    mean = 100 * np.mean(precisions, 0)
    found = [*mean[[THRESHOLDS.index(m) for m in (0.5, 0.85, 0.95)]], mean.mean()]
    recalls = [100 * np.mean(np.array(best) >= m) for m in (0.5, 0.85)]
    assert (np.round(found, 2).tolist(), np.round(recalls, 2).tolist()) == OFFICIAL[name]


@pytest.mark.parametrize(
    ("name", "precision", "hit"),
    [("Fair", 59.57, 66.67), ("Good", 48.67, 66.67), ("VeryGood", 28.7, 33.33)],
)
def test_highlights_of_these_files_are_as_the_official_script_has_them(name, precision, hit):
    precisions, hits = [], []
    for (duration, _, clips, given), (_, scores) in zip(TRUE, PREDICTED, strict=True):
        marks = marks_of_clips(duration, clips, given)
        precisions.append(highlight_precision(np.array(scores, float), marks, MARKS[name]))
        hits.append(hit_at_1(np.array(scores, float), marks, MARKS[name]))
    assert round(100 * np.mean(precisions), 2) == precision
    assert round(100 * np.mean(hits), 2) == hit
