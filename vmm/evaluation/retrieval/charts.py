"""Charts: recall over depth, ranks and similarities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vmm.evaluation.common.pictures import DPI, WIDE
from vmm.evaluation.retrieval.results import DIRECTIONS, RetrievalResult
from vmm.fonts import drawable
from vmm.metrics import hit_probability

_DEPTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_BINS = (1, 5, 10, 50, 100)
_MAP_SIDE = 64
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (1, 4)))


def recall_curves(results: Sequence[tuple[str, RetrievalResult]], direction: str) -> Figure:
    """Draw recall over the depth k in a direction, "t2v" or "v2t"."""
    entries = sum(len(result.kinds()) for _, result in results) + 1
    figure = Figure(figsize=(WIDE, 3.2 + 0.18 * entries), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    largest = 1
    for number, (label, result) in enumerate(results):
        for style, scores in zip(_STYLES, result.kinds(), strict=False):
            ranks = result.ranks(scores, direction)
            ks = [k for k in _DEPTHS if k < ranks.candidates] + [ranks.candidates]
            largest = max(largest, ranks.candidates)
            recalls = [100 * hit_probability(ranks, k).mean().item() for k in ks]
            name = drawable(f"{label}, {result.title(scores)}")
            name = f" {name}" if name.startswith("_") else name  # else the legend omits it
            ax.plot(ks, recalls, linestyle=style, color=f"C{number}", marker="o", ms=3, label=name)
    ks = [k for k in _DEPTHS if k <= largest]
    ends = [*(k for k in ks if k < largest), largest]
    ax.plot(ends, [100 * k / largest for k in ends], color="#b0b0b0", lw=1, label="chance")
    ax.set(xscale="log", ylim=(0, 102), title=DIRECTIONS[direction])
    ax.set(xlabel="depth k", ylabel="recall@k, %")
    ax.set_xticks(ks, labels=[str(k) for k in ks])
    ax.set_xticks([], minor=True)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False, handlelength=5)
    return figure


def rank_histogram(result: RetrievalResult, direction: str) -> Figure:
    """Draw how many queries find their target how early, with equal scores as in the table."""
    kinds = result.kinds()
    width = 0.8 / len(kinds)
    figure = Figure(figsize=(WIDE, 2.6 + 0.2 * len(kinds)), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    for number, scores in enumerate(kinds):
        ranks = result.ranks(scores, direction)
        ends = [k for k in _BINS if k < ranks.candidates]
        found = [100 * hit_probability(ranks, k).mean().item() for k in ends]
        shares = [b - a for a, b in pairwise([0, *found, 100])]
        names = [*(str(b) if b == a + 1 else f"{a + 1}-{b}" for a, b in pairwise([0, *ends]))]
        names.append("later")
        places = [i + width * number for i in range(len(names))]
        ax.bar(places, shares, width, label=result.title(scores), color=f"C{number}")
    ax.set_xticks([i + width * (len(kinds) - 1) / 2 for i in range(len(names))], labels=names)
    ax.set(title=DIRECTIONS[direction], xlabel="rank of the right one")
    ax.set_ylabel("share of queries, %")
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    # Over the bars it would hide those that are said to be there.
    figure.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False)
    return figure


def similarity_map(scores: Tensor, relevant: Tensor) -> Figure:
    """Draw the similarities of some videos, at even distances, with a caption of each.

    Args:
        scores: (num_texts, num_clips) cosines; -inf = unreadable, left white.
        relevant: (num_texts, num_clips) bool.
    """
    own = relevant.any(0).nonzero().squeeze(1)
    columns = own[torch.linspace(0, len(own) - 1, min(_MAP_SIDE, len(own))).long()]
    rows = relevant[:, columns].byte().argmax(0)
    some = scores[rows][:, columns]
    figure = Figure(figsize=(WIDE, 3.7), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    pixels = some.masked_fill(~some.isfinite(), torch.nan).numpy()
    image = ax.imshow(pixels, cmap="viridis")
    ax.set(xlabel="video", ylabel="caption", title=f"cosine, {len(columns)} of {len(own)} videos")
    figure.colorbar(image, ax=ax)
    return figure
