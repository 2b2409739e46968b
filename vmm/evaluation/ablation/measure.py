"""Means over seeds, their differences, and what both say in words.

Variants of a study are trained with the same seeds, so they are compared seed by seed: the error of
a difference is that of the mean of the seeds' differences. It knows the luck of a training, not
that of the choice of test clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vmm.evaluation.ablation.studies import Measure, Study
from vmm.evaluation.common.clustered import Estimate, clustered_mean

ENOUGH = 2.0
"""Standard errors from which on a difference is told apart from luck."""


class Compared(NamedTuple):
    """A variant of a study."""

    name: str
    values: list[float]
    """Of the study's measure, by seed."""
    mean: Estimate
    difference: Estimate | None
    """To the baseline, paired by seed; None of the baseline itself."""


def estimate(values: Sequence[float]) -> Estimate:
    """Give the mean of values and its standard error."""
    return clustered_mean(torch.tensor(values, dtype=torch.float64), torch.arange(len(values)))


def measure_of(measure: Measure, result: Mapping[str, Any]) -> float:
    """Take a measure from what a training gave."""
    top_1 = float(result["top_1"])
    return top_1 if measure == "top_1" else float(result["train_top_1"]) - top_1


def compare(study: Study, results: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[Compared]:
    """Compare the variants of a study with its baseline.

    Args:
        study: The study.
        results: Of all its trainings, from ``run.run_all``.
    """
    seeds = sorted({seed for _, seed in results})
    values = {
        name: [measure_of(study.measure, results[training.key(), seed]) for seed in seeds]
        for name, training in study.variants.items()
    }
    base = values[study.baseline]
    return [
        Compared(
            name, own, estimate(own),
            None if name == study.baseline
            else estimate([a - b for a, b in zip(own, base, strict=True)]),
        )
        for name, own in values.items()
    ]  # fmt: skip


def learnt_nothing(
    study: Study, results: Mapping[tuple[str, int], Mapping[str, Any]], chance: float
) -> bool:
    """Tell whether no training of a study is at twice ``chance`` (percent) on unseen clips."""
    keys = {training.key() for training in study.variants.values()}
    return all(result["top_1"] < 2 * chance for (key, _), result in results.items() if key in keys)


def told_apart(difference: Estimate) -> bool:
    """Tell whether a difference is more than ``ENOUGH`` standard errors; never of one seed."""
    return difference.error is not None and abs(difference.mean) > ENOUGH * difference.error


def in_words(name: str, baseline: str, difference: Estimate) -> str:
    """Say how a variant compares with the baseline."""
    if difference.error is None:
        return (
            f"{name} and {baseline} were trained with one seed only, which says nothing about luck "
            f"(difference {difference.mean:+.1f} points)"
        )
    size = f"{abs(difference.mean):.1f} ± {difference.error:.1f} points"
    if told_apart(difference):
        side = "above" if difference.mean > 0 else "below"
        return (
            f"{name} is {size} {side} {baseline}: more than two standard errors of the difference, "
            "paired by seed"
        )
    return (
        f"{name} and {baseline} are not told apart "
        f"(difference {difference.mean:+.1f} ± {difference.error:.1f} points)"
    )


def claim_in_words(study: Study, compared: Sequence[Compared]) -> str | None:
    """Say whether a study shows what it is expected to; None if nothing is, or it was left out."""
    claim = study.claim
    if claim is None:
        return None
    difference = next((c.difference for c in compared if c.name == claim.variant), None)
    if difference is None:
        return None
    if difference.error is None:
        return (
            f"{claim.sentence}: not known from one seed (difference {difference.mean:+.1f} points)."
        )
    number = f"{difference.mean:+.1f} ± {difference.error:.1f} points"
    if told_apart(difference):
        if difference.mean * claim.sign > 0:
            return f"{claim.sentence}: yes, by more than two standard errors ({number})."
        return f"{claim.sentence}: no, the opposite ({number}). {claim.if_not}"
    return f"{claim.sentence}: not shown ({number}). {claim.if_not}"


def by_chance(seeds: int) -> float:
    """Give the probability of ``ENOUGH`` standard errors, either way, where there is no difference.

    Student's t distribution with one degree of freedom less than there are seeds.

    Args:
        seeds: At least 2.
    """
    df = seeds - 1
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    t = torch.linspace(0, ENOUGH, 2001, dtype=torch.float64)
    density = scale * (1 + t.square() / df) ** (-(df + 1) / 2)
    return 1 - 2 * float(torch.trapezoid(density, t))
