import pytest
import torch

from vmm.data.sampling import frame_indices


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("available", "num_frames", "expected"),
    [
        (100, 8, [5, 18, 30, 43, 55, 68, 80, 93]),
        (5, 8, [0, 1, 2, 3, 4, 4, 4, 4]),
        (24, 8, [1, 4, 7, 10, 13, 16, 19, 22]),
        (1, 3, [0, 0, 0]),
        (7, 1, [3]),
    ],
)
def test_middle_frames_of_the_published_rule(available, num_frames, expected):
    assert frame_indices(available, num_frames, "middle") == expected


def test_middle_frames_of_the_demo_are_symmetric_in_time():
    chosen = frame_indices(24, 8, "middle")
    assert [23 - i for i in reversed(chosen)] == chosen


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    # linspace(0, 100, 9) = 0, 12.5, 25, ...: the segments are 0..11, 12..24, ...
    [
        ("random", range(12), range(12, 25)),
        ("random_published", range(11), range(12, 24)),
    ],
)
def test_random_frames_cover_their_segment_and_stay_in_it(rule, first, second):
    drawn = [frame_indices(100, 8, rule, seeded(s)) for s in range(300)]
    assert {d[0] for d in drawn} == set(first)
    assert {d[1] for d in drawn} == set(second)
    assert all(d == sorted(d) for d in drawn)


def test_random_frames_are_uniform():
    drawn = torch.tensor([frame_indices(40, 4, "random", seeded(s))[0] for s in range(3000)])
    counts = torch.bincount(drawn, minlength=10)
    assert len(counts) == 10 and counts.min() > 230 and counts.max() < 370


def test_published_rule_falls_back_to_a_sorted_subset():
    drawn = {tuple(frame_indices(9, 8, "random_published", seeded(s))) for s in range(200)}
    assert all(len(set(d)) == 8 and list(d) == sorted(d) for d in drawn)
    assert len(drawn) == 9  # every frame is left out at times


@pytest.mark.parametrize("rule", ["random", "random_published"])
def test_short_videos_repeat_the_last_frame(rule):
    assert frame_indices(3, 5, rule, seeded(0)) == [0, 1, 2, 2, 2]


def test_the_generator_alone_decides():
    assert frame_indices(99, 8, "random", seeded(1)) == frame_indices(99, 8, "random", seeded(1))
    assert frame_indices(99, 8, "random", seeded(1)) != frame_indices(99, 8, "random", seeded(2))


@pytest.mark.parametrize(("available", "num_frames"), [(0, 8), (8, 0)])
def test_nothing_to_choose_is_an_error(available, num_frames):
    with pytest.raises(ValueError, match="at least 1"):
        frame_indices(available, num_frames, "middle")
