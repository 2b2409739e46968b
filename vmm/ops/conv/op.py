"""The causal convolution as an operator of PyTorch, ``vmm::causal_conv1d``, with its gradient.

Built like ``vmm.ops.scan.op``, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vmm.ops import op_tools
from vmm.ops.conv.interface import BACKENDS, ConvInputs, ConvModule

_INPUTS = "Tensor x, Tensor? weight, Tensor? bias, Tensor? weight_reverse, Tensor? bias_reverse"
_NUM_INPUTS = len(ConvInputs._fields)


@torch.library.custom_op(
    "vmm::causal_conv1d",
    mutates_args=(),
    schema=f"({_INPUTS}, bool silu, str backend) -> (Tensor, Tensor)",
)
def conv_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Convolve (B, E, L) x in one or both directions; an absent one gives an empty tensor."""
    inputs, (silu, backend) = ConvInputs(*arguments[:_NUM_INPUTS]), arguments[_NUM_INPUTS:]
    module: ConvModule = BACKENDS[backend].module
    with op_tools.without_autocast(inputs.x.device):
        back, ahead = module.forward(inputs, silu)
    absent = inputs.x.new_empty
    return (
        absent(0) if back is None else op_tools.packed(back),
        absent(0) if ahead is None else op_tools.packed(ahead),
    )


@conv_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs = ConvInputs(*arguments[:_NUM_INPUTS])
    x = inputs.x
    back, ahead = (
        x.new_empty(0) if taps is None else op_tools.empty_packed(x) for taps in inputs.directions()
    )
    return back, ahead


@torch.library.custom_op(
    "vmm::causal_conv1d_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, bool silu, Tensor d_out, Tensor d_out_reverse, str backend) -> "
    f"({', '.join(['Tensor'] * _NUM_INPUTS)})",
)
def conv_backward_op(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradient of every input, of its shape; an absent one gets (0,)."""
    inputs = ConvInputs(*arguments[:_NUM_INPUTS])
    silu, d_back, d_ahead, backend = arguments[_NUM_INPUTS:]
    module: ConvModule = BACKENDS[backend].module
    d_outs = (
        None if inputs.weight is None else d_back,
        None if inputs.weight_reverse is None else d_ahead,
    )
    gradients: Sequence[Tensor | None]
    with op_tools.without_autocast(inputs.x.device):
        if BACKENDS[backend].recorded:
            gradients = op_tools.recomputed_gradients(
                lambda *y: module.forward(ConvInputs(*y), silu), inputs, d_outs
            )
        else:
            gradients = module.backward(inputs, silu, d_outs)
    return tuple(op_tools.gradients_like(gradients, inputs))


@conv_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(op_tools.empty_gradients(arguments[:_NUM_INPUTS]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_NUM_INPUTS])
    ctx.silu, ctx.backend = inputs[_NUM_INPUTS:]


def _backward(ctx: Any, *d_outs: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    gradients = conv_backward_op(*inputs, ctx.silu, *d_outs, ctx.backend)
    return (*op_tools.given(gradients, inputs), None, None)


conv_op.register_autograd(_backward, setup_context=_setup_context)
