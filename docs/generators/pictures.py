"""The pictures of the pages, drawn as SVG from the numbers that they show."""

from __future__ import annotations

import math
from collections.abc import Sequence

STEPS, ROWS, COLUMNS = 3, 2, 2
"""Frames and patches of the clip in the pictures of scan orders."""
LAYERS = {
    "spatial": "SSSSSSSS",
    "temporal": "TTTTTTTT",
    "st_v1": "11111111",
    "st_v2": "22222222",
    "half_spatial_then_temporal": "SSSSTTTT",
    "half_temporal_then_spatial": "TTTTSSSS",
    "alternating": "STSTSTST",
}
"""Scan order -> what each of eight layers does: S spatial, T temporal, 1 st_v1, 2 st_v2."""
_COLOURS = {"S": "#3f51b5", "T": "#d9730d", "1": "#2e7d32", "2": "#7b1fa2"}
_FONT = 'font-family="Helvetica, Arial, sans-serif"'


def all_pictures() -> dict[str, str]:
    """Draw everything: name -> SVG."""
    return {
        "scan_spatial": scan_path("spatial", path("spatial")),
        "scan_temporal": scan_path("temporal", path("temporal")),
        "scan_layers": layers(),
        "forgetting": forgetting(),
        "state_space": state_space(),
        "stages": stages(),
    }


def path(order: str) -> list[tuple[int, int]]:
    """List (frame, patch) in the sequence of a scan from its first token to its last."""
    patches = ROWS * COLUMNS
    if order == "spatial":
        return [(t, p) for t in range(STEPS) for p in range(patches)]
    return [(t, p) for p in range(patches) for t in range(STEPS)]


def _svg(width: int, height: int, *parts: str, title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><title>{title}</title>'
    )
    marker = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>'
    )
    ground = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return head + marker + ground + "".join(parts) + "</svg>"


def _text(
    x: float, y: float, text: str, size: int = 13, colour: str = "#222", at: str = "middle"
) -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;")
    place = f'x="{x:g}" y="{y:g}" text-anchor="{at}"'
    return f'<text {place} font-size="{size}" fill="{colour}" {_FONT}>{safe}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str, line: str = "#555") -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" '
        f'stroke="{line}" stroke-width="1.2"/>'
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#555" stroke-width="1.5" '
        'marker-end="url(#a)"/>'
    )


def scan_path(order: str, places: Sequence[tuple[int, int]]) -> str:
    """Draw frames of patches with the place of each patch in the scan."""
    cell, gap, top, left = 46, 16, 40, 12
    width = left * 2 + STEPS * COLUMNS * cell + (STEPS - 1) * gap
    colour = _COLOURS["S" if order == "spatial" else "T"]
    parts, centres = [], []
    for number, (t, p) in enumerate(places, 1):
        row, column = divmod(p, COLUMNS)
        x, y = left + t * (COLUMNS * cell + gap) + column * cell, top + row * cell
        shade = 0.18 + 0.72 * (number - 1) / (len(places) - 1)
        parts.append(
            f'<rect x="{x}" y="{y}" width="{cell - 4}" height="{cell - 4}" rx="4" fill="{colour}" '
            f'fill-opacity="{shade:.2f}"/>'
        )
        centres.append((x + cell / 2 - 2, y + cell / 2 - 2))
    for number, (x, y) in enumerate(centres, 1):
        dark = number > 0.6 * len(places)
        parts.append(_text(x, y + 5, str(number), 15, "#fff" if dark else "#111"))
    for t in range(STEPS):
        x = left + t * (COLUMNS * cell + gap) + COLUMNS * cell / 2 - 2
        parts.append(_text(x, top - 12, f"frame {t + 1}"))
    bottom = top + ROWS * cell + 18
    parts.append(
        _text(width / 2, bottom, "the backward branch goes from the last to the first", 12, "#555")
    )
    return _svg(
        width, bottom + 12, *parts, title=f"The {order} path through a clip of three frames"
    )


def layers() -> str:
    """Draw what the layers of an encoder do in every scan order."""
    cell, top = 30, 18
    parts = []
    height = top
    for order, kinds in LAYERS.items():
        parts.append(_text(8, height + 4, order, 13, at="start"))
        for i, kind in enumerate(kinds):
            x, y = 8 + i * (cell + 4), height + 12
            parts.append(_box(x, y, cell, 22, _COLOURS[kind], _COLOURS[kind]))
            parts.append(_text(x + cell / 2, y + 16, kind, 13, "#fff"))
        height += 56
    for key, said in {
        "S": "spatial",
        "T": "temporal",
        "1": "forward S, backward T",
        "2": "both along both",
    }.items():
        parts.append(_box(8, height - 6, 16, 16, _COLOURS[key], _COLOURS[key]))
        parts.append(_text(32, height + 7, f"{key}: {said}", 12, at="start"))
        height += 22
    return _svg(
        290, height + 4, *parts, title="The scan of each of eight layers, the first on the left"
    )


