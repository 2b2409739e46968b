"""What is off with a retrieval number: splits, captions and scores that make it another number.

Every check knows one mistake that is common in published code and says what it does to R@1. The
checks of ids and captions also run before anything is scored. ``python -m eval.retrieval`` runs
them all, ``python -m eval.lint`` runs them on scores from anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from eval.features import Clip
from eval.findings import Finding, Subject
from eval.lint import data_checks, score_checks
from eval.protocols import PROTOCOLS
from vmm.data.annotations.media import stem

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    data_checks.few_candidates,
    data_checks.split,
    data_checks.training_videos,
    data_checks.captions,
    data_checks.repeated_ids,
    data_checks.same_stem,
    score_checks.direction,
    score_checks.ties,
    score_checks.precision,
    data_checks.unreadable,
    data_checks.lost_samples,
    data_checks.duplicate_captions,
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
