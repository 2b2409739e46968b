"""Pictures of an evaluation: what was retrieved, and how the losses went.

Figures are drawn without pyplot, so nothing is global and no display is needed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.text import Text

from vmm.fonts import choose_fonts, drawable

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


def shortened(text: str, letters: int) -> str:
    """Return the beginning of a text, in one line that can be drawn."""
    words = " ".join(text.split())
    return drawable(words if len(words) <= letters else f"{words[: letters - 1]}…")


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


class Curve(NamedTuple):
    """A logged quantity over optimizer steps."""

    name: str
    steps: list[int]
    values: list[float]


def read_curves(path: Path) -> list[Curve]:
    """Read what Lightning's CSVLogger wrote: one curve per ``train/`` and ``val/`` column.

    Args:
        path: A run's ``metrics.csv``.

    Raises:
        ValueError: If the file is missing or its numbers cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}; give a run directory of `vmm fit`")
    curves: dict[str, Curve] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if not text or not isinstance(name, str) or not name.startswith(("train/", "val/")):
                    continue
                try:
                    step, value = int(row["step"]), float(text)
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{path} holds no number for {name}: {error}") from error
                if math.isfinite(value):
                    curve = curves.setdefault(name, Curve(name, [], []))
                    curve.steps.append(step)
                    curve.values.append(value)
    return list(curves.values())


def curves_picture(curves: Sequence[Curve]) -> Figure:
    """Draw every curve in a small panel of its own, raw and smoothed."""
    columns = min(4, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.2 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.flat[len(curves) :]:
        ax.set_axis_off()
    for ax, curve in zip(grid.flat, curves, strict=False):
        single = len(curve.values) < 8
        ax.plot(
            curve.steps,
            curve.values,
            color="#0969da",
            alpha=1 if single else 0.3,
            linewidth=1,
            marker="o" if single else None,
            markersize=3,
        )
        if not single:
            ax.plot(curve.steps, _smooth(curve.values), color="#0969da", linewidth=1.6)
        ax.set_title(drawable(curve.name), fontsize=9)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in grid[-1]:
        ax.set_xlabel("step", fontsize=8)
    return figure


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the curve, unbiased at its start."""
    keep = 1 - 1 / max(2.0, len(values) / 20)
    total = weight = 0.0
    smooth = []
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smooth.append(total / weight)
    return smooth


def png(figure: Figure) -> bytes:
    """Render a figure as PNG, with fonts that have what is written, and none of it as a formula.

    Texts of others must have gone through ``drawable``.
    """
    numbers = {
        text
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for text in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True), axis.offsetText)
    }  # these may be formulas: powers of ten
    texts = figure.findobj(Text)
    families = []
    for path in choose_fonts(text.get_text() for text in texts):
        fontManager.addfont(path)
        families.append(FontProperties(fname=path).get_name())
    for text in texts:
        text.set_fontfamily(families)
        if text not in numbers:
            text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
