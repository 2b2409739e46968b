import numpy as np
import pytest

from vmm.evaluation.grounding.metrics import MOST, iou
from vmm.evaluation.grounding.proposals import (
    OVERLAP,
    Prior,
    best_apart,
    centre,
    clip_scores,
    from_curve,
    whole,
)


def test_a_plateau_is_the_first_window_whatever_the_units():
    curve, edges = np.zeros(20), np.arange(21.0)
    curve[5:9] = 1
    for scale, lift in ((1, 0), (1e-3, 0.2), (50, -7)):
        windows = from_curve(scale * curve + lift, edges / 2)
        assert windows[0, :2].tolist() == [2.5, 4.5]
        assert (np.diff(windows[:, 2]) <= 0).all() and windows.shape[1] == 3


def test_it_is_the_box_that_fits_in_least_squares():
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(20):
        first, length = draw.integers(0, 20), draw.integers(4, 10)
        curve = 0.3 * draw.standard_normal(30)
        curve[first : first + length] += 1
        windows = from_curve(curve, np.arange(31.0))
        best, fit = None, np.inf
        for a in range(30):
            for b in range(a + 1, 31 if a else 30):
                inside = np.zeros(30, bool)
                inside[a:b] = True
                rest = curve[inside].var() * inside.sum() + curve[~inside].var() * (~inside).sum()
                if curve[inside].mean() > curve[~inside].mean() and rest < fit:
                    best, fit = (a, b), rest
        hits += iou(windows[:1, :2], np.array([best], float))[0, 0] > 0.8
    assert hits >= 18  # a candidate near it is there, and it is first


def test_two_peaks_are_two_windows_the_higher_first():
    curve = np.zeros(30)
    curve[3:6], curve[20:26] = 0.6, 1
    windows = from_curve(curve, np.arange(31.0))
    assert windows[:2, :2].tolist() == [[20, 26], [3, 6]] and (np.diff(windows[:, 2]) <= 0).all()


def test_a_level_curve_gives_the_whole_video():
    for length in (1, 5):
        assert from_curve(np.full(length, 0.3), np.arange(length + 1.0)).tolist() == [
            [0, length, 0]
        ]


def test_frames_of_unequal_length_count_by_their_time():
    windows = from_curve(np.array([0.0, 1.0, 0.8, 0.0]), np.array([0.0, 1.0, 2.0, 12.0, 14.0]))
    assert windows[0, :2].tolist() == [1, 12]


def test_suppression_keeps_the_better_of_two_that_overlap():
    windows = np.array([[0, 10, 0.5], [1, 10, 0.9], [5, 15, 0.7], [30, 31, 0.1], [40, 41, 0.1]])
    kept = best_apart(windows)
    assert kept[:, 2].tolist() == [0.9, 0.7, 0.1, 0.1] and kept[2, 0] == 30
    assert best_apart(windows, most=2)[:, 2].tolist() == [0.9, 0.7]
    assert best_apart(windows[:0]).shape == (0, 3)
    steps = np.concatenate([np.arange(40.0), np.arange(60.0, 0, -1)])
    for curve in (np.random.default_rng(0).random(200), steps):
        found = from_curve(curve, np.arange(len(curve) + 1.0))
        pairs = iou(found[:, :2], found[:, :2])
        assert (pairs - np.eye(len(found)) <= OVERLAP).all() and 1 < len(found) <= MOST


def test_clips_of_two_seconds_average_what_they_cover():
    scores = clip_scores(np.array([1.0, 3.0, 5.0, 9.0]), np.array([0.0, 1.0, 2.0, 3.0, 5.0]))
    assert scores.tolist() == [2, 7]
    assert clip_scores(np.array([4.0]), np.array([0.0, 1.0])).tolist() == [4]


def test_windows_that_look_at_nothing():
    assert centre(20)[:, :2].tolist() == [[5, 15]] and whole(20)[:, :2].tolist() == [[0, 20]]
    thirds = [(30.0, [0, 10]), (60.0, [0, 20]), (30.0, [20, 30])]
    prior = Prior(thirds)(90.0)
    assert prior[0, :2].tolist() == [0, 30] and [60, 90] in prior[:, :2].tolist()
    # A window over two of six parts reaches both at IoU 0.5.
    parts = Prior([(24.0, [4 * i, 4 * i + 4]) for i in range(6)])(24.0)
    assert parts[0, 1] - parts[0, 0] == pytest.approx(8)
    with pytest.raises(ValueError, match="no training moment"):
        Prior([])
