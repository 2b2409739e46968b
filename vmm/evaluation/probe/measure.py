"""From what probes say to percentages, with their controls.

Shape legend: see ``vmm.types``; M test clips, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm.evaluation.common.class_accuracy import hits, measure_classes
from vmm.evaluation.probe.options import Probe
from vmm.evaluation.probe.readers import Reading
from vmm.metrics import bootstrap_interval


class Asked(NamedTuple):
    """The test clips that count."""

    labels: Tensor
    """(M,) int64, numbers of their classes."""
    videos: Tensor
    """(M,) int64, numbers of the videos that they are parts of."""
    names: Sequence[str]
    """K classes."""
    usual: int
    """The most frequent class of the training clips."""


def most_frequent(labels: Tensor) -> int:
    """Find the most frequent class, of several the first."""
    return int(torch.bincount(labels).argmax())


def measure(
    model: Mapping[Probe, Tensor], control: Mapping[Probe, Tensor], asked: Asked
) -> dict[str, Any]:
    """Measure all probes; rates are in percent, intervals are of 95 % and drawn over videos.

    Args:
        model: Probe -> (M, K) float64 scores; a row of NaN is a clip that could not be read.
        control: The same of random weights; empty if there are none.
        asked: The clips.

    Returns:
        ``probes``, of each what ``measure_classes`` gives as ``model`` and ``random``, and the
        ``gain`` over random weights (None without them) and ``above_majority``, both paired by
        clip; ``majority``, what always saying the most frequent class of the training clips gets
        right; and ``chance``.
    """
    usual = (asked.labels == asked.usual).double()
    probes: dict[Probe, Any] = {}
    for probe, scores in model.items():
        found: dict[str, Any] = {"random": None, "gain": None}
        found["model"] = measure_classes(scores, asked.labels, asked.names, asked.videos)
        if probe in control:
            other = control[probe]
            found["random"] = measure_classes(other, asked.labels, asked.names, asked.videos)
            gained = hits(scores, asked.labels, 1) - hits(other, asked.labels, 1)
            found["gain"] = described(gained, asked.videos)
        found["above_majority"] = described(hits(scores, asked.labels, 1) - usual, asked.videos)
        probes[probe] = found
    return {
        "probes": probes,
        "majority": described(usual, asked.videos),
        "chance": 100 / len(asked.names),
    }


def described(values: Tensor, videos: Tensor) -> dict[str, Any]:
    """Give the mean of (M,) shares in percent, with its interval."""
    interval = list(bootstrap_interval(100 * values, videos))
    return {"value": 100 * values.mean().item(), "interval": interval}


def scattered(reading: Reading, rows: Tensor, clips: int) -> Tensor:
    """Give what a probe says of the clips that could be read as scores of all.

    Args:
        reading: (n, K).
        rows: (n,) their numbers.
        clips: M.

    Returns:
        (M, K) float64; rows of NaN are the others.
    """
    scores = torch.full((clips, reading.scores.shape[1]), torch.nan, dtype=torch.float64)
    scores[rows] = torch.from_numpy(reading.scores)
    return scores
