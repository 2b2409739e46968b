"""The result file of an evaluation of moments: what it holds, and the tables made of it.

``grounding.json`` holds, beside what its keys say (numbers in percent, ``error`` = one clustered
standard error, see ``vmm.evaluation.common.clustered``):

``headline``, ``metric``
    The method that is compared with the controls, the head if there is one, and the number by
    which.
``metrics``
    Method or control -> number -> ``value`` and ``error``. ``R1@0.5`` is the share of sentences
    whose first window has an IoU of 0.5 or more with a moment, ``R5@0.5`` one of the first five;
    ``mIoU`` the mean IoU of the first; ``mAP@0.5`` the average precision at that IoU, ``mAP`` its
    mean over 0.5, 0.55 ... 0.95. Of highlights ``HIT@1 VeryGood`` and ``HL-mAP VeryGood`` with
    clips that somebody marked 4 ("very good"), ``Good`` 3 or more, ``Fair`` 2 or more.
``lead``
    How far the headline is above each control, paired by sentence.
``gain``
    How far the head is above the curve; null without one.
``by_length``
    The same numbers for moments of some lengths: over 0 to 10, 30, 150 seconds, and longer.
``recall``
    R@1 over the IoU that is asked for.
``verdict``
    Whether the video helped, in a sentence.
``queries``
    Of every sentence what was found: the headline's ``windows``, the ``curve`` at ``seconds``.
``metrics`` is null where no moment is public; then so is all that depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.common.results import ResultWithNumbers, listed, resolution, text_table
from vmm.evaluation.grounding.measure import CONTROLS, METHODS, Answers
from vmm.evaluation.grounding.metrics import RANGES
from vmm.evaluation.grounding.proposals import LEVELS, OVERLAP, WIDTHS
from vmm.evaluation.grounding.protocols import MomentQuery
from vmm.text_output import number_of, write_text

SUBMISSION = "submission.jsonl"
TITLES = METHODS | CONTROLS
_NUMBERS = ("headline", "metric", "metrics", "lead", "gain", "by_length", "recall", "verdict")
_SHOWN = ("R1@0.3", "R1@0.5", "R1@0.7", "R5@0.5", "R5@0.7", "mIoU", "mAP@0.5", "mAP@0.75", "mAP")
_OF_LENGTHS = ("R1@0.5", "R1@0.7", "mAP")


@dataclass(frozen=True, kw_only=True)
class GroundingResult(ResultWithNumbers):
    """A result of moments and highlights; the module says what its parts are."""

    FILE_NAME: ClassVar[str] = "grounding.json"
    NUMBERS: ClassVar[tuple[str, ...]] = _NUMBERS
    COMMAND: ClassVar[str] = "vmm eval grounding"

    queries: list[dict[str, Any]]

    def summary(self) -> str:
        """Say what was asked."""
        data = self.data
        hidden = f", {data['hidden']} without public moments" if data["hidden"] else ""
        videos = number_of(data["videos"]["listed"], "video")
        return (
            f"{number_of(data['queries'], 'sentence')} about {videos} "
            f"({data['videos']['unreadable']} unreadable{hidden})"
        )

    def table(self) -> str:
        """Format it for the terminal."""
        lines = [f"{self.name} on {self.data['test_set']}: {self.summary()}"]
        if self.numbers is None:
            lines.append(
                f"no moment is public here: nothing can be measured; {SUBMISSION} has the windows"
            )
        else:
            lines += [text_table(rows, left=1) for rows in self.tables().values()]
            lines.append(self.numbers["verdict"])
        if self.findings:
            lines.append(findings_text(self.findings))
        return "\n\n".join(lines)

    def tables(self) -> dict[str, list[list[str]]]:
        """List the numbers as tables, title -> rows, header first."""
        numbers = self.numbers
        if numbers is None:
            return {}
        tables = {"Moments": moment_rows(numbers)}
        if rows := highlight_rows(numbers):
            tables["Highlights"] = rows
        if self.data["ranges"] or len(numbers["by_length"]) > 1:
            tables["By length of the moments"] = length_rows(numbers)
        return tables | {f"Lead of the {TITLES[numbers['headline']]}": lead_rows(numbers)}

    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on, as pairs of a name and a value."""
        data, settings = self.data, self.settings
        videos, head = data["videos"], settings["head"]
        problems = listed(videos["problems"])
        left_out = ", ".join(f"{n} with {reason}" for reason, n in data["left_out"].items())
        frames = (
            f"{settings['num_frames']} over the whole video"
            if settings["fps"] is None
            else f"{settings['fps']:g} per second"
        )
        window = settings["window"]
        return [
            ("test set", data["test_set"]),
            ("sentences", f"{data['queries']}, {data['measured']} with known moments"
                          + (f"; left out: {left_out}" if left_out else "")),
            ("sentences' hash", data["hash"]),
            ("files", ", ".join(data["files"])),
            ("moments beyond the video", f"{data['beyond']}, which end with it"),
            ("videos", f"{videos['listed']} listed, {videos['readable']} readable"
                       + (f" ({problems})" if problems else "")),
            ("coverage", "strict: sentences about unreadable videos are misses"
             if settings["coverage"] == "strict"
             else "available: sentences about unreadable videos are dropped"),
            ("frames", frames),
            ("seen", "whole video in one pass" if window is None
             else f"windows of {window} frames"),
            ("windows from the curve", f"above {LEVELS} levels of the curve, and smoothed over "
             f"{', '.join(map(str, WIDTHS[1:]))} frames; scored by the variance between inside and "
             f"outside; non-maximum suppression at IoU {OVERLAP}"),
            ("head", "none" if head is None else
             f"sha256 {head['sha256']}, trained on {head['sentences']} sentences about "
             f"{head['videos']} videos in {head['steps']} steps"),
            ("prior", f"of {data['training']} training sentences" if data["training"] else "none"),
            ("right", "an IoU of at least so much with any of the moments"),
            ("resolution", resolution(settings)),
            ("errors", "one standard error, clustered by video"),
            *self.origin(),
        ]  # fmt: skip


