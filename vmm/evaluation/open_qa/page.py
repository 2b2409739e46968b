"""The page of an evaluation of open questions."""

from __future__ import annotations

from pathlib import Path

from vmm.evaluation.common.page import write_accuracy_page
from vmm.evaluation.open_qa.protocols import PUBLISHED
from vmm.evaluation.open_qa.results import OpenQaResult, kind_rows, number_rows


def write_page(path: Path, result: OpenQaResult) -> None:
    """Write the page of a result."""
    tables = {"By kind of question": kind_rows(result)}
    title = result.data["test_set"]
    if title in PUBLISHED:
        own = f"{result.numbers['accuracy']['value']:.1f}"
        tables["Beside published numbers"] = [
            ["model, fine-tuned", "accuracy"],
            [result.name, own],
            ["UMT, from B to L", PUBLISHED[title]],
        ]
    shown = [["question", "said", "known"]] + [
        [r["question"], (r["said"] or ["(unreadable)"])[0], ", ".join(sorted(set(r["answers"])))]
        for r in [r for r in result.replies if not r["right"]][:20]
    ]
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
