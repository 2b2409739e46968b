"""Both directions of a selective scan in one call: the B-Mamba block of Vim and VideoMamba.

VideoMamba (arXiv 2403.06977, section 3.2) after Vim (arXiv 2401.09417). Registered with
``torch.library`` as ``vmm::bidirectional_scan``, for the reasons that ``vmm.ops.scan.op`` gives.
Shape legend: B batch, E channels (d_inner), L length, N states per channel (d_state).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm.ops import backends, op_tools
from vmm.ops.scan.interface import BACKEND_VARIABLE, BACKENDS, PairInputs, PairModule
from vmm.ops.scan.selective_scan import check_shapes, selective_scan


class Direction(NamedTuple):
    """What one direction does not share with the other, as ``selective_scan`` takes it.

    Args:
        u: (B, E, L) input.
        delta: (B, E, L) step sizes before bias and softplus.
        A: (E, N) state matrix.
        B: (B, N, L) input selection.
        C: (B, N, L) output selection.
        D: (E,) skip connection.
        delta_bias: (E,) added to ``delta`` before the softplus.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None


def bidirectional_scan(
    forward: Direction,
    reverse: Direction,
    z: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Scan from first to last and from last to first, and add the two, gated by the same z.

    Equals ``selective_scan(*forward, z) + selective_scan(*reverse, z, reverse=True)`` up to
    rounding. Backends that can do both at once read z once and need no second output.

    Args:
        forward: The direction from the first position to the last.
        reverse: The other direction; its tensors are in the order of memory, not flipped.
        z: (B, E, L) gate of both.
        delta_softplus: Apply softplus to the step sizes.
        backend: A name in ``BACKENDS``, or "auto" for the best that can run.

    Returns:
        (B, E, L) in the type of ``forward.u``; ``out.transpose(1, 2)`` is contiguous.

    Raises:
        ValueError: If shapes do not fit, the directions differ in shape or type, or the backend
            cannot run.
    """
    for one in (forward, reverse):
        check_shapes(*one[:6], z, one.delta_bias)
    if forward.u.shape != reverse.u.shape or forward.A.shape != reverse.A.shape:
        raise ValueError(
            f"both directions must have the same shapes, u {tuple(forward.u.shape)} and "
            f"{tuple(reverse.u.shape)}, A {tuple(forward.A.shape)} and {tuple(reverse.A.shape)}"
        )
    if forward.u.dtype != reverse.u.dtype:
        raise ValueError(
            f"both directions must have one type, got {forward.u.dtype} and {reverse.u.dtype}"
        )
    name = _resolve(backend, forward.u, forward.A)
    if not BACKENDS[name].fused:
        one_way, other_way = (
            selective_scan(*one[:6], z, one.delta_bias, delta_softplus, flipped, backend=name)
            for one, flipped in ((forward, False), (reverse, True))
        )
        return one_way + other_way
    tensors = (*forward, *reverse, z)
    keep = backends.gradient_wanted(*tensors)
    out: Tensor = bidirectional_op(*tensors, delta_softplus, keep, name)[0]
    return out


@op_tools.evaluated_when_traced  # tracing cannot look into imports
def _resolve(backend: str, u: Tensor, A: Tensor) -> str:
    return backends.resolve(BACKENDS, BACKEND_VARIABLE, backend, u, A)


_NUM_INPUTS = len(PairInputs._fields)
_OPTIONAL = {name for name, kind in PairInputs.__annotations__.items() if "None" in str(kind)}
_INPUTS = ", ".join(f"Tensor{'?' * (x in _OPTIONAL)} {x}" for x in PairInputs._fields)


def _module(backend: str) -> PairModule:
    module: PairModule = BACKENDS[backend].module
    return module


def _empty_starts(inputs: PairInputs, keep: bool, module: PairModule) -> Tensor:
    size = math.prod(module.pair_starts_shape(inputs.u, inputs.A)) if keep else 0
    return inputs.u.new_empty(size, dtype=torch.promote_types(inputs.u.dtype, torch.float32))


@torch.library.custom_op(
    "vmm::bidirectional_scan",
    mutates_args=(),
    schema=f"({_INPUTS}, bool delta_softplus, bool keep, str backend) -> (Tensor, Tensor)",
)
def bidirectional_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Scan with one backend; see ``vmm.ops.scan.op.scan_op``.

    Returns:
        The output (B, E, L); the kept states, flat.
    """
    inputs = PairInputs(*arguments[:_NUM_INPUTS])
    softplus, keep, backend = arguments[_NUM_INPUTS:]
    module = _module(backend)
    starts = _empty_starts(inputs, keep, module)
    with op_tools.without_autocast(inputs.u.device):
        shaped = starts.view(module.pair_starts_shape(inputs.u, inputs.A)) if keep else None
        out = module.pair_forward(inputs, softplus, shaped)
    return op_tools.packed(out), starts


@bidirectional_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs = PairInputs(*arguments[:_NUM_INPUTS])
    module = _module(arguments[-1])
    return op_tools.empty_packed(inputs.u), _empty_starts(inputs, arguments[-2], module)


@torch.library.custom_op(
    "vmm::bidirectional_scan_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, bool delta_softplus, Tensor starts, Tensor d_out, str backend) -> "
    f"({', '.join(['Tensor'] * _NUM_INPUTS)})",
)
def bidirectional_backward_op(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradient of every input, of its shape; an absent one gets (0,)."""
    inputs = PairInputs(*arguments[:_NUM_INPUTS])
    softplus, starts, d_out, backend = arguments[_NUM_INPUTS:]
    module = _module(backend)
    with op_tools.without_autocast(inputs.u.device):
        shaped = starts.view(module.pair_starts_shape(inputs.u, inputs.A))
        gradients = module.pair_backward(inputs, softplus, shaped, d_out)
    return tuple(op_tools.gradients_like(gradients, inputs))


@bidirectional_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(op_tools.empty_gradients(arguments[:_NUM_INPUTS]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    starts = output[1]
    ctx.mark_non_differentiable(starts)
    ctx.set_materialize_grads(False)  # else a zero gradient as large as the starts
    ctx.save_for_backward(*inputs[:_NUM_INPUTS], starts)
    ctx.softplus, _, ctx.backend = inputs[_NUM_INPUTS:]


def _backward(ctx: Any, d_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, starts = ctx.saved_tensors
    options = [None] * 3
    if d_out is None:
        return (*[None] * _NUM_INPUTS, *options)
    gradients = bidirectional_backward_op(*inputs, ctx.softplus, starts, d_out, ctx.backend)
    return (*op_tools.given(gradients, inputs), *options)


bidirectional_op.register_autograd(_backward, setup_context=_setup_context)
