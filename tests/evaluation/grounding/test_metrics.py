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