def forgetting() -> str:
    """Draw how fast states of a channel forget, exp(dt * A * n) for the states of Mamba's start."""
    width, height, left, top, right, bottom = 340, 250, 44, 16, 12, 42
    parts = [_box(left, top, width - left - right, height - top - bottom, "#fafafa", "#bbb")]
    steps, dt = 60, 0.05

    def place(n: float, value: float) -> tuple[float, float]:
        x = left + n / steps * (width - left - right)
        return x, top + (1 - value) * (height - top - bottom)

    for state, colour in ((1, "#3f51b5"), (4, "#2e7d32"), (16, "#d9730d")):
        points = [place(n / 2, math.exp(-state * dt * n / 2)) for n in range(2 * steps + 1)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.2"/>'
        )
        at = {1: 20, 4: 6, 16: 2.6}[state]
        x, y = place(at, math.exp(-state * dt * at))
        parts.append(
            _text(x + 9, y + (12 if state == 16 else -4), f"A = -{state}", 13, colour, "start")
        )
    for value in (0, 0.5, 1):
        _, y = place(0, value)
        parts.append(_text(left - 6, y + 4, f"{value:g}", 12, "#555", "end"))
    for n in range(0, steps + 1, 20):
        x, _ = place(n, 0)
        parts.append(_text(x, height - bottom + 18, str(n), 12, "#555"))
    parts.append(_text(width / 2 + 16, height - 8, "tokens ago (step size 0.05)", 12, "#555"))
    return _svg(width, height, *parts, title="Share of a token that a state still holds")


def state_space() -> str:
    """Draw one step of the recurrence."""
    parts = [
        _box(20, 90, 84, 40, "#e8eaf6"), _text(62, 115, "state h"),
        _box(236, 90, 84, 40, "#e8eaf6"), _text(278, 115, "new h"),
        _arrow(104, 110, 234, 110), _text(170, 102, "× exp(dt · A)", 12, "#3f51b5"),
        _box(128, 190, 84, 40, "#fff3e0"), _text(170, 215, "token x"),
        _arrow(200, 190, 262, 132), _text(244, 178, "× dt · B", 12, "#d9730d", "start"),
        _box(236, 12, 84, 40, "#e8f5e9"), _text(278, 37, "output y"),
        _arrow(278, 90, 278, 54), _text(268, 76, "× C", 12, "#2e7d32", "end"),
        _text(20, 252, "dt, B and C are computed from the token: selective", 12, "#555", "start"),
    ]  # fmt: skip
    return _svg(340, 264, *parts, title="One step of the selective scan")


def stages() -> str:
    """Draw what flows where in both stages of pretraining."""
    blue, green, orange, grey = "#e8eaf6", "#e8f5e9", "#fff3e0", "#f3f3f3"

    def block(x: float, y: float, fill: str, *lines: str, width: float = 148) -> str:
        height = 16 + 17 * len(lines)
        said = [_text(x + width / 2, y + 22 + 17 * i, line) for i, line in enumerate(lines)]
        return _box(x, y, width, height, fill) + "".join(said)

    parts = [
        _text(8, 20, "Stage 1: learn to see", 15, "#111", "start"),
        block(8, 34, grey, "clip, 80 % hidden"), block(184, 34, grey, "whole clip"),
        block(8, 92, blue, "VideoMamba"), block(184, 92, orange, "CLIP, frozen"),
        block(40, 156, green, "align: visible tokens", "as the teacher's", width=260),
        _arrow(82, 67, 82, 90), _arrow(258, 67, 258, 90),
        _arrow(82, 125, 112, 154), _arrow(258, 125, 228, 154),
        _text(8, 244, "Stage 2: learn what words mean", 15, "#111", "start"),
        block(8, 258, grey, "clip or still"), block(184, 258, grey, "caption"),
        block(8, 316, blue, "VideoMamba"), block(184, 316, orange, "BERT, lower layers"),
        _arrow(82, 291, 82, 314), _arrow(258, 291, 258, 314),
        block(40, 380, green, "vtc: own pair nearest", "in the joint space", width=260),
        _arrow(82, 349, 112, 378), _arrow(258, 349, 228, 378),
        block(40, 454, orange, "upper layers look at the video", width=260),
        _arrow(170, 430, 170, 452),
        block(8, 512, green, "vtm: a pair", "or not?"),
        block(184, 512, green, "mlm: which", "word is hidden?"),
        _arrow(112, 487, 82, 510), _arrow(228, 487, 258, 510),
    ]  # fmt: skip
    return _svg(340, 572, *parts, title="Data and losses of both stages")
