import numpy as np
import pytest
import torch

from vmm.evaluation.probe.measure import Asked, measure, most_frequent, scattered
from vmm.evaluation.probe.readers import Reading

ASKED = Asked(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 1, 2]), ["a", "b", "c"], 1)


def saying(*classes):
    return torch.eye(3, dtype=torch.float64)[list(classes)]


def test_numbers_by_hand():
    model = {"linear": saying(0, 1, 1, 1), "knn": saying(0, 1, 0, 2)}
    found = measure(model, {"linear": saying(1, 1, 1, 1)}, ASKED)
    linear, knn = found["probes"]["linear"], found["probes"]["knn"]
    assert linear["model"]["top_1"] == pytest.approx(75)
    assert linear["random"]["top_1"] == pytest.approx(50)
    assert linear["gain"]["value"] == pytest.approx(25)
    assert linear["above_majority"]["value"] == pytest.approx(25)
    assert knn["random"] is knn["gain"] is None
    assert found["majority"]["value"] == pytest.approx(50)
    assert found["chance"] == pytest.approx(100 / 3)


def test_intervals_are_drawn_over_videos():
    torch.manual_seed(0)
    labels = torch.zeros(100, dtype=torch.int64)
    scores = {"knn": saying(*(i // 50 for i in range(100)))}  # one video right, one wrong
    apart = measure(scores, {}, Asked(labels, torch.arange(100), ["a", "b", "c"], 0))
    together = measure(scores, {}, Asked(labels, torch.arange(100) // 50, ["a", "b", "c"], 0))
    low, high = apart["probes"]["knn"]["model"]["interval"]["top_1"]
    assert 35 < low < 50 < high < 65
    assert together["probes"]["knn"]["model"]["interval"]["top_1"] == [0, 100]
    assert together["probes"]["knn"]["above_majority"]["interval"] == [-100, 0]


def test_the_most_frequent_class_is_that_of_the_training_clips():
    assert most_frequent(torch.tensor([2, 0, 2, 0, 1])) == 0


def test_clips_that_could_not_be_read_are_wrong():
    reading = Reading(np.eye(3)[[1, 2]], {}, 0.0)
    scores = scattered(reading, torch.tensor([1, 3]), 4)
    found = measure({"linear": scores}, {}, ASKED)["probes"]["linear"]["model"]
    assert scores.isnan().all(1).tolist() == [True, False, True, False]
    assert found["top_1"] == pytest.approx(50)
