"""The selective scan as an operator of PyTorch, ``vmm::selective_scan``, with its gradient.

Registered operators are opaque to ``torch.compile`` and ``torch.export``, so these work with every
backend. The backend's name is an argument, chosen before the operator is called: nothing inside a
graph depends on the machine it was traced on. The scan runs in float32 (float64 for such inputs),
also under autocast.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor

from vmm.ops import op_tools
from vmm.ops.scan_interface import BACKENDS, ScanInputs, ScanOptions

_INPUTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? bias"
_OPTIONS = "bool delta_softplus, bool reverse"
_NUM_INPUTS = len(ScanInputs._fields)


def _split(arguments: tuple[Any, ...]) -> tuple[ScanInputs, ScanOptions]:
    return ScanInputs(*arguments[:_NUM_INPUTS]), ScanOptions(*arguments[_NUM_INPUTS:][:2])


def _empty_starts(inputs: ScanInputs, keep: bool, module: Any) -> Tensor:
    # In one dimension: a chunk that happens to be the only one would fix the length in a graph.
    size = math.prod(module.starts_shape(inputs.u, inputs.A)) if keep else 0
    return inputs.u.new_empty(size, dtype=torch.promote_types(inputs.u.dtype, torch.float32))


@torch.library.custom_op(
    "vmm::selective_scan",
    mutates_args=(),
    schema=f"({_INPUTS}, {_OPTIONS}, bool keep, str backend) -> (Tensor, Tensor)",
)
def scan_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Scan with one backend.

    Args:
        arguments: The tensors of ``ScanInputs``; ``delta_softplus`` and ``reverse``; whether to
            keep what the gradient needs; the backend's name.

    Returns:
        The output (B, E, L), and the kept states, flat.
    """
    inputs, options = _split(arguments)
    keep, backend = arguments[-2:]
    module = importlib.import_module(BACKENDS[backend])
    starts = _empty_starts(inputs, keep, module)
    with torch.autocast(inputs.u.device.type, enabled=False):
        shaped = starts.view(module.starts_shape(inputs.u, inputs.A)) if keep else None
        out = module.forward(inputs, options, shaped)
    return op_tools.packed(out), starts


@scan_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs, _ = _split(arguments)
    keep, backend = arguments[-2:]
    module = importlib.import_module(BACKENDS[backend])
    return op_tools.empty_packed(inputs.u), _empty_starts(inputs, keep, module)


@torch.library.custom_op(
    "vmm::selective_scan_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, {_OPTIONS}, Tensor starts, Tensor d_out, str backend) -> "
    f"({', '.join(['Tensor'] * _NUM_INPUTS)})",
)
def scan_backward_op(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradient of every input; an absent one gets an empty tensor."""
    inputs, options = _split(arguments)
    starts, d_out, backend = arguments[-3:]
    module = importlib.import_module(BACKENDS[backend])
    with torch.autocast(inputs.u.device.type, enabled=False):
        shaped = starts.view(module.starts_shape(inputs.u, inputs.A))
        gradients = module.backward(inputs, options, shaped, d_out)
    return tuple(op_tools.gradients_like(gradients, inputs))


@scan_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    inputs, _ = _split(arguments)
    return tuple(op_tools.empty_gradients(inputs))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    starts = output[1]
    ctx.mark_non_differentiable(starts)
    ctx.set_materialize_grads(False)  # else a zero gradient as large as the starts
    ctx.save_for_backward(*inputs[:_NUM_INPUTS], starts)
    ctx.options, ctx.backend = inputs[_NUM_INPUTS:-2], inputs[-1]


def _backward(ctx: Any, d_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, starts = ctx.saved_tensors
    absent = [None] * (_NUM_INPUTS + 4)
    if d_out is None:
        return tuple(absent)
    gradients = scan_backward_op(*inputs, *ctx.options, starts, d_out, ctx.backend)
    return (*op_tools.given(gradients, inputs), *absent[_NUM_INPUTS:])


scan_op.register_autograd(_backward, setup_context=_setup_context)
