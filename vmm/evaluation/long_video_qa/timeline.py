"""A picture per question: how relevant each option is along the time axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmm.evaluation.common.page import render
from vmm.text_output import visible

_WIDTH, _HEIGHT, _LEFT, _TOP, _MARGIN = 560, 150, 48, 8, 24
_COLOURS = ("#0969da", "#bf3989", "#bc4c00", "#8250df", "#57606a", "#9a6700")
_RIGHT = "#1a7f37"
TEMPLATES = Path(__file__).parent / "templates"


def timeline_svg(question: dict[str, Any]) -> str:
    """Draw the relevance of a question's options over time as an SVG picture.

    Args:
        question: Of ``questions`` of a result: ``question``, ``options``, ``answer``, ``chosen``,
            ``timeline`` (a row of cosines per option) and ``seconds``.

    Returns:
        The SVG. The right option is green and thick and has a tick; the chosen one is marked.
    """
    rows, seconds = question["timeline"], question["seconds"]
    values = [value for row in rows for value in row] or [0.0, 1.0]
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, (seconds[-1] if seconds else 0.0) or 1.0

    def place(second: float, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _MARGIN) * second / last
        return f"{x:.1f},{_TOP + _HEIGHT * (high - value) / span:.1f}"

    lines = []
    for number, option in enumerate(question["options"]):
        right = number == question["answer"]
        points = [place(s, v) for s, v in zip(seconds, rows[number] if rows else [], strict=True)]
        if len(points) == 1:  # one vector for the whole video: a level line
            points = [place(0.0, rows[number][0]), place(last, rows[number][0])]
        lines.append(
            {
                "points": " ".join(points),
                "colour": _RIGHT if right else _COLOURS[number % len(_COLOURS)],
                "width": 3 if right else 1.5,
                "label": ("✓ " if right else "") + option,
                "note": " (chosen)" if number == question["chosen"] else "",
                "y": _TOP + _HEIGHT + 42 + 19 * number,
            }
        )
    lines.sort(key=lambda line: float(line["width"]))  # the right one on top
    drawn = render(
        "timeline.svg.j2",
        TEMPLATES,
        title=question["question"],
        lines=lines,
        width=_WIDTH,
        height=_TOP + _HEIGHT + 42 + 19 * len(lines),
        left=_LEFT,
        right=_WIDTH - _MARGIN,
        top=_TOP,
        bottom=_TOP + _HEIGHT,
        low=f"{low:.2f}",
        high=f"{high:.2f}",
        ticks=[
            {"x": f"{_LEFT + (_WIDTH - _LEFT - _MARGIN) * i / 4:.1f}", "text": _clock(last * i / 4)}
            for i in range(5)
        ],
    )
    return visible(drawn, lines=True)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
