"""Adapter to the CUDA convolution of the causal-conv1d package, the only file that imports it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vmm.ops.backends import why_no_cuda_kernel, why_no_package
from vmm.ops.conv.interface import ConvInputs, ConvOutputs, Taps, one_by_one


def _kernel() -> Callable[..., Tensor]:
    from causal_conv1d import causal_conv1d_fn

    function: Callable[..., Tensor] = causal_conv1d_fn
    return function


def why_not(x: Tensor, weight: Tensor) -> str | None:
    """Say why causal-conv1d cannot take x (B, E, L) and weight (E, K), or return None."""
    if why := why_no_cuda_kernel(x):
        return why
    if not 2 <= weight.shape[1] <= 4:
        return f"takes 2 to 4 taps, weight has {weight.shape[1]}"
    return why_no_package("causal-conv1d", _kernel)


def forward(inputs: ConvInputs, silu: bool) -> ConvOutputs:
    """Compute the contract of ``vmm.ops.conv.causal_conv`` with the CUDA kernel."""
    return one_by_one(inputs, lambda taps, reverse: _one(inputs.x, taps, silu, reverse))


def _one(x: Tensor, taps: Taps, silu: bool, reverse: bool) -> Tensor:
    """Convolve; the kernel knows one direction, so the other one flips its input and output."""
    weight, bias = taps
    out = _kernel()(
        x=(x.flip(-1) if reverse else x).contiguous(),
        weight=weight.to(x.dtype).contiguous(),
        bias=None if bias is None else bias.to(x.dtype),
        activation="silu" if silu else None,
    )
    if reverse:
        out = out.flip(-1)
    return out.transpose(1, 2).contiguous().transpose(1, 2)
