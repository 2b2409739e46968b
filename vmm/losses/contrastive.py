"""Video-text contrastive loss (VTC).

VideoMamba (arXiv 2403.06977), section 3.3. Shape legend: see ``vmm.types``; E is the width of the
joint space.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.distributed import GatherGradient, all_gather, rows_of_all
from vmm.ops.similarity import mean_unit


class ContrastiveOutput(NamedTuple):
    """The loss, and how often the most similar item was a right one."""

    loss: Tensor
    """Scalar, with gradient."""
    t2v_accuracy: Tensor
    """Scalar in [0, 1]: share of texts whose nearest video in the global batch is a positive."""
    v2t_accuracy: Tensor
    """Scalar in [0, 1], likewise for videos."""


def contrastive_loss(
    video: Tensor,
    text: Tensor,
    temperature: Tensor,
    idx: Tensor,
    gather: GatherGradient = "exact",
) -> ContrastiveOutput:
    """Symmetric cross-entropy over the batch of all processes.

    Rows with equal ``idx`` are positives of each other and share the target probability.

    Args:
        video: (B, P, E) projected, not normalised.
        text: (B, E) projected, not normalised.
        temperature: Scalar; similarities are divided by it.
        idx: (B,) int64.
        gather: How gradients cross processes, see ``vmm.distributed.all_gather``.
    """
    with torch.autocast(video.device.type, enabled=False):
        # The mean over P is linear, so one vector per clip crosses processes, not P of them.
        rows = rows_of_all(idx)
        videos = all_gather(mean_unit(video), gather, rows)
        texts = all_gather(F.normalize(text.float(), dim=-1), gather, rows)
        logits = videos @ texts.T / temperature.float()
        ids = all_gather(idx, "none", rows)
        positive = ids[:, None] == ids
        target = positive.float() / positive.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return ContrastiveOutput(loss, _accuracy(logits.T, positive), _accuracy(logits, positive))


def _accuracy(logits: Tensor, positive: Tensor) -> Tensor:
    best = logits.detach().argmax(1, keepdim=True)
    return positive.gather(1, best).float().mean()
