"""What an evaluation of retrieval is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmm.evaluation.common.options import ModelOptions
from vmm.evaluation.common.sources import FrameOrder
from vmm.evaluation.retrieval.protocols import Protocol, protocol_of
from vmm.reranking import CANDIDATES


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What an evaluation of retrieval is told, beside what all are.

    Args:
        ids: List of the ids to keep of the annotations.
        train_ids: Ids or annotations of what the model was trained on.
        frame_order: "reversed" plays every clip backwards.
        k: Candidates per query that the matching head re-ranks, or all if there
            are fewer; None = dual encoder only.
        dual_softmax: Also measure the dual encoder with dual softmax, which looks at all queries.
        batch_size: Clips, and captions, encoded at once.
        num_workers: Processes that decode.

    Raises:
        ValueError: If k is below 1.
    """

    ids: Path | None = None
    train_ids: Path | None = None
    frame_order: FrameOrder = "forward"
    k: int | None = CANDIDATES
    dual_softmax: bool = False
    batch_size: int = 32
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}; --no-rerank switches it off")

    @property
    def protocol(self) -> Protocol | None:
        """The test set that it is called; None = nobody's."""
        return None if self.dataset is None else protocol_of(self.dataset)
