"""How alike a clip and a caption are: the one definition that losses, models and evaluation use.

Training, and published evaluations, compare a caption with every frame (``frame_similarity``). Who
keeps vectors keeps one of a clip (``unit_vectors``). Who looks again asks the matching head, too
(``Mixture``). Shape legend: see ``vmm.types``; E is the width of the joint space, Bv and Bt count
clips and texts.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.op_tools import at_least_float32

_Numbers = TypeVar("_Numbers", bound=Any)
"""A tensor, an array or a number."""

RankBy = Literal["mixture", "matching"]
"""What puts pairs in order where both halves of a pair are looked at again: the mixture, or, as
published, the matching head alone."""

MATCH_WEIGHT = 1.0
"""Of the matching head where none was chosen for a model."""


class Mixture(NamedTuple):
    """The order of re-ranking: what two vectors say, and what the matching head says.

    Either makes mistakes of its own, and their sum makes fewer. Over the learned temperature a
    similarity is a logit, as the head's is, so that a weight near 1 is natural whatever the model.
    """

    temperature: float = 0.07
    """What similarities are divided by: the model's own."""
    weight: float = MATCH_WEIGHT
    """Of the matching head's logit; 0 = it is not asked."""

    def __call__(self, similarity: _Numbers, match: _Numbers) -> _Numbers:
        """Score pairs.

        Args:
            similarity: Cosines of the pairs' ``unit_vectors``, of any shape.
            match: The matching head's logits of "they belong together", of the same shape.

        Returns:
            Scores of that shape, higher = more likely to belong together.
        """
        mixed: _Numbers = similarity / self.temperature + self.weight * match
        return mixed

    def __str__(self) -> str:
        return f"similarity / {self.temperature:.4g} + {self.weight:.4g} x matching logit"


def mean_unit(video: Tensor) -> Tensor:
    """Normalise every pooled vector of (B, P, E), then average over P: (B, E) float32."""
    return F.normalize(at_least_float32(video), dim=-1).mean(1)


def unit_vectors(video: Tensor) -> Tensor:
    """Give a clip the one vector that apps keep: ``mean_unit``, normalised again.

    Args:
        video: (B, P, E).

    Returns:
        (B, E) float32, of length 1.
    """
    return F.normalize(mean_unit(video), dim=-1)


def frame_similarity(video: Tensor, text: Tensor) -> Tensor:
    """Mean over pooled vectors of their cosine with the text, in float32.

    Not the cosine of the mean: every vector is normalised on its own.

    Args:
        video: (Bv, P, E).
        text: (Bt, E).

    Returns:
        (Bv, Bt) float32 in [-1, 1].
    """
    with torch.autocast(video.device.type, enabled=False):
        return mean_unit(video) @ F.normalize(at_least_float32(text), dim=-1).T
