"""Which kernel of PyTorch's attention to use.

With oneDNN's float32 products (``vmm.ops.tuning.cpu_matmul``), PyTorch's flash kernel on CPUs
pays for setting up a product per tile: on captions of 15 words it takes five to ten times as long,
forward and backward, as the plain one. The plain kernel stores all scores, so it is for short
sequences only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_MOST_SCORES = 2**16  # per head and sample; 256 tokens that look at each other


def attention_kernel(
    device: torch.device, queries: int, keys: int
) -> AbstractContextManager[object]:
    """Context in which PyTorch's attention uses the faster kernel.

    Args:
        device: Of the tensors.
        queries: Positions that look.
        keys: Positions that are looked at.
    """
    if device.type == "cpu" and queries * keys <= _MOST_SCORES:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1).

    Args:
        query: (M, h, S, d), M a multiple of B: sample i looks at i modulo B, of which no copy is
            made.
        key: (B, h, N, d).
        value: (B, h, N, d).
        mask: Bool, broadcast to (B, h, S, N), True = may be looked at; None = all may. Where M is
            not B, it is the same for all S.
        dropout: Of the attention weights.

    Returns:
        (M, h, S, d).

    Raises:
        ValueError: If M is no multiple of B.
    """
    if query.shape[0] != key.shape[0]:
        return _shared_attention(query, key, value, mask, dropout)
    with attention_kernel(query.device, query.shape[2], key.shape[2]):
        return F.scaled_dot_product_attention(query, key, value, mask, dropout)


def _shared_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Let several samples look at the same one: their queries become those of one long sample."""
    if query.shape[0] % max(1, key.shape[0]):
        raise ValueError(
            f"{query.shape[0]} samples cannot share {key.shape[0]} evenly; give a multiple"
        )
    turns = query.view(-1, key.shape[0], *query.shape[1:]).permute(1, 2, 0, 3, 4)
    out = attention(turns.flatten(2, 3), key, value, mask, dropout)
    return out.view(turns.shape).permute(2, 0, 1, 3, 4).flatten(0, 1)
