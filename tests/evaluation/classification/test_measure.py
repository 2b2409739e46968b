import pytest
import torch

from vmm.evaluation.classification.measure import measure_numbers


def test_a_number_to_predict():
    targets = torch.tensor([1.0, 2.0, 3.0])
    found = measure_numbers(torch.tensor([1.0, 2.0, 6.0]), targets, torch.arange(3))
    assert found["mse"] == pytest.approx(3) and found["constant"] == pytest.approx(2 / 3)
