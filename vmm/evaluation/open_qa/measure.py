"""From replies to percentages, with their controls.

Q counts the questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm.evaluation.open_qa.questions import OpenQuestion
from vmm.evaluation.open_qa.scoring import Reply
from vmm.metrics import bootstrap_interval
from vmm.wording import clean_caption


class Judged(NamedTuple):
    """Which answers are right, 1 or 0 of each question, (Q,) float64 each."""

    model: Tensor
    top: Tensor
    """Whether a right answer is among the first ``TOP``."""
    blank: Tensor
    frequent: Tensor
    """Always the most frequent right answer to questions of this kind, in this very set."""
    read: Tensor
    """Whether the video could be read."""


def judge(
    questions: Sequence[OpenQuestion], replies: Sequence[Reply | None], answers: Sequence[str]
) -> Judged:
    """Compare answers by their words, after cleaning; a question without a reply is wrong."""
    listed = [clean_caption(answer) for answer in answers]
    right = [{clean_caption(answer) for answer in question.answers} for question in questions]
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for question, known in zip(questions, right, strict=True):
        given[question.kind].update(sorted(known))
    frequent = {kind: counts.most_common(1)[0][0] for kind, counts in given.items()}

    def column(values: Iterator[bool]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64)

    pairs = list(zip(replies, right, strict=True))
    return Judged(
        column(r is not None and listed[r.answers[0]] in known for r, known in pairs),
        column(r is not None and any(listed[a] in known for a in r.answers) for r, known in pairs),
        column(r is not None and listed[r.blank] in known for r, known in pairs),
        column(frequent[q.kind] in known for q, known in zip(questions, right, strict=True)),
        column(r is not None for r in replies),
    )


def measure(questions: Sequence[OpenQuestion], judged: Judged) -> dict[str, Any]:
    """Turn judgements into percentages with 95 % intervals, drawn over videos.

    Returns:
        ``accuracy``, ``top_5``, ``blank`` and ``frequent``, each ``value`` and ``interval``;
        ``gain``, the accuracy less that of the better control, paired by question, where the video
        could be read; ``by_kind``.
    """
    videos = torch.tensor([question.video for question in questions])

    def described(values: Tensor, rows: Tensor) -> dict[str, Any]:
        return {
            "value": 100 * values[rows].mean().item(),
            "interval": list(bootstrap_interval(100 * values[rows], videos[rows])),
        }

    def all_of(rows: Tensor) -> dict[str, Any]:
        names = ("accuracy", "top_5", "blank", "frequent")
        return {n: described(v, rows) for n, v in zip(names, judged[:4], strict=True)}

    everything = torch.ones(len(questions), dtype=torch.bool)
    numbers = all_of(everything)
    read = judged.read.bool()
    controls = {"blank": judged.blank, "frequent": judged.frequent}
    control = max(controls, key=lambda name: float(controls[name][read].mean()))
    gain = judged.model - controls[control]
    by_kind = {}
    for kind in sorted({question.kind for question in questions}):
        rows = torch.tensor([question.kind == kind for question in questions])
        by_kind[kind] = {"questions": int(rows.sum()), **all_of(rows)}
    return numbers | {"control": control, "gain": described(gain, read), "by_kind": by_kind}
