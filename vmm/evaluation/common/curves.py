"""The curves of a training: read, drawn as SVG and said in words."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vmm.evaluation.common.page import render
from vmm.metrics import METRICS

_MEANINGS = {
    "loss": "What training makes small: the sum of all losses, each times its weight",
    "vtc": "Video-text contrastive loss: of all captions of a batch each clip must pick its own, "
    "and each caption its clip. Guessing gives the logarithm of the number of candidates, e.g. 2.1 "
    "for a batch of 8 and 4.2 for one of 64; the sigmoid loss has another scale",
    "vtm": "Video-text matching loss: the matching head tells a clip with its caption from "
    "similar pairs that do not belong together. Guessing gives about 0.64",
    "mlm": "Masked language loss: hidden words of a caption are guessed from the others and the "
    "clip",
    "align": "Alignment loss: distance of the features from those of the frozen teacher; "
    "0 = alike, 2 = unrelated",
    "answer": "Loss of the answer, given the question and the clip",
    "classification": "Loss of the classes alone",
    "distillation": "Distance of the features from those of the smaller teacher",
    "vtc_t2v_accuracy": "Share of the captions of a batch that find their clip in it",
    "vtc_v2t_accuracy": "Share of the clips of a batch that find their caption in it",
    "temperature": "Similarities are divided by it; it is learnt, and falls as the model gets "
    "surer",
    "logit_bias": "Learnt bias of the sigmoid loss",
    "grad_norm": "Length of the gradient before it is clipped",
    "top_1": "Samples whose class comes first, percent",
    "top_5": "Samples whose class is among the first five, percent",
    "accuracy": "Questions that are answered right, percent",
    "mean_average_precision": "Mean over the classes of the average precision, percent",
    "mse": "Mean squared error of the predicted numbers",
    "recall_mean": "Mean of all recalls below, percent",
    "ties": "Queries whose target shares its score with a wrong candidate",
}
"""Last part of a curve's name -> what it is."""

_DIRECTIONS = {"t2v": "captions that look for their clip", "v2t": "clips that look for a caption"}
_PARTS = {"train": "training", "val": "validation"}
_OF_RANKS = {name: metric.title for name, metric in METRICS.items()}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 340, 170, 52, 10, 24, 14
_MOST_POINTS = 400
_TEMPLATES = Path(__file__).parent / "templates"


class Curve(NamedTuple):
    """A logged quantity over optimizer steps."""

    name: str
    steps: list[int]
    values: list[float]

    @property
    def varies(self) -> bool:
        """Whether there is something to draw: more than one point, and not always the same."""
        return len(set(self.steps)) > 1 and len(set(self.values)) > 1


def meaning(name: str) -> str:
    """Say what a curve shows; empty if nobody knows."""
    last = name.rpartition("/")[2]
    direction, _, rest = last.partition("_")
    if direction in _DIRECTIONS and rest in _OF_RANKS:
        whose = _DIRECTIONS[direction]
        if rest.startswith("recall_") and rest != "recall_mean":
            depth = rest.removeprefix("recall_")
            found = "first" if depth == "1" else f"among the first {depth}"
            return f"Of the {whose}, the percentage that finds it {found} ({_OF_RANKS[rest]})"
        of = " of the recalls, percent" if rest == "recall_mean" else " of the right one"
        return f"Of the {whose}: {_OF_RANKS[rest]}{of}"
    return _MEANINGS.get(last, "")


def read_curves(path: Path, parts: Sequence[str] = ("train", "val")) -> list[Curve]:
    """Read what Lightning's CSVLogger wrote.

    Args:
        path: A run's ``metrics.csv``.
        parts: What the names of the wanted columns begin with, before the slash.

    Raises:
        ValueError: If the file is missing or its numbers cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}; give a run directory of `vmm fit`")
    wanted = tuple(f"{part}/" for part in parts)
    curves: dict[str, Curve] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of a run, it is damaged: {error}") from error
    for row in rows:
        for name, text in row.items():
            if not text or not isinstance(name, str) or not name.startswith(wanted):
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


def panels(curves: Sequence[Curve]) -> list[dict[str, str]]:
    """Draw every curve that varies: ``name``, ``meaning``, ``last`` and ``svg`` of each."""
    drawn = [curve for curve in curves if curve.varies]
    return [
        {
            "name": curve.name,
            "meaning": meaning(curve.name),
            "last": f"{curve.values[-1]:.4g}",
            "svg": _svg(curve),
        }
        for curve in sorted(drawn, key=_place)
    ]


def levels(curves: Sequence[Curve]) -> list[list[str]]:
    """Tabulate those that a curve would not show, header first: name, value, step, meaning."""
    flat = sorted((curve for curve in curves if not curve.varies), key=_place)
    rows = [
        [
            curve.name,
            f"{curve.values[-1]:.4g}",
            f"{curve.steps[-1]:,}" if len(curve.steps) == 1 else "all",
            meaning(curve.name),
        ]
        for curve in flat
    ]
    return [["", "value", "step", ""], *rows] if rows else []


def _place(curve: Curve) -> tuple[int, int, str]:
    """Sort by what says most: losses in the order of their explanations, then validation."""
    part, _, last = curve.name.partition("/")
    known = list(_MEANINGS)
    return part != "train", known.index(last) if last in known else len(known), curve.name


def _svg(curve: Curve) -> str:
    low, high = min(curve.values), max(curve.values)
    first, last = min(curve.steps), max(curve.steps)
    lowest, highest = told_apart(low, high, 3)
    left = max(_LEFT, 8 + 7 * max(len(lowest), len(highest)))  # letters are 12 pixels high

    def points(values: Sequence[float]) -> Iterator[str]:
        stride = math.ceil(len(values) / _MOST_POINTS)
        for number in sorted({*range(0, len(values), stride), len(values) - 1}):
            share = (curve.steps[number] - first) / (last - first)
            height = (high - values[number]) / (high - low)
            x = left + (_WIDTH - left - _RIGHT) * share
            yield f"{x:.1f},{_TOP + (_HEIGHT - _TOP - _BOTTOM) * height:.1f}"

    few = len(curve.values) < 8
    content: dict[str, Any] = {
        "width": _WIDTH, "height": _HEIGHT, "left": left, "right": _WIDTH - _RIGHT,
        "top": _TOP, "bottom": _HEIGHT - _BOTTOM, "name": curve.name,
        "high": highest, "low": lowest, "first": f"{first:,}", "last": f"{last:,}",
        "raw": " ".join(points(curve.values)), "dots": list(points(curve.values)) if few else [],
        "smooth": "" if few else " ".join(points(_smooth(curve.values))),
    }  # fmt: skip
    return render("curve.svg.j2", _TEMPLATES, **content)


def told_apart(low: float, high: float, digits: int) -> tuple[str, str]:
    """Write two numbers with so many digits, or more if they would look the same."""
    for more in range(digits, 18):
        pair = f"{low:.{more}g}", f"{high:.{more}g}"
        if pair[0] != pair[1] or low == high:
            break
    return pair


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