def moment_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """List methods and controls, header first."""
    rows = [["", *_SHOWN]]
    for name, own in numbers["metrics"].items():
        rows.append([TITLES[name], *(_number(own[key]) for key in _SHOWN)])
    return rows


def highlight_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """List highlights, header first; nothing where there are none."""
    keys = [key for key in numbers["metrics"]["curve"] if key.startswith(("HIT", "HL"))]
    if not keys:
        return []
    keys.sort(key=lambda key: ("VeryGood" not in key, "Good" not in key))
    own = numbers["metrics"].items()
    return [["", *keys], *([TITLES[n], *(_number(found[k]) for k in keys)] for n, found in own)]


def length_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """List the lengths of moments, header first."""
    headline, lengths = numbers["headline"], numbers["by_length"]
    shown = [name for name in (headline, "curve", "prior", "whole") if name in numbers["metrics"]]
    rows = [["", "sentences", *_OF_LENGTHS]]
    for title, found in lengths.items():
        most = f" (to {RANGES[title][1]:g} s)" if title in RANGES else ""
        for name in dict.fromkeys(shown):
            own = found["methods"][name]
            values = (_number(own[key]) for key in _OF_LENGTHS)
            rows.append([f"{title}{most}: {TITLES[name]}", str(found["queries"]), *values])
    return rows


def lead_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """List how far the headline is above each control, header first."""
    rows = [["above", numbers["metric"], "lead / its error"]]
    leads = numbers["lead"] | ({"curve": numbers["gain"]} if numbers["gain"] else {})
    for name, lead in leads.items():
        error = lead["error"]
        rows.append([TITLES[name], _number(lead), f"{lead['value'] / error:.1f}" if error else "-"])
    return rows


def write_submission(
    path: Path, queries: Sequence[MomentQuery], videos: Sequence[str], answers: Sequence[Answers]
) -> None:
    """Write what was found in the layout that QVHighlights's script and test server read.

    Args:
        path: The file to write.
        queries: All sentences.
        videos: Names of the videos.
        answers: To the sentences; an unreadable video gets a window of no length.
    """
    lines = []
    for query, own in zip(queries, answers, strict=True):
        found = own.get("head") or own.get("curve")
        entry = {
            "qid": int(query.key) if query.key.isdecimal() else query.key,
            "query": query.text,
            "vid": videos[query.video],
            "pred_relevant_windows": found.windows.round(4).tolist() if found else [[0, 0, 0]],
            "pred_saliency_scores": found.clips.round(6).tolist() if found else [0.0],
        }
        lines.append(json.dumps(entry) + "\n")
    write_text(path, "".join(lines))


def _number(found: dict[str, Any]) -> str:
    error = found["error"]
    return f"{found['value']:.1f}" + ("" if error is None else f" ±{error:.1f}")
