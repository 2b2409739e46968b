"""What an evaluation of open questions is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmm.evaluation.common.options import Options as CommonOptions


@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    """What an evaluation of open questions is told, beside what all are.

    Args:
        answers: JSON list of the answers to rank; None = the list of the run's recipe.
        batch_size: Questions about a video read at once.
        num_workers: Processes that decode.
    """

    answers: Path | None = None
    batch_size: int = 32
    num_workers: int = 0
