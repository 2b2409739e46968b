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
        query: (B, h, S, d).
        key: (B, h, N, d); one sample expanded to all is neither copied nor read more than once.
        value: (B, h, N, d), expanded where ``key`` is.
        mask: Bool, broadcast to (B, h, S, N), True = may be looked at; None = all may. With an
            expanded ``key`` it is the same for all.
        dropout: Of the attention weights.

    Returns:
        (B, h, S, d).
    """
    if key.shape[0] > 1 and key.stride(0) == 0:
        return _shared_attention(query, key[:1], value[:1], mask, dropout)
    with attention_kernel(query.device, query.shape[2], key.shape[2]):
        return F.scaled_dot_product_attention(query, key, value, mask, dropout)


def _shared_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Let all samples look at one: their queries become those of one long sample."""
    samples, heads, length, width = query.shape
    together = query.transpose(0, 1).flatten(1, 2)[None]  # (1, h, B * S, d)
    shared = None if mask is None else mask[:1]
    out = attention(together, key, value, shared, dropout)
    return out.reshape(heads, samples, length, width).transpose(0, 1)
