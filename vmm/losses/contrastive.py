"""Video-text contrastive losses (VTC): softmax over a batch, or a sigmoid of each of its pairs.

VideoMamba (arXiv 2403.06977), section 3.3; SigLIP (arXiv 2303.15343) with the conventions of
open_clip: the sum over all pairs of all processes, over the number of items. Shape legend: see
``vmm.types``; E is the width of the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vmm.distributed import GatherGradient, all_gather, rows_of_all
from vmm.ops.op_tools import at_least_float32
from vmm.ops.similarity import mean_unit

ContrastiveKind = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Pairs:
    """What is asked of similarities, each of which belongs to a video and a text.

    Attributes:
        bias: Scalar that is added to the similarities, which makes the loss a sigmoid of each;
            None: the softmax over all videos, and over all texts.
        label_smoothing: Share of the target that is spread over all; softmax only.
    """

    bias: Tensor | None = None
    label_smoothing: float = 0.0

    def loss(self, logits: Tensor, positive: Tensor, reduction: str = "mean") -> Tensor:
        """Mean or sum over the rows.

        Args:
            logits: (R, N) similarities over the temperature, at least float32.
            positive: (R, N) bool.
            reduction: ``mean`` or ``sum``.
        """
        if self.bias is not None:
            signs = positive.to(logits) * 2 - 1
            total = -F.logsigmoid(signs * (logits + self.bias)).sum()
            return total if reduction == "sum" else total / len(logits)
        target = positive.to(logits) / positive.sum(1, keepdim=True)
        return F.cross_entropy(
            logits, target, reduction=reduction, label_smoothing=self.label_smoothing
        )


SOFTMAX = Pairs()


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
    pairs: Pairs = SOFTMAX,
) -> ContrastiveOutput:
    """Compare all videos with all texts of the batch of all processes.

    Rows with equal ``idx`` are positives of each other: several clips or captions of one item. Of
    the softmax they share the target probability, of the sigmoid each pair counts by itself.

    Args:
        video: (B, P, E) projected, not normalised.
        text: (B, E) projected, not normalised.
        temperature: Scalar; similarities are divided by it.
        idx: (B,) int64.
        gather: How gradients cross processes, see ``vmm.distributed.all_gather``.
        rows: Of the similarities, so many are in memory at a time, in backward too; None = all.
        pairs: Which loss.
    """
    with torch.autocast(video.device.type, enabled=False):
        # The mean over P is linear, so one vector per clip crosses processes, not P of them.
        each = rows_of_all(idx)
        videos = all_gather(mean_unit(video), gather, each)
        texts = all_gather(F.normalize(at_least_float32(text), dim=-1), gather, each)
        temperature = at_least_float32(temperature)
        ids = all_gather(idx, "none", each)
        if rows is not None:
            return _some_rows_at_a_time(videos, texts, temperature, ids, rows, pairs)
        logits = videos @ texts.T / temperature
        positive = ids[:, None] == ids
        loss = (pairs.loss(logits, positive) + pairs.loss(logits.T, positive)) / 2
    return ContrastiveOutput(loss, _accuracy(logits.T, positive), _accuracy(logits, positive))


def _some_rows_at_a_time(
    videos: Tensor, texts: Tensor, temperature: Tensor, ids: Tensor, rows: int, pairs: Pairs
) -> ContrastiveOutput:
    """Sum up the loss of (N, E) videos and texts: of some videos with all texts, and the reverse.

    Backward computes the similarities of each part anew: all (N, N) of them never exist.
    """

    def one_way(queries: Tensor, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        logits = queries @ others.T / temperature
        positive = own[:, None] == ids
        return pairs.loss(logits, positive, "sum"), _hits(logits, positive).sum()

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
