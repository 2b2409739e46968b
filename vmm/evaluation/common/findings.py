"""What a lint says: the mistakes that make a number another number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmm.wording import CaptionCheck


@dataclass(frozen=True)
class Finding:
    """One thing that is off.

    Attributes:
        code: Name of the mistake.
        message: What was found.
        effect: What it does to the number; with numbers where scores are there.
    """

    code: str
    message: str
    effect: str


def texts_lost(check: CaptionCheck | None, effect: str) -> list[Finding]:
    """Say what a text encoder does not see of texts.

    Args:
        check: What becomes of them; None = nobody can tell.
        effect: What that does to the number where texts become the same.
    """
    said = {} if check is None else check.said(little=False)
    spelled = "the model has not learnt what they mean, or from their pieces alone"
    return [
        Finding(fault, sentence, spelled if fault == "spelled-words" else effect)
        for fault, sentence in said.items()
    ]


def findings_text(findings: Sequence[Finding]) -> str:
    """List findings for the terminal."""
    if not findings:
        return "nothing is off"
    return "\n".join(f"! {f.code}: {f.message}\n    {f.effect}" for f in findings)
