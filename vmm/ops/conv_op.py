"""The causal convolution as an operator of PyTorch, ``vmm::causal_conv1d``, with its gradient.

Built like ``vmm.ops.scan_op``, which says why.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from vmm.ops import op_tools
from vmm.ops.conv_interface import BACKENDS, RECORDED, ConvInputs

_INPUTS = "Tensor x, Tensor weight, Tensor? bias"
_OPTIONS = "bool silu, bool reverse"


@torch.library.custom_op(
    "vmm::causal_conv1d",
    mutates_args=(),
    schema=f"({_INPUTS}, {_OPTIONS}, str backend) -> Tensor",
)
def conv_op(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool, backend: str
) -> Tensor:
    """Convolve (B, E, L) x with one backend; see ``vmm.ops.causal_conv.causal_conv1d``."""
    module = importlib.import_module(BACKENDS[backend])
    with op_tools.without_autocast(x.device):
        return op_tools.packed(module.forward(ConvInputs(x, weight, bias), silu, reverse))


@conv_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return op_tools.empty_packed(x)


@torch.library.custom_op(
    "vmm::causal_conv1d_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, {_OPTIONS}, Tensor d_out, str backend) -> (Tensor, Tensor, Tensor)",
)
def conv_backward_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    reverse: bool,
    d_out: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of every input; an absent bias gets an empty tensor."""
    module = importlib.import_module(BACKENDS[backend])
    inputs = ConvInputs(x, weight, bias)
    with op_tools.without_autocast(x.device):
        if backend in RECORDED:
            gradients = op_tools.recomputed_gradients(
                lambda *y: [module.forward(ConvInputs(*y), silu, reverse)], inputs, [d_out]
            )
        else:
            gradients = module.backward(inputs, silu, reverse, d_out)
    d_x, d_weight, d_bias = op_tools.gradients_like(gradients, inputs)
    return d_x, d_weight, d_bias


@conv_backward_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any) -> tuple[Tensor, ...]:
    return tuple(op_tools.empty_gradients((x, weight, bias)))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options, ctx.backend = inputs[3:5], inputs[5]


def _backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    gradients = conv_backward_op(*inputs, *ctx.options, d_out, ctx.backend)
    return (*op_tools.given(gradients, inputs), None, None, None)


conv_op.register_autograd(_backward, setup_context=_setup_context)
