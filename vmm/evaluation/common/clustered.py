"""Means and their standard errors where observations come in clusters, such as several per video.

With N values x_i in G clusters and their mean m, the error is the cluster-robust one (Liang and
Zeger 1986; for evaluations of models: Miller 2024, arXiv 2411.00640, section 2.2)::

    sqrt(G / (G - 1) * sum over clusters g of (sum over i in g of (x_i - m)) ** 2) / N

With one value per cluster it is the usual standard error of a mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A mean, in the unit of the values."""

    mean: float
    error: float | None
    """Standard error; None if there is one cluster only."""

    @property
    def errors_above_zero(self) -> float:
        """The mean in standard errors; infinite (or 0) where the error is 0 or unknown."""
        if self.error:
            return self.mean / self.error
        return float("inf") if self.mean > 0 and self.error is not None else 0.0

    @property
    def apart(self) -> str:
        """Say of a difference in percent how far the first is above or below the second."""
        word = "above" if self.mean >= 0 else "below"
        if self.error is None:
            return f"{abs(self.mean):.1f} points {word}"
        errors = f"{abs(self.errors_above_zero):.1f} clustered errors"
        return f"{abs(self.mean):.1f} points ({errors}) {word}"


def clustered_mean(values: Tensor, clusters: Tensor) -> Estimate:
    """Give the mean of ``values`` (N,) and its error, ``clusters`` (N,) int64 telling who is alike.

    Raises:
        ValueError: If there is no value or the shapes differ.
    """
    if values.dim() != 1 or values.shape != clusters.shape or not len(values):
        raise ValueError(
            f"values {tuple(values.shape)} and clusters {tuple(clusters.shape)} must be as many "
            "numbers, at least one"
        )
    values = values.double()
    mean = values.mean()
    number = torch.unique(clusters, return_inverse=True)[1]
    sums = torch.zeros(int(number.max()) + 1, dtype=torch.float64)
    sums.index_add_(0, number, values - mean)
    count = len(sums)
    if count < 2:
        return Estimate(mean.item(), None)
    error = (sums.square().sum() * count / (count - 1)).sqrt() / len(values)
    return Estimate(mean.item(), error.item())
