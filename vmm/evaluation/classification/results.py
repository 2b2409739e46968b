"""The result file of a classification, and its tables.

``classification.json`` holds, beside what its keys say: ``numbers`` as ``measure`` gives them;
``predictions``, for each sample its key, its class number and the number that was chosen (of a
number to predict, both numbers; of several classes, the numbers of the right ones and the
probability of each; null = unreadable); ``findings`` as in a retrieval result;
``data``, ``settings``, ``model``, ``versions`` and ``command``, the protocol card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.common.results import Result, listed, text_table
from vmm.text_output import number_of


@dataclass(frozen=True, kw_only=True)
class ClassificationResult(Result):
    """A result of classification; the module says what its parts are."""

    FILE_NAME: ClassVar[str] = "classification.json"
    COMMAND: ClassVar[str] = "vmm eval classification"

    numbers: dict[str, Any]
    classes: list[str]
    predictions: list[list[Any]]

    def table(self) -> str:
        """Format it for the terminal."""
        lines = [f"{self.name}: {self.summary()}", text_table(number_rows(self), left=1)]
        if self.findings:
            lines.append(findings_text(self.findings))
        return "\n".join(lines)

    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on."""
        data, settings = self.data, self.settings
        problems = listed(data["problems"])
        coverage = {
            "strict": "strict: unreadable samples are wrong",
            "available": "available: unreadable samples are dropped",
        }
        return [
            ("test set", data["test_set"]),
            ("split hash", data["split_hash"]),
            ("files", ", ".join(data["files"])),
            ("samples", f"{data['listed']} listed, {data['readable']} readable"
                        + f" ({problems})" * bool(problems)),
            ("classes", f"{data['classes']}, numbered by {data['numbered_by']}"
                        if data["classes"] else "a number to predict, in the unit of the file"),
            ("coverage", coverage[data["coverage"]]),
            ("kind", settings["kind"]),
            ("prompts", ", ".join(map(repr, settings["templates"])) or "none"),
            ("views", f"{number_of(settings['clips'], 'clip')} x "
                      f"{number_of(settings['crops'], 'crop')}, merged by sample: "
                      f"{settings['merged']}"),
            *self.look(settings.get("frame_order", "forward")),
            ("ties", "expectation over random order"),
            *self.origin(),
        ]  # fmt: skip

    def summary(self) -> str:
        """Say in a line what was measured."""
        data, settings = self.data, self.settings
        views = settings["clips"] * settings["crops"]
        unreadable = data["listed"] - data["readable"]
        frames = number_of(settings["num_frames"], "frame")
        if settings.get("media") == "image":
            frames = "a still"
        counted = {"strict": "counted as wrong", "available": "left out"}[data["coverage"]]
        return (
            f"{data['test_set']}, {settings['kind']}: {number_of(data['listed'], 'sample')}"
            + f" ({unreadable} unreadable, {counted})" * bool(unreadable)
            + f", {number_of(views, 'view')} of {frames}"
            + " reversed" * (settings.get("frame_order") == "reversed")
        )


def number_rows(result: ClassificationResult) -> list[list[str]]:
    """Tabulate the numbers, header first."""
    numbers = result.numbers
    if "mse" in numbers:
        rows = [["mean squared error", f"{numbers['mse']:.4f}", _span(numbers, "mse", 4)]]
        rows.append(["always their mean", f"{numbers['constant']:.4f}", ""])
        return [["", "error", "95 % interval"], *rows]
    if "mean_average_precision" in numbers:
        name = "mean_average_precision"
        span = _span(numbers, name, 1) if "interval" in numbers else ""  # older files have none
        rows = [["mean average precision", f"{numbers[name]:.1f}", span]]
        rows.append(["equal scores", f"{numbers['constant']:.1f}", ""])
        return [["", "percent", "95 % interval"], *rows]
    rows = [["", "percent", "95 % interval"]]
    named = {"top-1": "top_1"} | ({"top-5": "top_5"} if len(result.classes) > 5 else {})
    for name, key in named.items():
        rows.append([name, f"{numbers[key]:.1f}", _span(numbers, key, 1)])
    rows.append(["mean over classes", f"{numbers['mean_class']:.1f}", ""])
    rows.append(["most frequent class", f"{numbers['majority']:.1f}", ""])
    rows.append(["chance", f"{numbers['chance']:.1f}", ""])
    return rows


def _span(numbers: dict[str, Any], key: str, digits: int) -> str:
    low, high = numbers["interval"][key]
    return f"{low:.{digits}f} to {high:.{digits}f}"
