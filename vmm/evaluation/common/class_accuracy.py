"""Scores of classes to the numbers of a result.

Shape legend: see ``vmm.types``; N samples, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vmm.metrics import bootstrap_interval, hit_probability, text_to_video_ranks


def hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Give the probability that the right class is among the first ``k``, ties in random order.

    Args:
        scores: (N, K) float32 or float64; a row of NaN is a sample that could not be read.
        labels: (N,) int64; what is not in 0..K - 1 is never right.
        k: Guesses.

    Returns:
        (N,) float64.
    """
    found = torch.zeros(len(scores), dtype=torch.float64)
    rows = readable_rows(scores) & (labels >= 0) & (labels < scores.shape[1])
    if rows.any():
        found[rows] = hit_probability(text_to_video_ranks(scores[rows], labels[rows]), k)
    return found


def readable_rows(scores: Tensor) -> Tensor:
    """Mark the samples that were scored: (N,) bool."""
    return ~scores.isnan().all(1)


def measure_classes(
    scores: Tensor, labels: Tensor, names: Sequence[str], groups: Tensor
) -> dict[str, Any]:
    """Measure a classification; rates are in percent, intervals are of 95 %.

    Args:
        scores: (N, K), see ``hits``.
        labels: (N,), see ``hits``.
        names: K classes.
        groups: (N,) int64, number of the video that a sample is a part of.

    Returns:
        ``top_1``, ``top_5``, ``mean_class`` (mean over the classes of top-1), ``chance``,
        ``majority`` (always the most frequent class), ``interval`` and ``per_class``.
    """
    values = {f"top_{k}": 100 * hits(scores, labels, k) for k in (1, 5)}
    known = [label for label in labels.tolist() if label >= 0]
    most = Counter(known).most_common(1)[0][1] if known else 0
    predicted = scores.nan_to_num(-torch.inf).argmax(1).where(readable_rows(scores), -1)
    per_class: list[dict[str, Any]] = []
    for label, name in enumerate(names):
        rows = labels == label
        if not rows.any():
            continue
        wrong = Counter(p for p in predicted[rows].tolist() if p not in (-1, label))
        taken = wrong.most_common(1)
        per_class.append(
            {
                "name": name,
                "samples": int(rows.sum()),
                "top_1": values["top_1"][rows].mean().item(),
                "taken_for": names[taken[0][0]] if taken else None,
            }
        )
    return {
        **{name: value.mean().item() for name, value in values.items()},
        "mean_class": sum(c["top_1"] for c in per_class) / len(per_class) if per_class else 0.0,
        "chance": 100 / scores.shape[1],
        "majority": 100 * most / len(labels),
        "interval": {n: list(bootstrap_interval(v, groups)) for n, v in values.items()},
        "per_class": per_class,
    }
