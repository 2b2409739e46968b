"""A picture of what captions found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vmm.evaluation.common.pictures import shortened
from vmm.fonts import drawable

_RIGHT, _WRONG = "#1a7f37", "#b0b0b0"


class Strip(NamedTuple):
    """One retrieved clip, ready to be drawn."""

    frames: npt.NDArray[np.uint8]
    """(T, H, W, 3)."""
    label: str
    right: bool


class Query(NamedTuple):
    """A caption and what it found, best first."""

    caption: str
    note: str
    """Said beside the caption, softly."""
    strips: list[Strip]


def retrieval_picture(queries: Sequence[Query], title: str) -> Figure:
    """Draw one row per query: its caption, then a strip of frames per result.

    The right clip has a green frame and a tick in its label.

    Args:
        queries: All with the same number of results.
        title: Said once, on top.
    """
    columns = max(len(query.strips) for query in queries)
    ratio = max(
        strip.frames.shape[0] * strip.frames.shape[2] / strip.frames.shape[1]
        for query in queries
        for strip in query.strips
    )
    width, caption_height = 5.0, 0.42
    row_height = width / ratio + caption_height + 0.18
    figure = Figure(figsize=(columns * width, len(queries) * row_height + 0.5), dpi=100)
    figure.suptitle(drawable(title), fontsize=13, y=1 - 0.12 / figure.get_figheight(), va="top")
    grid = figure.subplots(len(queries), columns, squeeze=False)
    top = 1 - (0.5 + caption_height) / figure.get_figheight()
    figure.subplots_adjust(0.01, 0.01, 0.99, top, wspace=0.03, hspace=0.8)
    for axes, query in zip(grid, queries, strict=True):
        caption = shortened(query.caption, 150)
        said = axes[0].annotate(
            f"“{caption}”",
            (0, 1.42),
            xycoords="axes fraction",
            fontsize=11,
            parse_math=False,  # annotations are measured before they are drawn
            annotation_clip=False,
        )
        axes[0].annotate(
            f"  {drawable(query.note)}",
            (1, 0.5),
            xycoords=said,
            va="center",
            fontsize=9,
            color="#59636e",
            parse_math=False,
            annotation_clip=False,
        )
        for ax in axes[len(query.strips) :]:
            ax.set_axis_off()
        for ax, strip in zip(axes, query.strips, strict=False):
            _draw_strip(ax, strip)
    return figure


def _draw_strip(ax: Axes, strip: Strip) -> None:
    gap = np.full_like(strip.frames[0][:, :1], 255)
    tiles = [tile for frame in strip.frames for tile in (frame, gap)][:-1]
    ax.imshow(np.concatenate(tiles, axis=1), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    color = _RIGHT if strip.right else _WRONG
    for spine in ax.spines.values():
        spine.set_edgecolor(color)
        spine.set_linewidth(3 if strip.right else 1)
    label = drawable(f"✓ {strip.label}" if strip.right else strip.label)
    ax.set_title(
        label, fontsize=9, loc="left", pad=3, parse_math=False, color=color if strip.right else "k"
    )
