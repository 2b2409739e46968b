"""A picture per question: how relevant each option is along the time axis."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from vmm.evaluation.common.curves import told_apart
from vmm.evaluation.common.page import render
from vmm.text_output import visible

_WIDTH, _HEIGHT, _LEFT, _TOP, _MARGIN = 400, 110, 48, 8, 24
_LETTERS, _LINE = 42, 19
"""Letters of a line below the axis, and its height."""
_COLOURS = ("#0969da", "#bf3989", "#bc4c00", "#8250df", "#57606a", "#9a6700")
_STEPS_S = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600),
)
_MOST_STEPS = 5
"""Seconds from tick to tick, of which the shortest is taken that gives so few."""
_RIGHT = "#1a7f37"
TEMPLATES = Path(__file__).parent / "templates"


def timeline_svg(question: dict[str, Any]) -> str:
    """Draw the relevance of a question's options over time as an SVG picture.

    Args:
        question: Of ``questions`` of a result: ``question``, ``options``, ``answer``, ``chosen``,
            ``timeline`` (a row of cosines per option), ``seconds`` and perhaps ``duration``.

    Returns:
        The SVG. The right option is green and thick and has a tick; the chosen one is marked.
    """
    rows, seconds, end = question["timeline"], question["seconds"], _end(question)
    low, high, lowest, highest = _heights(question)
    span, left = (high - low) or 1.0, _left(question)

    def place(second: float, value: float) -> str:
        x = left + (_WIDTH - left - _MARGIN) * second / end
        return f"{x:.1f},{_TOP + _HEIGHT * (high - value) / span:.1f}"

    lines: list[dict[str, Any]] = []
    below = _TOP + _HEIGHT + 42
    for number, option in enumerate(question["options"]):
        right = number == question["answer"]
        row = rows[number] if rows else []
        starts = [0.0] if len(row) == 1 else seconds  # one vector is of the whole video
        points = [place(s, v) for s, v in zip(starts, row, strict=True)]
        points += [place(end, value) for value in row[-1:]]  # what is shown last stays
        said = ("✓ " if right else "") + option + " (chosen)" * (number == question["chosen"])
        texts = textwrap.wrap(said, _LETTERS)
        lines.append(
            {
                "points": " ".join(points),
                "colour": _RIGHT if right else _COLOURS[number % len(_COLOURS)],
                "width": 3 if right else 1.5,
                "texts": [(below + _LINE * place, text) for place, text in enumerate(texts)],
                "y": below - 4,
            }
        )
        below += _LINE * len(texts)
    lines.sort(key=lambda line: float(line["width"]))  # the right one on top
    drawn = render(
        "timeline.svg.j2",
        TEMPLATES,
        title=question["question"],
        lines=lines,
        width=_WIDTH,
        height=below,
        left=left,
        right=_WIDTH - _MARGIN,
        top=_TOP,
        bottom=_TOP + _HEIGHT,
        low="" if low == high else lowest,  # level lines are drawn above
        high=highest,
        ticks=[
            {"x": place(second, low).partition(",")[0], "text": text} for second, text in ticks(end)
        ],
    )
    return visible(drawn, lines=True)


def axis(question: dict[str, Any]) -> tuple[float, float]:
    """Return where the time axis of ``timeline_svg`` begins, and its length: shares of the width.

    Args:
        question: As ``timeline_svg`` takes it.
    """
    left = _left(question)
    return left / _WIDTH, (_WIDTH - _MARGIN - left) / _WIDTH


def _end(question: dict[str, Any]) -> float:
    """Return the end of the video, or where it is not known its last frame; never 0."""
    seconds = question["seconds"]
    return float(question.get("duration") or (seconds[-1] if seconds else 0.0) or 1.0)


def _heights(question: dict[str, Any]) -> tuple[float, float, str, str]:
    """Return the lowest and the highest cosine, and how they are written."""
    values = [value for row in question["timeline"] for value in row] or [0.0, 1.0]
    low, high = min(values), max(values)
    return low, high, *told_apart(low, high, 2)


def _left(question: dict[str, Any]) -> int:
    """Leave room for what stands beside the axis: letters are 14 pixels high."""
    return max(_LEFT, 10 + 8 * max(map(len, _heights(question)[2:])))


def ticks(last: float) -> list[tuple[float, str]]:
    """Choose where a time axis from 0 has ticks, and what stands there, each something else.

    Args:
        last: Its end, seconds.
    """
    step = next((s for s in _STEPS_S if last / s <= _MOST_STEPS), math.ceil(last / _MOST_STEPS))
    seconds = [step * number for number in range(math.floor(last / step + 1e-6) + 1)]
    if step >= 1:
        return [(s, f"{s // 60}:{s % 60:02d}") for s in seconds]
    return [(s, f"{s:.{1 if step >= 0.1 else 2}f} s") for s in seconds]
