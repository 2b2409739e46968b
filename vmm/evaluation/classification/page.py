"""The page of a classification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vmm.evaluation.classification.results import ClassificationResult, number_rows
from vmm.evaluation.common.class_protocols import published_accuracy
from vmm.evaluation.common.page import write_accuracy_page
from vmm.evaluation.common.pictures import DPI, WIDE, png, shortened
from vmm.evaluation.common.published import source_of
from vmm.evaluation.common.strips import SHOWN
from vmm.pages import data_uri

_MOST_IN_MAP = 200
_WORST = 20
_LETTERS = 40


_NOTES = {
    "mse": "The interval is drawn over videos.",
    "mean_average_precision": "The interval is drawn over videos. Equal scores: the mean share of "
    "the samples that a class has.",
}


def wrong_samples(result: ClassificationResult) -> list[int]:
    """Choose the samples that the page shows: wrong ones, at even distances; by their row."""
    if "top_1" not in result.numbers:
        return []
    wrong = [
        row
        for row, (_, label, chosen) in enumerate(result.predictions)
        if chosen is not None and label != chosen and label >= 0
    ]
    places = np.linspace(0, len(wrong) - 1, min(SHOWN, len(wrong)))
    return [wrong[int(place)] for place in places]


def write_page(
    path: Path,
    result: ClassificationResult,
    clips: Mapping[int, str] | None = None,
    files: Mapping[int, str] | None = None,
) -> None:
    """Write the page of a result.

    Args:
        path: The HTML file.
        result: As it is written.
        clips: Row of a sample -> data URI of a picture of it; None: there are none.
        files: Row of a sample -> name of its file, where that is known; others have their key.
    """
    tables, pictures = {}, {}
    headline = next(n for n in ("mse", "mean_average_precision", "top_1") if n in result.numbers)
    others = published_accuracy(result.data["test_set"])
    if others:
        rows = [["model", headline.replace("_", "-"), "source"]]
        rows.append([result.name, f"{result.numbers[headline]:.2f}", "this result"])
        tables["Beside published numbers, of classifiers trained on the set"] = rows + [
            [other.model, f"{other.value:.2f}", source_of(other.model)[1]] for other in others
        ]
    if headline == "top_1":
        classes = sorted(result.numbers["per_class"], key=lambda c: float(c["top_1"]))
        title = "Classes" if len(classes) <= _WORST else f"The {_WORST} worst classes"
        tables[title] = [["class", "samples", "top-1", "most often taken for"]] + [
            [c["name"], str(c["samples"]), f"{c['top_1']:.1f}", c["taken_for"] or ""]
            for c in classes[:_WORST]
        ]
        rows = [["clip", "sample", "class", "taken for"]]
        for row in wrong_samples(result):
            key, label, chosen = result.predictions[row]
            names = [str(result.classes[number]) for number in (label, chosen)]
            shown = (clips or {}).get(row, "not shown")
            rows.append([shown, (files or {}).get(row) or str(key), *names])
        if len(rows) > 1:
            tables["Some wrong answers, at even distances"] = rows
        picture = data_uri("image/png", png(confusion_map(result)))
        pictures["What (rows) is taken for what (columns)"] = picture
    write_accuracy_page(
        path,
        title=f"{result.name} on {result.data['test_set']}",
        summary=result.summary(),
        table=number_rows(result),
        note="Intervals are drawn over videos. Most frequent class: the share of samples that "
        "always saying it would get right, which needs no video."
        if headline == "top_1"
        else _NOTES[headline],
        tables=tables,
        findings=result.findings,
        pictures=pictures,
        card=result.card(),
    )


def confusion_map(result: ClassificationResult) -> Figure:
    """Draw the share of each class that is taken for each other one."""
    pairs = [p[1:] for p in result.predictions if p[2] is not None and p[1] >= 0]
    names = [str(name) for name in result.classes][:_MOST_IN_MAP]
    counts = np.zeros((len(names), len(names)))
    for label, predicted in pairs:
        if max(label, predicted) < len(names):
            counts[label, predicted] += 1
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(WIDE, 3.8), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(100 * shares, vmin=0, vmax=100, cmap="viridis")
    if len(names) <= 30:
        names = [shortened(name, _LETTERS) for name in names]
        style: dict[str, Any] = {"fontsize": 8, "parse_math": False}
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", **style)
        ax.set_yticks(range(len(names)), names, **style)
    figure.colorbar(image, ax=ax, label="percent of the row's class")
    return figure
