"""The page of an evaluation of open questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vmm.evaluation.common.page import write_accuracy_page
from vmm.evaluation.common.published import source_of
from vmm.evaluation.common.strips import SHOWN
from vmm.evaluation.open_qa.protocols import PUBLISHED
from vmm.evaluation.open_qa.results import OpenQaResult, kind_rows, number_rows


def wrong_replies(result: OpenQaResult) -> list[int]:
    """Choose the wrong replies that the page shows."""
    return [n for n, reply in enumerate(result.replies) if not reply["right"]][:SHOWN]


def write_page(path: Path, result: OpenQaResult, clips: Mapping[int, str] | None = None) -> None:
    """Write the page of a result.

    Args:
        path: The HTML file.
        result: As it is written.
        clips: Number of a reply -> data URI of a picture of its clip; None: there are none.
    """
    tables = {"By kind of question": kind_rows(result)}
    title = result.data["test_set"]
    if title in PUBLISHED:
        own = f"{result.numbers['accuracy']['value']:.1f}"
        tables["Beside published numbers"] = [
            ["model, fine-tuned", "accuracy", "source"],
            [result.name, own, "this result"],
            ["UMT, from B to L", PUBLISHED[title], source_of("UMT")[1]],
        ]
    shown = [["clip", "question", "the model said", "right would be"]]
    for number in wrong_replies(result):
        r = result.replies[number]
        said, right = (r["said"] or ["(unreadable)"])[0], ", ".join(sorted(set(r["answers"])))
        shown.append([(clips or {}).get(number, "not shown"), r["question"], said, right])
    if len(shown) > 1:
        tables["The first wrong answers"] = shown
    write_accuracy_page(
        path,
        title=f"{result.name} on {title}",
        summary=result.verdict(),
        table=number_rows(result),
        note="The model was trained on questions and answers: this is not zero-shot. Blank video: "
        "the same questions about a grey clip. Most frequent answer: always the commonest right "
        "answer to questions of that kind, counted on this very set, which flatters it. Intervals "
        "are drawn over videos: questions about one video are right or wrong together.",
        tables=tables,
        findings=result.findings,
        pictures={},
        card=result.card(),
    )
