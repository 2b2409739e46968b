"""The attentive probe: learned queries that choose among a clip's tokens, and a linear layer.

A query needs no projection of the keys, q . (W x) = (W^T q) . x, nor of the values, which the
linear layer after it does: so this is cross-attention of learned queries with one linear read-out,
as attentive probes of frozen video encoders are (V-JEPA, arXiv 2404.08471), without their MLP.
Shape legend: see ``vmm.types``; N training clips, K classes, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS = 40
"""Passes over the training clips at most; how many is chosen on held-out ones."""
_BATCH = 64
_QUERIES = 4
_LR, _DECAY = 1e-3, 1e-2

Advance = Callable[[], None]


class AttentiveProbe(nn.Module):
    """Score classes from tokens.

    Args:
        embed_dim: Width D of the tokens.
        num_classes: Classes K.
        num_queries: Queries Q.
    """

    def __init__(self, embed_dim: int, num_classes: int, num_queries: int = _QUERIES) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, embed_dim))
        self.head = nn.Linear(num_queries * embed_dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score (B, L, D) float32: (B, K)."""
        scale = tokens.shape[-1] ** -0.5
        attention = (scale * tokens @ self.queries.T).softmax(1)  # (B, L, Q)
        chosen = torch.einsum("blq,bld->bqd", attention, tokens)
        scores: Tensor = self.head(chosen.flatten(1))
        return scores


class Tokens(NamedTuple):
    """Tokens of some clips, which stay on disk, standardised when they are read."""

    features: Tensor
    """(clips, L, D) float32."""
    rows: Tensor
    """(n,) int64, which of them."""
    mean: Tensor
    """(D,)."""
    scale: Tensor
    """(D,)."""

    def batch(self, places: Tensor) -> Tensor:
        """Read some, by their places among ``rows``: (n, L, D)."""
        return (self.features[self.rows[places]] - self.mean) / self.scale


def fit_attentive(
    train: Tokens,
    labels: Tensor,
    parts: Sequence[Tensor],
    seed: int,
    advance: Advance,
) -> tuple[AttentiveProbe, int, float]:
    """Train a probe; how long is chosen on held-out training clips, then it learns from all.

    Args:
        train: N clips.
        labels: (N,) int64, each of 0 to K - 1 at least once.
        parts: Places of the clips to fit on and of those that are held out.
        seed: Of the probe's first weights and the order of the clips.
        advance: Called after each epoch.

    Returns:
        The probe, the epochs, and the top-1 of held-out clips in percent after as many.
    """
    fitted, held = parts
    rights = []
    for probe in _epochs(train, labels, fitted, seed):
        right = score(probe, train, held).argmax(1) == labels[held]
        rights.append(100 * right.double().mean().item())
        advance()
    best = max(range(EPOCHS), key=rights.__getitem__)
    everything = torch.arange(len(labels))
    again = _epochs(train, labels, everything, seed)
    probe = next(again)
    for _ in range(best):
        probe = next(again)
        advance()
    return probe, best + 1, rights[best]


def _epochs(train: Tokens, labels: Tensor, places: Tensor, seed: int) -> Iterator[AttentiveProbe]:
    """Train on some clips, and give the probe after each epoch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttentiveProbe(train.features.shape[-1], int(labels.max()) + 1)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=_LR, weight_decay=_DECAY)
    for _ in range(EPOCHS):
        shuffled = places[torch.randperm(len(places), generator=order)]
        for some in torch.split(shuffled, _BATCH):
            loss = F.cross_entropy(probe(train.batch(some)), labels[some])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        yield probe


@torch.no_grad()
def score(probe: AttentiveProbe, tokens: Tokens, places: Tensor) -> Tensor:
    """Score clips by their places: (n, K)."""
    return torch.cat([probe(tokens.batch(some)) for some in torch.split(places, _BATCH)])
