"""The result file of a classification, its tables and its page.

``classification.json`` holds, beside what its keys say: ``numbers`` as
``eval.classes.measure`` gives them; ``predictions``, for each sample its key, its class number and
the number that was chosen (of a number to predict, both numbers; null = unreadable); ``findings``
as in a retrieval result; ``data``, ``settings``, ``model``, ``versions`` and ``command``, the
protocol card.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eval.classes.protocols import published_accuracy
from eval.command import write_accuracy_page
from eval.report.pictures import png, shortened
from eval.results import findings_text, origin_rows, text_table

SCHEMA = 1
FILE_NAME = "classification.json"

_MOST_IN_MAP = 200
_WORST = 20
_LETTERS = 40


def number_rows(result: dict[str, Any]) -> list[list[str]]:
    """Tabulate the numbers, header first."""
    numbers = result["numbers"]
    if "mse" in numbers:
        rows = [["mean squared error", f"{numbers['mse']:.4f}", _span(numbers, "mse", 4)]]
        rows.append(["always their mean", f"{numbers['constant']:.4f}", ""])
        return [["", "error", "95 % interval"], *rows]
    rows = [["", "percent", "95 % interval"]]
    named = {"top-1": "top_1"} | ({"top-5": "top_5"} if len(result["classes"]) > 5 else {})
    for name, key in named.items():
        rows.append([name, f"{numbers[key]:.1f}", _span(numbers, key, 1)])
    rows.append(["mean over classes", f"{numbers['mean_class']:.1f}", ""])
    rows.append(["most frequent class", f"{numbers['majority']:.1f}", ""])
    rows.append(["chance", f"{numbers['chance']:.1f}", ""])
    return rows


def class_table(result: dict[str, Any]) -> str:
    """Format a result for the terminal."""
    lines = [f"{result['name']}: {_summary(result)}", text_table(number_rows(result), left=1)]
    if result["findings"]:
        lines.append(findings_text(result["findings"]))
    return "\n".join(lines)


def class_card(result: dict[str, Any]) -> list[tuple[str, str]]:
    """List everything that the numbers depend on."""
    data, settings = result["data"], result["settings"]
    problems = ", ".join(f"{n} {reason}" for reason, n in data["problems"].items())
    return [
        ("test set", data["test_set"]),
        ("split hash", data["split_hash"]),
        ("files", ", ".join(data["files"])),
        ("samples", f"{data['listed']} listed, {data['readable']} readable"
                    + f" ({problems})" * bool(problems)),
        ("classes", f"{data['classes']}, numbered by {data['numbered_by']}"
                    if data["classes"] else "a number to predict, in the unit of the file"),
        ("coverage", {"strict": "strict: unreadable samples are wrong",
                      "available": "available: unreadable samples are dropped"}[data["coverage"]]),
        ("kind", settings["kind"]),
        ("prompts", ", ".join(map(repr, settings["templates"])) or "none"),
        ("views", f"{settings['clips']} clips x {settings['crops']} crops, merged by sample: "
                  f"{settings['merged']}"),
        ("frames", f"{settings['num_frames']}, sampling {settings['sampling']!r} without draws"),
        ("resolution", f"{settings['image_size']} pixels, {settings['fit']}"),
        ("ties", "expectation over random order"),
        *origin_rows(result),
    ]  # fmt: skip


def write_class_page(path: Path, result: dict[str, Any]) -> None:
    """Write the page of a result."""
    tables, pictures = {}, {}
    headline = "mse" if "mse" in result["numbers"] else "top_1"
    others = published_accuracy(result["data"]["test_set"])
    if others:
        rows = [["model", headline.replace("_", "-")]]
        rows.append([result["name"], f"{result['numbers'][headline]:.2f}"])
        tables["Beside published numbers, of classifiers trained on the set"] = rows + [
            [other.model, f"{other.value:.2f}"] for other in others
        ]
    if headline == "top_1":
        classes = sorted(result["numbers"]["per_class"], key=lambda c: float(c["top_1"]))
        title = "Classes" if len(classes) <= _WORST else f"The {_WORST} worst classes"
        tables[title] = [["class", "samples", "top-1", "most often taken for"]] + [
            [c["name"], str(c["samples"]), f"{c['top_1']:.1f}", c["taken_for"] or ""]
            for c in classes[:_WORST]
        ]
        picture = base64.b64encode(png(_confusions(result))).decode("ascii")
        pictures["What (rows) is taken for what (columns)"] = f"data:image/png;base64,{picture}"
    write_accuracy_page(
        path,
        title=f"{result['name']} on {result['data']['test_set']}",
        summary=_summary(result),
        table=number_rows(result),
        note="Intervals are drawn over videos. Most frequent class: the share of samples that "
        "always saying it would get right, which needs no video."
        if headline == "top_1"
        else "The interval is drawn over videos.",
        tables=tables,
        findings=result["findings"],
        pictures=pictures,
        card=class_card(result),
    )


def _summary(result: dict[str, Any]) -> str:
    data, settings = result["data"], result["settings"]
    views = settings["clips"] * settings["crops"]
    unreadable = data["listed"] - data["readable"]
    counted = {"strict": "counted as wrong", "available": "left out"}[data["coverage"]]
    return (
        f"{data['test_set']}, {settings['kind']}: {data['listed']} samples"
        + f" ({unreadable} unreadable, {counted})" * bool(unreadable)
        + f", {views} view{'s' * (views > 1)} of {settings['num_frames']} frames"
    )


def _span(numbers: dict[str, Any], key: str, digits: int) -> str:
    low, high = numbers["interval"][key]
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _confusions(result: dict[str, Any]) -> Figure:
    """Draw the share of each class that is taken for each other one."""
    pairs = [p[1:] for p in result["predictions"] if p[2] is not None and p[1] >= 0]
    names = [str(name) for name in result["classes"]][:_MOST_IN_MAP]
    counts = np.zeros((len(names), len(names)))
    for label, predicted in pairs:
        if max(label, predicted) < len(names):
            counts[label, predicted] += 1
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5.2), dpi=110, layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(100 * shares, vmin=0, vmax=100, cmap="viridis")
    if len(names) <= 30:
        names = [shortened(name, _LETTERS) for name in names]
        style: dict[str, Any] = {"fontsize": 8, "parse_math": False}
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", **style)
        ax.set_yticks(range(len(names)), names, **style)
    figure.colorbar(image, ax=ax, label="percent of the row's class")
    return figure
