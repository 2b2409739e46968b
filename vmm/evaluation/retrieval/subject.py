"""What the lint of retrieval looks at.

Shape legend: see ``vmm.types``; Nt captions, Nv clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from vmm.evaluation.common.features import Clip
from vmm.evaluation.retrieval.protocols import Protocol
from vmm.evaluation.retrieval.scoring import relate
from vmm.metrics import hit_probability, text_to_video_ranks


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        clips: The gallery, unreadable clips included.
        protocol: The test set that it is called; None = nobody's.
        training: Ids that the model was trained on, without extension.
        similarity: (Nt, Nv) text-to-video scores of any precision, ``-inf`` = unreadable; None
            before scoring.
        lost: Reason -> what the shards do not hold in a usable way.
        reported: Somebody's R@1 of these scores, by ``t2v`` and ``v2t``.
    """

    clips: Sequence[Clip]
    protocol: Protocol | None = None
    training: frozenset[str] = frozenset()
    similarity: Tensor | None = None
    reported: dict[str, float] | None = None
    lost: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def relevant(self) -> Tensor:
        """(Nt, Nv) bool, which clips a caption is about."""
        shared = self.protocol is not None and self.protocol.shared_captions
        return relate(self.clips, shared)[1]

    @cached_property
    def scores(self) -> Tensor | None:
        """The similarity as float32 (Nt, Nv); None if it fits neither way round."""
        if self.similarity is None:
            return None
        scores = self.similarity.float()
        wanted = self.relevant.shape
        return next((s for s in (scores, scores.T) if s.shape == wanted), None)

    def recall(self, keep: Tensor | None = None, relevant: Tensor | None = None) -> float | None:
        """Text-to-video R@1, of the clips that ``keep`` (Nv,) marks; None without scores."""
        scores = self.scores
        if scores is None:
            return None
        relevant = self.relevant if relevant is None else relevant
        if keep is not None:
            texts = (relevant & keep).any(1)
            scores, relevant = scores[texts][:, keep], relevant[texts][:, keep]
        if not scores.numel():
            return None
        return 100 * hit_probability(text_to_video_ranks(scores, relevant), 1).mean().item()
