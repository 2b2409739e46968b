"""Two results side by side: is one model better, or was it luck?

Both answered the same queries, so they are compared query by query. Intervals are a bootstrap over
videos of the difference; p-values are those of a permutation test that swaps the two models'
answers to all queries of a video. Results that were not measured alike are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vmm.evaluation.common.results import text_table
from vmm.evaluation.retrieval.results import (
    DIRECTIONS,
    RetrievalResult,
    protocol_differences,
)
from vmm.metrics import bootstrap_interval, hit_probability

_DEPTHS = (1, 5, 10)
_READING = (
    "Recalls in percent. In brackets: where 95 % of differences lie if other videos are drawn; "
    "p-value: how\noften as large a difference comes about where neither model is better."
)
_NONE = "Nothing here is a difference: every interval holds 0, so luck may have made all of it."
_SAME_CARD = ("command", "versions", "device")  # may differ without being worth a line


class Difference(NamedTuple):
    """One recall of both, in percent."""

    direction: str
    scores: str
    k: int
    a: float
    b: float
    low: float
    """Lower end of the 95 % interval of b - a."""
    high: float
    p: float


def compare(a: RetrievalResult, b: RetrievalResult) -> list[Difference]:
    """Compare two results.

    Args:
        a: The one.
        b: The other.

    Returns:
        Every recall that both have.

    Raises:
        ValueError: If they were not measured alike.
    """
    if different := protocol_differences(a, b):
        raise ValueError(
            f"{a.name} and {b.name} were not measured alike, so their numbers cannot be "
            f"compared ({'; '.join(different)}); evaluate both on the same data in the same way"
        )
    found = []
    for direction in DIRECTIONS:
        for scores in a.kinds():
            if scores not in b.kinds():
                continue
            ranks = [result.ranks(scores, direction) for result in (a, b)]
            videos = torch.tensor(a.queries["video"]) if direction == "t2v" else None
            for k in _DEPTHS:
                hits = [100 * hit_probability(r, k) for r in ranks]
                gain = hits[1] - hits[0]
                low, high = bootstrap_interval(gain, videos)
                means = hits[0].mean().item(), hits[1].mean().item()
                p = permutation_p(gain, videos)
                found.append(Difference(direction, scores, k, *means, low, high, p))
    return found


def permutation_p(
    gain: Tensor, groups: Tensor | None = None, samples: int = 10_000, seed: int = 0
) -> float:
    """Give the probability of so large a mean, either way, if the two models were the same.

    Args:
        gain: (n,) difference of the two models on each query.
        groups: (n,) int64, not negative, queries that change sides together; None = each alone.
        samples: Random swaps.
        seed: The draws are a function of it.

    Returns:
        The two-sided p-value, at least 1 / (samples + 1).

    Raises:
        ValueError: If there is no query or the shapes differ.
    """
    if gain.numel() == 0 or (groups is not None and groups.shape != gain.shape):
        raise ValueError("gain and groups must hold the same number of entries, at least one")
    groups = torch.arange(len(gain)) if groups is None else groups
    sums = torch.bincount(groups, weights=gain.double())
    sums = sums[sums != 0]  # the others change nothing
    generator = torch.Generator().manual_seed(seed)
    extreme = 0
    for start in range(0, samples, 1000):
        number = min(1000, samples - start)
        signs = torch.randint(2, (number, len(sums)), generator=generator).double() * 2 - 1
        # Sums of whole numbers are exact; those of expected hits need some room.
        extreme += int(((signs @ sums).abs() >= sums.sum().abs() - 1e-9).sum())
    return (extreme + 1) / (samples + 1)


def comparison_text(a: RetrievalResult, b: RetrievalResult, found: Sequence[Difference]) -> str:
    """Format a comparison for the terminal."""
    names = (a.name, b.name) if a.name != b.name else (f"{a.name} (1)", f"{b.name} (2)")
    gained = f"{names[1]} - {names[0]} (95 %)"
    rows = [["direction", "scores", "recall", *names, gained, "p-value"]]
    last = ("", "")
    for d in found:
        labels = (DIRECTIONS[d.direction], a.title(d.scores))
        shown = ("", "") if labels == last else labels
        gain = f"{d.b - d.a:+.1f} ({d.low:+.1f} to {d.high:+.1f})"
        rows.append([*shown, f"R@{d.k}", f"{d.a:.1f}", f"{d.b:.1f}", gain, _p(d.p)])
        last = labels
    cards = zip(a.card(), b.card(), strict=True)
    other = [
        f"  {name}: {one} | {two}"
        for (name, one), (_, two) in cards
        if one != two and name not in _SAME_CARD
    ]
    lines = [text_table(rows, left=3), _READING]
    if all(d.low <= 0 <= d.high for d in found):
        lines.append(_NONE)
    return "\n".join([*lines, *(["not the same:", *other] if other else [])])


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
