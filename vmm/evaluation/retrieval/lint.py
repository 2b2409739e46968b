"""What is off with a retrieval number: splits, captions and scores that make it another number.

Every check knows one mistake that is common in published code and says what it does to R@1. The
checks of ids and captions also run before anything is scored. ``vmm eval retrieval`` runs
them all, ``vmm eval lint`` runs them on scores from anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from vmm.data.annotations.media import stem
from vmm.evaluation.common.features import Clip
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.retrieval import lint_data, lint_scores
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.evaluation.retrieval.subject import Subject

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    lint_data.few_candidates,
    lint_data.split,
    lint_data.training_videos,
    lint_data.captions,
    lint_data.repeated_ids,
    lint_data.same_stem,
    lint_scores.direction,
    lint_scores.ties,
    lint_scores.precision,
    lint_data.unreadable,
    lint_data.lost_samples,
    lint_data.duplicate_captions,
)
"""From the gravest to the lightest."""


def lint(subject: Subject) -> list[Finding]:
    """Run every check.

    Returns:
        What is off, the gravest first.
    """
    return [finding for check in CHECKS for finding in check(subject)]


def recognise(clips: Sequence[Clip]) -> str | None:
    """Tell a published test set by the form and number of its ids, None if it is none."""
    names = [stem(clip.key) for clip in clips]
    for name, protocol in PROTOCOLS.items():
        form = protocol.id_form
        if form and len(names) == protocol.videos and all(re.fullmatch(form, n) for n in names):
            return name
    return None
