"""What a lint says: the mistakes that make a number another number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


def findings_text(findings: Sequence[Finding]) -> str:
    """List findings for the terminal."""
    if not findings:
        return "nothing is off"
    return "\n".join(f"! {f.code}: {f.message}\n    {f.effect}" for f in findings)
