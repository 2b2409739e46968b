import pytest
import torch

from vmm.evaluation.common.class_accuracy import hits, measure_classes

NAN = torch.nan


def brute_force(row, label, k, orders=2000):
    """Share of random orders of equal scores in which the class is among the first k."""
    found = 0
    for _ in range(orders):
        order = torch.randperm(len(row))
        found += label in order[row[order].argsort(descending=True, stable=True)[:k]].tolist()
    return found / orders


@pytest.mark.parametrize("k", [1, 2])
def test_ties_count_by_expectation(k):
    rows = torch.tensor([[3.0, 1.0, 1.0], [2.0, 2.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    labels = torch.tensor([1, 0, 2, 0])
    expected = [brute_force(r, x, k) for r, x in zip(rows, labels.tolist(), strict=True)]
    assert hits(rows, labels, k).tolist() == pytest.approx(expected, abs=0.05)


def test_labels_out_of_range_and_unreadable_samples_are_wrong():
    rows = torch.eye(3)[[0, 1, 2, 2, 0]]
    rows[4] = NAN
    labels = torch.tensor([0, 3, -1, 2, 0])
    assert hits(rows, labels, 3).tolist() == [1, 0, 0, 1, 0]
    assert hits(torch.full((2, 3), NAN), torch.zeros(2, dtype=torch.int64), 1).tolist() == [0, 0]


def test_numbers_of_a_small_table():
    rows = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [NAN, NAN]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    found = measure_classes(rows, labels, ["a", "b"], torch.arange(5))
    assert found["top_1"] == pytest.approx(40) and found["top_5"] == pytest.approx(80)
    assert found["mean_class"] == pytest.approx((200 / 3 + 0) / 2)
    assert found["chance"] == 50 and found["majority"] == pytest.approx(60)
    assert found["per_class"] == [
        {"name": "a", "samples": 3, "top_1": pytest.approx(200 / 3), "taken_for": "b"},
        {"name": "b", "samples": 2, "top_1": 0.0, "taken_for": "a"},
    ]
    low, high = found["interval"]["top_1"]
    assert low <= 40 <= high
