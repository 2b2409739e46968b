"""The selective scan as an operator of PyTorch, ``vmm::selective_scan``, with its gradient.

Registered operators are opaque to ``torch.compile`` and ``torch.export``, so these work with every
backend. The backend's name is an argument, chosen before the operator is called: nothing inside a
graph depends on the machine it was traced on. The scan runs in float32 (float64 for such inputs),
also under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vmm.ops import op_tools
from vmm.ops.scan.interface import BACKENDS, RecordedScan, ScanInputs, ScanModule, ScanOptions

_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? bias, "
    "Tensor? state, Tensor? other"
)
_OPTIONS = "bool delta_softplus, bool reverse"
_NUM_INPUTS = len(ScanInputs._fields)


def _split(arguments: tuple[Any, ...]) -> tuple[ScanInputs, ScanOptions]:
    return ScanInputs(*arguments[:_NUM_INPUTS]), ScanOptions(*arguments[_NUM_INPUTS:][:2])


def _starts_shape(inputs: ScanInputs, backend: str) -> tuple[int, ...]:
    if BACKENDS[backend].recorded:
        return (0,)
    return _module(backend).starts_shape(inputs.u, inputs.A)


def _empty_states(inputs: ScanInputs, keep: bool, backend: str) -> tuple[Tensor, Tensor]:
    """Allocate the kept states and the last one, empty where they are not wanted."""
    # In one dimension: a chunk that happens to be the only one would fix the length in a graph.
    size = math.prod(_starts_shape(inputs, backend)) if keep else 0
    dtype = torch.promote_types(inputs.u.dtype, torch.float32)
    last = (0,) if inputs.state is None else inputs.state.shape
    return inputs.u.new_empty(size, dtype=dtype), inputs.u.new_empty(last, dtype=dtype)


def _module(backend: str) -> ScanModule:
    module: ScanModule = BACKENDS[backend].module
    return module


def _recorded(backend: str) -> RecordedScan:
    module: RecordedScan = BACKENDS[backend].module
    return module


@torch.library.custom_op(
    "vmm::selective_scan",
    mutates_args=(),
    schema=f"({_INPUTS}, {_OPTIONS}, bool keep, str backend) -> (Tensor, Tensor, Tensor)",
)
def scan_op(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Scan with one backend.

    Args:
        arguments: The tensors of ``ScanInputs``; ``delta_softplus`` and ``reverse``; whether to
            keep what the gradient needs; the backend's name.

    Returns:
        The output (B, E, L); the kept states, flat; the last state, empty if none was given.
    """
    inputs, options = _split(arguments)
    keep, backend = arguments[-2:]
    starts, last = _empty_states(inputs, keep, backend)
    with op_tools.without_autocast(inputs.u.device):
        if BACKENDS[backend].recorded:
            out, last_state = _recorded(backend).scan(inputs, options)
            if inputs.state is not None:
                assert last_state is not None  # of a stateful backend
                last.copy_(last_state)
        else:
            shaped = starts.view(_starts_shape(inputs, backend)) if keep else None
            wanted = None if inputs.state is None else last
            out = _module(backend).forward(inputs, options, shaped, wanted)
    return op_tools.packed(out), starts, last


@scan_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, _ = _split(arguments)
    return op_tools.empty_packed(inputs.u), *_empty_states(inputs, *arguments[-2:])


@torch.library.custom_op(
    "vmm::selective_scan_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, {_OPTIONS}, Tensor starts, Tensor d_out, Tensor? d_last, str backend) -> "
    f"({', '.join(['Tensor'] * _NUM_INPUTS)})",
)
def scan_backward_op(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradient of every input, of its shape; an absent one gets (0,)."""
    inputs, options = _split(arguments)
    starts, d_out, d_last, backend = arguments[-4:]
    gradients: Sequence[Tensor | None]
    with op_tools.without_autocast(inputs.u.device):
        if BACKENDS[backend].recorded:
            gradients = op_tools.recomputed_gradients(
                lambda *x: _recorded(backend).scan(ScanInputs(*x), options), inputs, (d_out, d_last)
            )
        else:
            shaped = starts.view(_starts_shape(inputs, backend))
            gradients = _module(backend).backward(inputs, options, shaped, d_out, d_last)
    return tuple(op_tools.gradients_like(gradients, inputs))


@scan_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    inputs, _ = _split(arguments)
    return tuple(op_tools.empty_gradients(inputs))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    starts = output[1]
    ctx.mark_non_differentiable(starts)
    ctx.set_materialize_grads(False)  # else a zero gradient as large as the starts
    ctx.save_for_backward(*inputs[:_NUM_INPUTS], starts)
    ctx.options, ctx.backend = inputs[_NUM_INPUTS:-2], inputs[-1]


def _backward(
    ctx: Any, d_out: Tensor | None, _: Tensor | None, d_last: Tensor | None
) -> tuple[Tensor | None, ...]:
    *inputs, starts = ctx.saved_tensors
    absent = [None] * (_NUM_INPUTS + 4)
    if ScanInputs(*inputs).state is None:
        d_last = None  # of an empty tensor
    if d_out is None and d_last is None:
        return tuple(absent)
    if d_out is None:
        d_out = torch.zeros_like(inputs[0])
    gradients = scan_backward_op(*inputs, *ctx.options, starts, d_out, d_last, ctx.backend)
    return (*op_tools.given(gradients, inputs), *absent[_NUM_INPUTS:])


scan_op.register_autograd(_backward, setup_context=_setup_context)
