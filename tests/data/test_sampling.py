from typing import get_args

import numpy as np
import pytest
import torch

from vmm.data.sampling import Sampling, choose_frames
from vmm.data.times import frames_between


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def steady(available, rate=25.0):
    return np.arange(available) / rate


@pytest.mark.parametrize("rule", ["random", "random_published"])
@pytest.mark.parametrize(
    ("available", "num_frames", "expected"),
    [
        (100, 8, [5, 18, 30, 43, 55, 68, 80, 93]),  # these two are the specification's
        (5, 8, [0, 1, 2, 3, 4, 4, 4, 4]),
        (24, 8, [1, 4, 7, 10, 13, 16, 19, 22]),
        (1, 3, [0, 0, 0]),
        (7, 1, [3]),
    ],
)
def test_evaluation_takes_the_middle_of_each_segment(rule, available, num_frames, expected):
    assert choose_frames(steady(available), num_frames, rule) == expected


def test_middle_frames_of_the_demo_are_symmetric_in_time():
    chosen = choose_frames(steady(24), 8, "random")
    assert [23 - i for i in reversed(chosen)] == chosen


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    # linspace(0, 100, 9) = 0, 12.5, 25, ...: the segments are 0..11, 12..24, ...
    [
        ("random", range(12), range(12, 25)),
        ("random_published", range(11), range(12, 24)),
        # 100 // 8 = 12 frames each
        ("random_pretrain", range(12), range(12, 24)),
        ("random_ssv2", range(12), range(12, 24)),
        # round(99 / 8 * i) = 0, 12, 25: both ends belong to the segment
        ("random_finetune", range(13), range(12, 26)),
    ],
)
def test_random_frames_cover_their_segment_and_stay_in_it(rule, first, second):
    drawn = [choose_frames(steady(100), 8, rule, seeded(s)) for s in range(300)]
    assert {d[0] for d in drawn} == set(first)
    assert {d[1] for d in drawn} == set(second)
    assert all(d == sorted(d) for d in drawn)


def test_random_frames_are_uniform():
    drawn = [choose_frames(steady(40), 4, "random", seeded(s))[0] for s in range(3000)]
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10 and counts.min() > 230 and counts.max() < 370


def test_published_rule_falls_back_to_a_sorted_subset():
    drawn = {tuple(choose_frames(steady(9), 8, "random_published", seeded(s))) for s in range(200)}
    assert all(len(set(d)) == 8 and list(d) == sorted(d) for d in drawn)
    assert len(drawn) == 9  # every frame is left out at times


def test_published_pretraining_never_sees_the_rest():
    drawn = [choose_frames(steady(15), 8, "random_pretrain", seeded(s)) for s in range(50)]
    assert {tuple(d) for d in drawn} == {tuple(range(8))}  # 15 // 8 = 1 frame each
    assert choose_frames(steady(7), 8, "random_pretrain", seeded(0)) == [0] * 8


def test_the_rule_of_something_something_by_the_formula():
    for available, num_frames in [(100, 8), (37, 16), (9, 16), (48, 8)]:
        middle = [int(available / num_frames * (i + 0.5)) for i in range(num_frames)]
        first = [int(available / num_frames * i) for i in range(num_frames)]
        times = steady(available)
        assert choose_frames(times, num_frames, "random_ssv2") == middle
        for clip, formula in enumerate((first, middle)):
            chosen = choose_frames(times, num_frames, "random_ssv2", clip=clip, num_clips=2)
            assert chosen == formula
    drawn = [choose_frames(steady(15), 8, "random_ssv2", seeded(s)) for s in range(20)]
    assert {tuple(d) for d in drawn} == {tuple(range(8))}  # the last 7 frames are never seen
    assert choose_frames(steady(7), 8, "random_ssv2", seeded(0)) == [0] * 8


def test_published_fine_tuning_by_the_vector_and_the_formula():
    expected = [6, 18, 31, 43, 56, 68, 80, 93]  # the specification's
    assert choose_frames(steady(100), 8, "random_finetune") == expected
    for available, num_frames, clips in [(100, 8, 4), (37, 16, 2), (9, 16, 3)]:
        length = (available - 1) / num_frames
        for clip in range(clips):
            formula = [
                int(np.round(length * i)) + int(length / (clips + 1) * (clip + 1))
                for i in range(num_frames)
            ]
            assert formula == choose_frames(
                steady(available), num_frames, "random_finetune", clip=clip, num_clips=clips
            )


def test_uniform_frames_reach_from_the_first_to_the_last():
    assert choose_frames(steady(100), 4, "uniform") == [0, 33, 66, 99]
    assert choose_frames(steady(100), 4, "uniform", seeded(0)) == [0, 33, 66, 99]
    assert choose_frames(steady(3), 5, "uniform") == [0, 0, 1, 2, 2]
    clips = [choose_frames(steady(100), 3, "uniform", clip=c, num_clips=2) for c in range(2)]
    assert sorted(clips[0] + clips[1]) == choose_frames(steady(100), 6, "uniform")


@pytest.mark.parametrize(("rate", "fps"), [(25.0, 5.0), (30.0, 4.0), (24.0, 24.0), (10.0, 25.0)])
def test_a_rate_in_frames_per_second_is_kept(rate, fps):
    times = steady(200, rate)
    for generator in (None, seeded(3)):
        chosen = choose_frames(times, 16, "fps", generator, fps=fps)
        assert np.allclose(np.diff(times[chosen]), 1 / fps, atol=1.01 / rate)
        assert times[chosen[-1]] - times[chosen[0]] == pytest.approx(15 / fps, abs=1.01 / rate)


