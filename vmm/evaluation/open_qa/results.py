"""The result file of an evaluation of open questions, and its tables.

``open_qa.json`` holds, beside what its keys say: ``numbers`` as ``measure`` gives them;
``replies``, of each question what was said and whether it is right; ``findings`` as in a retrieval
result; ``data``, ``settings``, ``model``, ``versions`` and ``command``, the protocol card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.common.results import Result, listed, text_table
from vmm.evaluation.open_qa.scoring import TOP
from vmm.text_output import number_of

_ROWS = {
    "accuracy": "accuracy",
    "top_5": f"right answer among {TOP}",
    "blank": "blank video",
    "frequent": "most frequent answer",
    "gain": "above the better control",
}


@dataclass(frozen=True, kw_only=True)
class OpenQaResult(Result):
    """A result of open questions; the module says what its parts are."""

    FILE_NAME: ClassVar[str] = "open_qa.json"
    COMMAND: ClassVar[str] = "vmm eval open-qa"

    numbers: dict[str, Any]
    replies: list[dict[str, Any]]

    def verdict(self) -> str:
        """Say in a sentence whether the video helps."""
        numbers = self.numbers
        low, high = numbers["gain"]["interval"]
        control = _ROWS[numbers["control"]]
        where = "and where the video could be read " if self.data["unreadable"] else ""
        helps = "The video helps" if low > 0 else "Nothing shows that the video helps"
        return (
            f"{helps}: {numbers['accuracy']['value']:.1f} % right, {where}"
            f"{numbers['gain']['value']:+.1f} points ({low:.1f} to {high:.1f}) against "
            f"the better control, {control}."
        )

    def table(self) -> str:
        """Format it for the terminal."""
        data = self.data
        questions = number_of(data["questions"], "question")
        lines = [
            f"{self.name} (trained on answers): {data['test_set']}, {questions} "
            f"about {number_of(data['videos'], 'video')} ({data['unreadable']} unreadable)",
            text_table(number_rows(self), left=1),
            text_table(kind_rows(self), left=1),
            self.verdict(),
        ]
        if self.findings:
            lines.append(findings_text(self.findings))
        return "\n".join(lines)

    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on."""
        data, settings = self.data, self.settings
        problems = listed(data["problems"])
        return [
            ("test set", data["test_set"]),
            ("kind", "fine-tuned on questions and answers, not zero-shot"),
            ("questions", f"{data['questions']}, hash {data['split_hash']}"),
            ("videos", f"{data['videos']}, {data['unreadable']} unreadable"
                       + f" ({problems})" * bool(problems)),
            ("files", ", ".join(data["files"])),
            ("answers", f"the most probable of {data['answers']} ({data['answer_list']}, hash "
                        f"{data['answers_hash']}), all of them compared; each word counted once"),
            ("right", "equal words after lower-casing and removing punctuation"),
            ("coverage", settings["coverage"]),
            *self.look(),
            ("views", "1"),
            *self.origin(),
        ]  # fmt: skip


def number_rows(result: OpenQaResult) -> list[list[str]]:
    """Tabulate the numbers, header first."""
    rows = [["", "percent", "95 % interval"]]
    for key, title in _ROWS.items():
        low, high = result.numbers[key]["interval"]
        rows.append([title, f"{result.numbers[key]['value']:.1f}", f"{low:.1f} to {high:.1f}"])
    return rows


def kind_rows(result: OpenQaResult) -> list[list[str]]:
    """Tabulate the kinds of questions, header first."""
    keys = ("accuracy", "blank", "frequent")
    rows = [["kind", "questions", *(_ROWS[key] for key in keys)]]
    for kind, numbers in result.numbers["by_kind"].items():
        values = [f"{numbers[key]['value']:.1f}" for key in keys]
        rows.append([kind, str(numbers["questions"]), *values])
    return rows
