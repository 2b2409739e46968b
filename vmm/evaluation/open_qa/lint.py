"""What is off with an evaluation of open questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.open_qa.questions import OpenQuestion
from vmm.models.answer import AnswerList
from vmm.text_output import number_of
from vmm.wording import clean_caption


def lint_questions(
    dataset: str | None,
    questions: Sequence[OpenQuestion],
    answers: AnswerList,
    numbers: dict[str, Any],
) -> list[Finding]:
    """List what is off with an evaluation of open questions."""
    findings = []
    listed = {clean_caption(answer) for answer in answers.texts}
    beyond = sum(not listed & {clean_caption(a) for a in q.answers} for q in questions)
    if beyond:
        findings.append(
            Finding(
                "answer-list",
                f"no right answer to {beyond} of {len(questions)} questions is in the list",
                f"no model can be above {100 - 100 * beyond / len(questions):.1f} %",
            )
        )
    alike = len(answers.texts) - len(set(map(tuple, answers.tokens.input_ids.tolist())))
    if alike:
        findings.append(
            Finding(
                "equal-answers",
                f"{number_of(alike, 'answer of the list is', 'answers of the list are')}"
                " the same word pieces as another one",
                "the model cannot tell them apart; the one that stands first is said",
            )
        )
    sizes = DATASETS[dataset].sizes if dataset else {}
    if sizes and len(questions) not in sizes.values():
        splits = ", ".join(f"{name} {size}" for name, size in sizes.items())
        findings.append(
            Finding(
                "size",
                f"{number_of(len(questions), 'question')}, the published splits have {splits}",
                "on a part of a split the number is not the published one's peer",
            )
        )
    if numbers["gain"]["interval"][0] <= 0:
        control = {"blank": "a blank video", "frequent": "always the most frequent answer"}
        findings.append(
            Finding(
                "no-help",
                f"the accuracy is not clearly above the better control, "
                f"{control[numbers['control']]}",
                "nothing shows that the model uses the video",
            )
        )
    return findings
