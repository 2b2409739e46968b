"""The result file of a question-answering evaluation: what it holds, and the tables made of it.

``qa.json`` holds, beside what its keys say (accuracies and differences in percent, ``error`` = one
clustered standard error, see ``vmm.evaluation.common.clustered``):

``headline``
    The method that is compared with the controls: the published mixture, or without a matching
    head the similarity.
``accuracy``, ``minus_blank``
    Of every method; the latter of scores from which those of a blank video were subtracted, which
    takes away what a text scores by itself.
``controls``
    Of every control, and ``lead``: how far the headline is above it, paired by question.
``by_type``, ``by_duration``
    The headline and the controls for a class of questions; ``lead`` is over the best of these.
``mean_over_types``
    Mean of the types' accuracies, each type counting alike.
``verdict``
    Whether the video helped, in a sentence.
``questions``
    Of every question what was asked and chosen, the scores, and the relevance of each option along
    the time axis (``timeline``, a row per option, at ``seconds``; ``duration`` is the video's).
``accuracy`` is null where no answer is public; then so is all that depends on it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.common.results import ResultWithNumbers, listed, resolution, text_table
from vmm.evaluation.long_video_qa.measure import CONTROLS, METHODS
from vmm.text_output import number_of, write_text

SUBMISSION = "submission.csv"
_NUMBERS = ("headline", "accuracy", "minus_blank", "controls", "by_type", "by_duration",
            "mean_over_types", "verdict")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QaResult(ResultWithNumbers):
    """A result of questions with options; the module says what its parts are."""

    FILE_NAME: ClassVar[str] = "qa.json"
    NUMBERS: ClassVar[tuple[str, ...]] = _NUMBERS
    COMMAND: ClassVar[str] = "vmm eval long-video-qa"

    questions: list[dict[str, Any]]

    def table(self) -> str:
        """Format it for the terminal."""
        data, lines = self.data, []
        hidden = f", {data['hidden']} without a public answer" if data["hidden"] else ""
        questions = number_of(data["questions"], "question")
        videos = number_of(data["videos"]["listed"], "video")
        lines.append(
            f"{self.name} on {data['test_set']}: {questions} about "
            f"{videos} ({data['videos']['unreadable']} unreadable{hidden})"
        )
        numbers = self.numbers
        if numbers is None:
            lines.append(
                f"no answer is public here: nothing can be measured; {SUBMISSION} has the choices"
            )
        else:
            lines.append(text_table(accuracy_rows(numbers), left=1))
            lines.append(text_table(class_rows(numbers["by_type"]), left=1))
            lines.append(text_table(class_rows(numbers["by_duration"]), left=1))
            mean = data["mean_over_types"] or "mean over types"
            lines.append(f"{mean}: {numbers['mean_over_types']:.1f}")
            lines.append(numbers["verdict"])
        if self.findings:
            lines.append(findings_text(self.findings))
        return "\n\n".join(lines)

    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on, as pairs of a name and a value."""
        data, settings = self.data, self.settings
        videos = data["videos"]
        problems = listed(videos["problems"])
        left_out = ", ".join(f"{n} with {reason}" for reason, n in data["left_out"].items())
        frames = (
            f"{settings['num_frames']} over the whole video"
            if settings["fps"] is None
            else f"{settings['fps']:g} per second"
        )
        passes = (
            "whole video in one pass"
            if settings["window"] is None
            else f"windows of {settings['window']} frames, {settings['aggregate']}"
        )
        return [
            ("test set", data["test_set"]),
            ("questions", f"{data['questions']}, {data['measured']} with a known answer"
                          + (f"; left out: {left_out}" if left_out else "")),
            ("questions' hash", data["hash"]),
            ("files", ", ".join(data["files"])),
            ("videos", f"{videos['listed']} listed, {videos['readable']} readable"
                       + (f" ({problems})" if problems else "")),
            ("coverage", "strict: questions about unreadable videos count as wrong"
             if settings["coverage"] == "strict"
             else "available: questions about unreadable videos are dropped"),
            ("text of an option", settings["prompt"]),
            ("subtitles", "none"),
            ("frames", frames),
            ("seen", passes),
            ("resolution", resolution(settings)),
            ("temperature", f"{settings['temperature']:.4f}"),
            ("ties", "each of the best options is chosen equally often"),
            ("errors", "one standard error, clustered by video"),
            *self.origin(),
        ]  # fmt: skip


def accuracy_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """List methods and controls, header first."""
    rows = [["", "accuracy", "± error", "first line's lead", "lead / its error"]]
    methods = [numbers["headline"], *(m for m in numbers["accuracy"] if m != numbers["headline"])]
    for method in methods:
        rows.append([METHODS[method], *_number(numbers["accuracy"][method]), "", ""])
    for method in methods:
        name = f"{method}, minus its score of a blank video"
        rows.append([name, *_number(numbers["minus_blank"][method]), "", ""])
    for control, title in CONTROLS.items():
        found = numbers["controls"][control]
        rows.append([title, *_number(found), *_distance(found["lead"])])
    return rows


def class_rows(classes: dict[str, Any]) -> list[list[str]]:
    """List the classes of ``by_type`` or ``by_duration``, header first."""
    rows = [["", "questions", "accuracy", "± error", "shuffled", "blank", "no video", "chance",
             "lead", "lead / its error"]]  # fmt: skip
    for name, found in classes.items():
        shown = (found["controls"][c] for c in ("shuffled", "blank", "blind", "chance"))
        rows.append(
            [name, str(found["questions"]), *_number(found), *(f"{v:.1f}" for v in shown),
             *_distance(found["lead"])]
        )  # fmt: skip
    return rows


def write_submission(path: Path, id_column: str, questions: Sequence[dict[str, Any]]) -> None:
    """Write the chosen options for a test server: CSV of id and position.

    A question whose video cannot be read gets option 0: servers want every question answered.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([id_column, "answer"])
    writer.writerows([q["key"], q["chosen"] or 0] for q in questions)
    write_text(path, table.getvalue())


def _number(found: dict[str, Any]) -> list[str]:
    error = found["error"]
    return [f"{found['accuracy']:.1f}", "-" if error is None else f"{error:.1f}"]


def _distance(lead: dict[str, Any]) -> list[str]:
    mean, error = lead["accuracy"], lead["error"]
    return [f"{mean:.1f}", f"{mean / error:.1f}" if error else "-"]
