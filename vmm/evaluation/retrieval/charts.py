"""Charts: recall over depth, ranks and similarities."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vmm.evaluation.retrieval.results import DIRECTIONS, SCORES, RetrievalResult
from vmm.fonts import drawable
from vmm.metrics import expected_rank, hit_probability

_DEPTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_BINS = (1, 5, 10, 50, 100)
_MAP_SIDE = 64
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (1, 4)))


def recall_curves(results: Sequence[tuple[str, RetrievalResult]]) -> Figure:
    """Draw recall over the depth k, one panel per direction."""
    figure = Figure(figsize=(10, 4.6), dpi=110, layout="constrained")
    for ax, (direction, title) in zip(figure.subplots(1, 2), DIRECTIONS.items(), strict=True):
        largest = 1
        for number, (label, result) in enumerate(results):
            for style, scores in zip(_STYLES, result.kinds(), strict=False):
                ranks = result.ranks(scores, direction)
                ks = [k for k in _DEPTHS if k < ranks.candidates] + [ranks.candidates]
                largest = max(largest, ranks.candidates)
                recalls = [100 * hit_probability(ranks, k).mean().item() for k in ks]
                name = drawable(f"{label}, {SCORES[scores]}")
                name = f" {name}" if name.startswith("_") else name  # else the legend omits it
                ax.plot(
                    ks, recalls, linestyle=style, color=f"C{number}", marker="o", ms=3, label=name
                )
        ks = [k for k in _DEPTHS if k <= largest]
        ax.plot(ks, [100 * k / largest for k in ks], color="#b0b0b0", lw=1, label="chance")
        ax.set(xscale="log", ylim=(0, 102), title=title, xlabel="depth k", ylabel="recall@k, %")
        ax.set_xticks(ks, labels=[str(k) for k in ks])
        ax.set_xticks([], minor=True)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    lines, names = ax.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def rank_histogram(result: RetrievalResult) -> Figure:
    """Draw how many queries find their target how early, one panel per direction."""
    edges = [0, *_BINS, float("inf")]
    names = ["1", *(f"{a + 1}-{b}" for a, b in pairwise(_BINS)), "later"]
    kinds = result.kinds()
    width = 0.8 / len(kinds)
    figure = Figure(figsize=(10, 3.2), dpi=110, layout="constrained")
    for ax, (direction, title) in zip(figure.subplots(1, 2), DIRECTIONS.items(), strict=True):
        for number, scores in enumerate(kinds):
            ranks = result.ranks(scores, direction)
            rank = expected_rank(ranks)
            shares = [
                100 * ((rank > a) & (rank <= b)).double().mean().item() for a, b in pairwise(edges)
            ]
            places = [i + width * number for i in range(len(names))]
            ax.bar(places, shares, width, label=SCORES[scores], color=f"C{number}")
        ax.set_xticks([i + width * (len(kinds) - 1) / 2 for i in range(len(names))], labels=names)
        ax.set(title=title, xlabel="rank of the right one", ylabel="share of queries, %")
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=8)
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
    figure = Figure(figsize=(5.4, 4.6), dpi=110, layout="constrained")
    ax = figure.subplots()
    pixels = some.masked_fill(~some.isfinite(), torch.nan).numpy()
    image = ax.imshow(pixels, cmap="viridis")
    ax.set(xlabel="video", ylabel="caption", title=f"cosine, {len(columns)} of {len(own)} videos")
    figure.colorbar(image, ax=ax)
    return figure
