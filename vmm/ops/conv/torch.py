"""Causal convolution through ``F.conv1d``: any device, the reference of the other backends."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vmm.ops.conv.interface import ConvInputs, ConvOutputs, Taps, one_by_one


def why_not(x: Tensor, weight: Tensor) -> str | None:
    """Return None: it runs everywhere, for x (B, E, L) and weight (E, K)."""
    return None


def forward(inputs: ConvInputs, silu: bool) -> ConvOutputs:
    """Compute the contract of ``vmm.ops.conv.causal_conv``."""
    return one_by_one(inputs, lambda taps, reverse: _one(inputs.x, taps, silu, reverse))


def _one(x: Tensor, taps: Taps, silu: bool, reverse: bool) -> Tensor:
    weight, bias = taps
    channels, count = weight.shape
    # Looking ahead is the mirrored kernel with the padding on the other side.
    kernel = weight.flip(1) if reverse else weight
    padding = (0, count - 1) if reverse else (count - 1, 0)
    out = F.conv1d(
        F.pad(x, padding),
        kernel.to(x.dtype).unsqueeze(1),
        None if bias is None else bias.to(x.dtype),
        groups=channels,
    )
    if silu:
        out = F.silu(out)
    return out.transpose(1, 2).contiguous().transpose(1, 2)
