"""Video-text matching loss (VTM) and the choice of its negatives.

ALBEF (arXiv 2107.07651), section 3.2; VideoMamba (arXiv 2403.06977), section 3.3. Shape legend:
see ``vmm.types``; M counts video-text pairs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.drawing import Uniform, choose
from vmm.ops.op_tools import at_least_float32


class HardNegatives(NamedTuple):
    """One wrong partner for every row of a batch."""

    video_for_text: Tensor
    """(B,) int64: a video that does not belong to text i."""
    text_for_video: Tensor
    """(B,) int64: a text that does not belong to video i."""
    valid: Tensor
    """(B,) bool: False where the batch holds no wrong partner for row i; the two entries above
    are any rows there."""


def sample_hard_negatives(
    similarity: Tensor,
    idx: Tensor,
    uniform: Uniform,
    how: Literal["hard", "random"] = "hard",
) -> HardNegatives:
    """Draw a negative video per text and a negative text per video from the local batch.

    As the published code does: those of other processes are never drawn, so that the negatives
    depend on how many processes share a batch.

    Args:
        similarity: (B, B) videos by texts, already divided by the temperature.
        idx: (B,) int64; rows with equal values are never negatives of each other.
        uniform: What chance says, for each row.
        how: ``hard`` draws in proportion to the softmax of the similarity, ``random`` uniformly.
    """
    positive = idx[:, None] == idx
    valid = ~positive.all(1)
    if how == "random":
        similarity = torch.zeros_like(similarity)

    numbers = uniform(2 * len(idx)).view(len(idx), len(idx), 2)

    def draw(scores: Tensor, numbers: Tensor) -> Tensor:
        # A diverged model must show as a NaN loss.
        scores = scores.detach().float().nan_to_num()
        # Hiding the positives before the softmax cannot underflow, zeroing them after it can.
        weights = scores.masked_fill(positive, -torch.inf).softmax(1)
        weights = weights.where(valid[:, None], 1.0)
        return choose(weights, 1, numbers).squeeze(1)

    return HardNegatives(
        draw(similarity.T, numbers[..., 0]), draw(similarity, numbers[..., 1]), valid
    )


def matching_loss(logits: Tensor, matched: Tensor) -> Tensor:
    """Cross-entropy of "do these two belong together", mean over the pairs.

    Args:
        logits: (M, 2); class 1 = they belong together.
        matched: (M,) bool.

    Returns:
        Scalar, at least float32.
    """
    return F.cross_entropy(at_least_float32(logits), matched.long())
