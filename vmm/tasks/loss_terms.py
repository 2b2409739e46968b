"""What a step of stage 2 is made of: the weights of its terms, its draws, what encoders say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, get_args

from torch import Tensor

from vmm.losses.contrastive import ContrastiveKind
from vmm.losses.matching import HardNegatives
from vmm.masking import MaskedWords
from vmm.models.teacher import Teacher


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; a term with weight 0 is not computed.

    Attributes:
        vtc: Video-text contrastive.
        vtm: Video-text matching.
        mlm: Masked language modelling.
        align: Alignment of visible tokens to the teacher.
    """

    vtc: float = 1.0
    vtm: float = 1.0
    mlm: float = 1.0
    align: float = 0.0


class Draws(NamedTuple):
    """What a training step draws at random; None = draw it. For exact comparisons."""

    dropped: Tensor | None = None
    """(B, 1 + T * N) bool, True = a hidden token."""
    negatives: HardNegatives | None = None
    """Partners for the matching loss."""
    masked_words: MaskedWords | None = None
    """Captions for masked language modelling."""


DRAW_ALL = Draws()


class Encoded(NamedTuple):
    """What the encoders say about a batch, or a part of it."""

    video_proj: Tensor
    """(B, P, E)."""
    text_tokens: Tensor
    """(B, S, Dt)."""
    text_proj: Tensor
    """(B, E)."""
    gap_tokens: Tensor | None
    """(B, S, Dt) of the captions with hidden words, if they are to be guessed."""
    align: Tensor | None
    """(1,) alignment loss, if it has a weight; one for each part."""


def check_weights(weights: LossWeights, teacher: Teacher | None) -> None:
    """Refuse weights that leave nothing to learn, or nothing to learn from."""
    if not any(vars(weights).values()):
        raise ValueError("all of loss_weights are 0, so there is nothing to learn; set one")
    if weights.align and teacher is None:
        raise ValueError(
            f"loss_weights.align is {weights.align} but there is no teacher; "
            "name one or set the weight to 0"
        )


def check_contrast(kind: ContrastiveKind, label_smoothing: float) -> bool:
    """Refuse a contrastive loss that there is not; tell whether it is the sigmoid."""
    if kind not in get_args(ContrastiveKind):
        raise ValueError(f"vtc_kind {kind!r} is none of {get_args(ContrastiveKind)}")
    if kind == "sigmoid" and label_smoothing:
        raise ValueError(
            f"label_smoothing {label_smoothing} is for vtc_kind softmax: a sigmoid has no targets "
            "to spread over the batch; set it to 0"
        )
    return kind == "sigmoid"
