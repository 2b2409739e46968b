import pytest
import torch

from vmm.evaluation.classification.measure import measure_numbers, measure_several
from vmm.metrics import mean_average_precision


def test_a_number_to_predict():
    targets = torch.tensor([1.0, 2.0, 3.0])
    found = measure_numbers(torch.tensor([1.0, 2.0, 6.0]), targets, torch.arange(3))
    assert found["mse"] == pytest.approx(3) and found["constant"] == pytest.approx(2 / 3)


def world(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    relevant = torch.rand(samples, 3, generator=generator) < torch.tensor([0.3, 0.1, 0.2])
    return torch.randn(samples, 3, generator=generator) + 1.2 * relevant, relevant


def test_the_interval_of_a_mean_average_precision_holds_the_truth():
    """Of 40 sets about 38 should; quantiles that are not reflected hold fewer."""
    truth = mean_average_precision(*world(100_000, 99))
    held, shift = 0, 0.0
    for seed in range(40):
        found = measure_several(*world(200, seed), torch.arange(200))
        low, high = found["interval"]["mean_average_precision"]
        held += low <= truth <= high
        assert high - low < 30
        shift += (low + high) / 2 - found["mean_average_precision"]
    assert held >= 35
    assert shift < 0  # draws are too high, as the value is; the interval makes up for both


def test_whole_videos_are_drawn_and_ties_come_together():
    scores, relevant = world(60, 0)
    doubled, twice = scores.repeat(2, 1), relevant.repeat(2, 1)
    videos = torch.arange(60)
    once = measure_several(scores, relevant, videos)
    same = measure_several(doubled, twice, videos.repeat(2) + 7)
    assert same["mean_average_precision"] == pytest.approx(once["mean_average_precision"])
    assert same["interval"]["mean_average_precision"] == pytest.approx(
        once["interval"]["mean_average_precision"]
    )
    equal = measure_several(torch.zeros(60, 3), relevant, videos)
    low, high = equal["interval"]["mean_average_precision"]
    assert low < equal["constant"] < high  # the share of right samples, in every draw
    none = measure_several(scores, relevant, torch.zeros(60, dtype=torch.int64))
    assert (
        none["interval"]["mean_average_precision"]
        == [pytest.approx(once["mean_average_precision"])] * 2
    )