def test_a_rate_goes_by_time_where_the_frame_rate_varies():
    # Ten frames in the first second, one in each of the next nine.
    times = np.concatenate([np.arange(10) / 10, np.arange(1, 10)])
    assert choose_frames(times, 10, "fps", fps=1.0) == [0, *range(10, 19)]
    # 4.5 s fit into 9 s: evaluation starts in the middle, at 2.25 s, with the frame of second 2.
    assert choose_frames(times, 10, "fps", fps=2.0) == [11, 11, 12, 12, 13, 13, 14, 14, 15, 15]


def test_a_frame_is_shown_at_its_own_time():
    for rate, tick in [(25, 1 / 12800), (30, 1 / 90000), (25, 1 / 1000), (30, 1 / 15360)]:
        times = np.arange(190) * round(1 / rate / tick) * tick  # as files count
        for step in (1, 3):
            expected = list(range(0, 190 // step * step, step))
            start = {"clip": 0, "num_clips": 2}
            chosen = choose_frames(times, len(expected), "fps", fps=1 / times[step], **start)
            assert chosen == expected


def test_dense_clips_keep_their_stride():
    times = steady(100)
    assert choose_frames(times, 4, "dense", stride=8) == [37, 45, 53, 61]  # 75 starts, 0 to 75
    starts = set()
    for seed in range(600):
        chosen = choose_frames(times, 4, "dense", seeded(seed), stride=8)
        assert np.diff(chosen).tolist() == [8, 8, 8]
        starts.add(chosen[0])
    assert min(starts) == 0 and max(starts) == 75


def test_several_clips_reach_from_the_start_to_the_end():
    dense = [
        choose_frames(steady(100), 4, "dense", stride=8, clip=c, num_clips=3) for c in range(3)
    ]
    assert [d[0] for d in dense] == [0, 37, 75] and dense[-1][-1] == 99
    rate = [
        choose_frames(steady(101, 10.0), 5, "fps", fps=2.0, clip=c, num_clips=3) for c in range(3)
    ]
    assert [r[0] for r in rate] == [0, 40, 80] and rate[-1][-1] == 100
    random = [choose_frames(steady(90), 2, "random", clip=c, num_clips=3) for c in range(3)]
    assert random == [[11, 56], [22, 67], [33, 78]]


@pytest.mark.parametrize("rule", get_args(Sampling))
@pytest.mark.parametrize("available", [1, 2, 3, 5, 8, 50])
@pytest.mark.parametrize("num_frames", [1, 4, 8])
def test_every_rule_gives_frames_of_the_video_in_order(rule, available, num_frames):
    options = {"fps": 7.0 if rule == "fps" else None, "stride": 3 if rule == "dense" else 1}
    for generator in (None, seeded(1)):
        chosen = choose_frames(steady(available), num_frames, rule, generator, **options)
        assert len(chosen) == num_frames and chosen == sorted(chosen)
        assert chosen[0] >= 0 and chosen[-1] < available
        assert all(type(i) is int for i in chosen)


@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    [
        ("random", {}, [0, 1, 2, 2, 2]),
        ("random_published", {}, [0, 1, 2, 2, 2]),
        ("dense", {"stride": 2}, [0, 2, 2, 2, 2]),
        ("fps", {"fps": 25.0}, [0, 1, 2, 2, 2]),
    ],
)
def test_short_videos_repeat_the_last_frame(rule, options, expected):
    assert choose_frames(steady(3), 5, rule, seeded(0), **options) == expected


@pytest.mark.parametrize("rule", [r for r in get_args(Sampling) if r != "uniform"])
def test_the_generator_alone_decides(rule):
    def draw(seed):
        fps = 2.0 if rule == "fps" else None
        return choose_frames(steady(200), 8, rule, seeded(seed), fps=fps)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    ("available", "num_frames", "options", "message"),
    [
        (0, 8, {}, "at least 1"),
        (8, 0, {}, "at least 1"),
        (8, 2, {"stride": 0}, "at least 1"),
        (8, 2, {"clip": 2, "num_clips": 2}, "numbered from 0"),
        (8, 2, {"sampling": "fps"}, "rate above 0"),
        (8, 2, {"sampling": "fps", "fps": -1.0}, "rate above 0"),
    ],
)
def test_nothing_to_choose_is_an_error(available, num_frames, options, message):
    options = {"sampling": "random", **options}
    with pytest.raises(ValueError, match=message):
        choose_frames(steady(available), num_frames, **options)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, None, (0, 10)),
        (-5.0, 99.0, (0, 10)),
        (0.2, 0.5, (2, 5)),  # the frame shown at the end is not in it
        (0.25, 0.5, (2, 5)),  # the frame on the screen at 0.25 s
        (0.21, 0.29, (2, 3)),  # between two frames
        (0.9, None, (9, 10)),
        (0.95, 3.0, (9, 10)),  # the last frame is still on the screen
    ],
)
def test_windows(start, end, expected):
    assert frames_between(steady(10, 10.0), start, end) == expected


def test_times_that_are_not_exact_in_binary_are_met():
    """The frame at 3 * 0.1, a little more than 0.3, is on the screen at 0.3."""
    times = np.arange(10) * 0.1
    assert times[3] > 0.3
    for k in range(9):
        assert frames_between(times, round(k / 10, 1), round((k + 1) / 10, 1)) == (k, k + 1)


def test_a_video_of_one_frame_shows_it_for_ever():
    assert frames_between(np.array([0.0]), 7.0, 9.0) == (0, 1)


@pytest.mark.parametrize(
    ("start", "end"), [(0.5, 0.5), (0.5, 0.2), (1.5, None), (1.5, 3.0), (-2.0, 0.0)]
)
def test_windows_with_nothing_in_them(start, end):
    with pytest.raises(ValueError, match="is no part of a video"):
        frames_between(steady(10, 10.0), start, end)
