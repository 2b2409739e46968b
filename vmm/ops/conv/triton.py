"""Causal convolution on GPUs in Triton: float32 sums, forward and backward, one or both directions.

The kernels read channels-last memory in place: the forward pass reads x once for both directions,
and the backward pass repeats it, so nothing but the inputs is saved. Gradients of parameters are
sums of partial sums in a fixed order, as in ``vmm.ops.scan.triton``. On the CPU the kernels run
under Triton's interpreter (TRITON_INTERPRET=1), which is for tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vmm.ops.backends import why_no_triton
from vmm.ops.conv.interface import ConvInputs, ConvOutputs, Taps
from vmm.ops.op_tools import channels_last, empty_packed

if TYPE_CHECKING:
    from vmm.ops.conv.triton_kernels import Options

_TILE_CHANNELS = 64
_TILE_STEPS, _TILE_STEPS_BACKWARD = 16, 4  # as many as there are registers for
_SPAN = 256
"""Steps of one partial sum, of which there are K + 1 per channel."""


def why_not(x: Tensor, weight: Tensor) -> str | None:
    """Say why the Triton convolution cannot take x (B, E, L) and weight (E, K), or return None."""
    if x.dtype == torch.float64 or weight.dtype == torch.float64:
        return "computes in float32, these are float64"
    return why_no_triton(x.device)


def forward(inputs: ConvInputs, silu: bool) -> ConvOutputs:
    """Compute the contract of ``vmm.ops.conv.causal_conv``."""
    from vmm.ops.conv.triton_kernels import forward_kernel

    x = channels_last(inputs.x)
    batch, channels, length = x.shape
    back, ahead = (None if taps is None else empty_packed(x) for taps in inputs.directions())
    grid = -(-length // _TILE_STEPS), -(-channels // _TILE_CHANNELS), batch
    ways = _parameters(inputs)
    outs = _both(back, ahead)
    forward_kernel[grid](
        _strided(x), *ways, outs, length, channels, OPTIONS=_options(inputs, silu, _TILE_STEPS)
    )
    return back, ahead


def backward(inputs: ConvInputs, silu: bool, d_outs: ConvOutputs) -> ConvInputs:
    """Return the gradients; those of parameters in float32."""
    from vmm.ops.conv.triton_kernels import backward_kernel

    x = channels_last(inputs.x)
    batch, channels, length = x.shape
    options = _options(inputs, silu, _TILE_STEPS_BACKWARD)
    d_x = empty_packed(x)
    back, ahead = (None if y is None else channels_last(y) for y in d_outs)
    given = tuple(_strided(y) for y in _both(back, ahead))
    parts = -(-length // _SPAN)
    partial = x.new_empty(2, parts, batch, options.taps + 1, channels, dtype=torch.float32)
    backward_kernel[parts, -(-channels // _TILE_CHANNELS), batch](
        _strided(x),
        *_parameters(inputs),
        given,
        d_x,
        tuple(partial.unbind(0)),
        length,
        _SPAN,
        channels,
        OPTIONS=options,
    )
    found: list[Tensor | None] = []
    for taps, sums in zip(inputs.directions(), partial, strict=True):
        *d_weight, d_bias = sums.sum((0, 1))
        found += [None, None] if taps is None else [torch.stack(d_weight, 1), d_bias]
    return ConvInputs(d_x, *found)


def _both(back: Tensor | None, ahead: Tensor | None) -> tuple[Tensor, Tensor]:
    """Fill the place of an absent direction, which kernels do not look at."""
    one = ahead if back is None else back
    assert one is not None
    return one if back is None else back, one if ahead is None else ahead


def _parameters(inputs: ConvInputs) -> list[tuple[Tensor, Tensor]]:
    back, ahead = inputs.directions()
    one = ahead if back is None else back
    assert one is not None
    return [_laid_out(one if taps is None else taps) for taps in (back, ahead)]


def _laid_out(taps: Taps) -> tuple[Tensor, Tensor]:
    weight, bias = taps
    offset = weight.new_zeros(len(weight)) if bias is None else bias
    return weight.float().t().contiguous(), offset.float().contiguous()


def _strided(x: Tensor) -> tuple[Tensor, int, int]:
    return x, x.stride(0), x.stride(2)


def _options(inputs: ConvInputs, silu: bool, tile_steps: int) -> Options:
    from vmm.ops.conv.triton_kernels import Options

    back, ahead = inputs.directions()
    taps = next(way.weight.shape[1] for way in (back, ahead) if way is not None)
    return Options(
        taps, silu, back is not None, ahead is not None, tile_steps, tile_channels=_TILE_CHANNELS
    )
