"""Video-text contrastive loss (VTC).

VideoMamba (arXiv 2403.06977), section 3.3. Shape legend: see ``vmm.types``; E is the width of the
joint space.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vmm.distributed import GatherGradient, all_gather, rows_of_all
from vmm.ops.op_tools import at_least_float32
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
    rows: int | None = None,
) -> ContrastiveOutput:
    """Symmetric cross-entropy over the batch of all processes.

    Rows with equal ``idx`` are positives of each other and share the target probability.

    Args:
        video: (B, P, E) projected, not normalised.
        text: (B, E) projected, not normalised.
        temperature: Scalar; similarities are divided by it.
        idx: (B,) int64.
        gather: How gradients cross processes, see ``vmm.distributed.all_gather``.
        rows: Of the similarities, so many are in memory at a time, in backward too; None = all.
    """
    with torch.autocast(video.device.type, enabled=False):
        # The mean over P is linear, so one vector per clip crosses processes, not P of them.
        each = rows_of_all(idx)
        videos = all_gather(mean_unit(video), gather, each)
        texts = all_gather(F.normalize(at_least_float32(text), dim=-1), gather, each)
        temperature = at_least_float32(temperature)
        ids = all_gather(idx, "none", each)
        if rows is not None:
            return _some_rows_at_a_time(videos, texts, temperature, ids, rows)
        logits = videos @ texts.T / temperature
        positive = ids[:, None] == ids
        target = positive.to(logits) / positive.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return ContrastiveOutput(loss, _accuracy(logits.T, positive), _accuracy(logits, positive))


def _some_rows_at_a_time(
    videos: Tensor, texts: Tensor, temperature: Tensor, ids: Tensor, rows: int
) -> ContrastiveOutput:
    """Sum up the loss of (N, E) videos and texts: of some videos with all texts, and the reverse.

    Backward computes the similarities of each part anew: all (N, N) of them never exist.
    """

    def one_way(queries: Tensor, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        logits = queries @ others.T / temperature
        positive = own[:, None] == ids
        target = positive.to(logits) / positive.sum(1, keepdim=True)
        return F.cross_entropy(logits, target, reduction="sum"), _hits(logits, positive).sum()

    def both(queries: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        some = zip(torch.split(queries, rows), torch.split(ids, rows), strict=True)
        sums = [checkpoint(one_way, q, own, others, use_reentrant=False) for q, own in some]
        loss, hits = map(torch.stack, zip(*sums, strict=True))
        return loss.sum() / len(ids), hits.sum() / len(ids)

    v2t_loss, v2t_accuracy = both(videos, texts)
    t2v_loss, t2v_accuracy = both(texts, videos)
    return ContrastiveOutput((v2t_loss + t2v_loss) / 2, t2v_accuracy, v2t_accuracy)


def _accuracy(logits: Tensor, positive: Tensor) -> Tensor:
    return _hits(logits, positive).float().mean()


def _hits(logits: Tensor, positive: Tensor) -> Tensor:
    """Whether the most similar of each row of (N, M) is a right one: (N, 1) bool."""
    return positive.gather(1, logits.detach().argmax(1, keepdim=True))
