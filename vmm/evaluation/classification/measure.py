"""Predicted numbers, or what is said of several classes, to the numbers of a result.

Shape legend: see ``vmm.types``; N samples, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmm.metrics import bootstrap_interval, mean_average_precision


def measure_numbers(predicted: Tensor, targets: Tensor, groups: Tensor) -> dict[str, Any]:
    """Measure the prediction of a number by its mean squared error.

    Args:
        predicted: (N,) float64.
        targets: (N,) float64, in the same unit.
        groups: (N,) int64, see ``measure_classes``.

    Returns:
        ``mse``, ``constant`` (the error of always saying the mean of these targets: their
        variance) and ``interval``.
    """
    errors = (predicted.double() - targets.double()).square()
    return {
        "mse": errors.mean().item(),
        "constant": targets.double().var(correction=0).item(),
        "interval": {"mse": list(bootstrap_interval(errors, groups))},
    }


def measure_several(scores: Tensor, relevant: Tensor) -> dict[str, Any]:
    """Measure what is said of any number of classes by the mean average precision, in percent.

    Args:
        scores: (N, K) float32 or float64; -inf is a sample that could not be read.
        relevant: (N, K) bool.

    Returns:
        ``mean_average_precision`` and ``constant`` (what equal scores of all samples reach).
    """
    return {
        "mean_average_precision": mean_average_precision(scores, relevant),
        "constant": mean_average_precision(torch.zeros_like(scores), relevant),
    }
