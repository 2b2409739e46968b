"""Causal convolution through ``F.conv1d``: any device, the reference of the other backends."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vmm.ops.conv_interface import ConvInputs
from vmm.ops.op_tools import recomputed_gradients


def why_not(x: Tensor, weight: Tensor) -> str | None:
    """Return None: it runs everywhere."""
    return None


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = "silu",
    reverse: bool = False,
) -> Tensor:
    """Compute the contract of ``vmm.ops.causal_conv.causal_conv1d``."""
    channels, taps = weight.shape
    # Looking ahead is the mirrored kernel with the padding on the other side.
    kernel = weight.flip(1) if reverse else weight
    padding = (0, taps - 1) if reverse else (taps - 1, 0)
    out = F.conv1d(
        F.pad(x, padding),
        kernel.to(x.dtype).unsqueeze(1),
        None if bias is None else bias.to(x.dtype),
        groups=channels,
    )
    if activation == "silu":
        out = F.silu(out)
    return out.transpose(1, 2).contiguous().transpose(1, 2)


def forward(inputs: ConvInputs, silu: bool, reverse: bool) -> Tensor:
    """Convolve inside of the operator."""
    return causal_conv1d(*inputs, "silu" if silu else None, reverse)


def backward(inputs: ConvInputs, silu: bool, reverse: bool, d_out: Tensor) -> ConvInputs:
    """Repeat the convolution and let autograd differentiate it."""
    gradients = recomputed_gradients(
        lambda *x: forward(ConvInputs(*x), silu, reverse), inputs, d_out
    )
    return ConvInputs(*gradients)  # type: ignore[arg-type]
