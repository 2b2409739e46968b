import math

import pytest
import torch

from vmm.evaluation.common.clustered import Estimate, clustered_mean


def test_one_value_per_cluster_is_the_usual_standard_error():
    values = torch.randn(50, dtype=torch.float64)
    mean, error = clustered_mean(values, torch.arange(50) * 7 - 3)
    assert mean == pytest.approx(values.mean().item())
    assert error == pytest.approx(values.std().item() / math.sqrt(50))


def test_by_hand():
    # Mean 2; the clusters' sums of differences are -2 and 2: sqrt(2 / 1 * (4 + 4)) / 4.
    mean, error = clustered_mean(torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([5, 5, 9, 9]))
    assert (mean, error) == (2.0, 1.0)
    # What differs inside a cluster only cancels out.
    assert clustered_mean(torch.tensor([0.0, 4.0, 2.0, 2.0]), torch.tensor([5, 5, 9, 9])) == (2, 0)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 9), (4, 12)], ids=["single", "uneven", "large"])
def test_it_is_the_error_that_drawing_whole_clusters_gives(sizes):
    generator = torch.Generator().manual_seed(1)
    count = 80
    members = torch.randint(sizes[0], sizes[1] + 1, (count,), generator=generator)
    clusters = torch.repeat_interleave(torch.arange(count), members)
    shared = torch.randn(count, generator=generator)[clusters]
    values = shared + 0.5 * torch.randn(len(clusters), generator=generator)
    draws = []
    for _ in range(4000):
        drawn = torch.randint(count, (count,), generator=generator)
        weight = torch.bincount(drawn, minlength=count)[clusters]
        draws.append(((values * weight).sum() / weight.sum()).item())
    brute = torch.tensor(draws).std().item()
    error = clustered_mean(values, clusters).error
    assert error == pytest.approx(brute, rel=0.06)
    if sizes[1] > 1:  # as if all were independent, it would be far too small
        assert error > 1.3 * values.std().item() / math.sqrt(len(values))


def test_repeating_a_question_makes_nothing_surer():
    values, clusters = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 1, 2, 3])
    once = clustered_mean(values, clusters)
    often = clustered_mean(values.repeat(10), clusters.repeat(10))
    assert often.mean == once.mean and often.error == pytest.approx(once.error)


def test_one_cluster_has_no_error():
    estimate = clustered_mean(torch.tensor([1.0, 0.0]), torch.tensor([3, 3]))
    assert estimate == Estimate(0.5, None) and estimate.errors_above_zero == 0


@pytest.mark.parametrize(
    ("mean", "error", "expected"), [(6.0, 2.0, 3.0), (5.0, 0.0, math.inf), (-5.0, 0.0, 0.0)]
)
def test_how_sure(mean, error, expected):
    assert Estimate(mean, error).errors_above_zero == expected


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0], [1, 2])])
def test_nothing_or_something_else_is_refused(values, clusters):
    with pytest.raises(ValueError, match="at least one"):
        clustered_mean(torch.tensor(values), torch.tensor(clusters))
