"""The selective scan (S6) of Mamba: its contract, its reference and the choice of a backend.

Shape legend: B batch, E channels (d_inner), L length, N states per channel (d_state).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops import backends, op_tools
from vmm.ops.scan.interface import (
    BACKEND_VARIABLE,
    BACKENDS,
    RecordedScan,
    ScanInputs,
    ScanOptions,
)
from vmm.ops.scan.op import scan_op

__all__ = [
    "BACKENDS",
    "check_shapes",
    "choose_backend",
    "continue_scan",
    "selective_scan",
    "selective_scan_ref",
]


def choose_backend(u: Tensor, A: Tensor) -> tuple[str, dict[str, str]]:
    """Say which backend "auto" takes for these inputs.

    Args:
        u: (B, E, L) input; its device, type and shape decide.
        A: (E, N) state matrix.

    Returns:
        The name and, for each better one, the reason why it was not taken. The environment
        variable VMM_SCAN_BACKEND forces one.

    Raises:
        ValueError: If the forced one is unknown or cannot run here.
    """
    return backends.choose(BACKENDS, BACKEND_VARIABLE, u, A)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Scan a sequence with an input-dependent linear recurrence of N states per channel.

    Computes, per channel, with x_0 = 0 (Mamba, arXiv 2312.00752, algorithm 2):

        dt_t = softplus(delta_t + delta_bias)      (softplus only if asked; linear above 20)
        x_t  = exp(dt_t A) x_{t-1} + dt_t u_t B_t
        y_t  = (C_t . x_t + D u_t) silu(z_t)       (without the terms that are not given)

    All backends compute in float32, or in float64 if ``u`` is. Inputs may have any strides; those
    that are transposed views of channels-last memory, as the mixer passes, are used in place.

    Args:
        u: (B, E, L) float32, float64 or bfloat16.
        delta: (B, E, L) step sizes before bias and softplus.
        A: (E, N) state matrix, negative for a stable recurrence.
        B: (B, N, L) input selection.
        C: (B, N, L) output selection.
        D: (E,) skip connection.
        z: (B, E, L) gate.
        delta_bias: (E,) added to ``delta`` before the softplus.
        delta_softplus: Apply softplus to the step sizes.
        reverse: Scan from the last position to the first; each output stays at its own position,
            so it equals flip(scan(flip(inputs))).
        backend: A name in ``BACKENDS``, or "auto" for the best that can run.

    Returns:
        (B, E, L) in the type of ``u``; ``out.transpose(1, 2)`` is contiguous.

    Raises:
        ValueError: If shapes do not fit or the backend cannot run.
    """
    check_shapes(u, delta, A, B, C, D, z, delta_bias)
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias)
    return _scan(inputs, ScanOptions(delta_softplus, reverse), backend)[0]


def continue_scan(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    other: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Scan one piece of a longer sequence, given the state before it.

    Pieces scanned one after the other (with ``reverse`` from the last to the first) give what
    ``selective_scan`` gives for the whole sequence, also as to gradients.

    Args:
        state: (B, E, N) before the first step of the piece, zeros at the beginning of the sequence;
            float64 if ``u`` is, else float32.
        u: As for ``selective_scan``, like all that follow.
        delta: See there.
        A: See there.
        B: See there.
        C: See there.
        D: See there.
        z: See there.
        delta_bias: See there.
        delta_softplus: See there.
        reverse: See there.
        other: (B, E, L) added to the output before the gate: that of another direction.
        backend: A stateful one of ``BACKENDS``, or "auto" for the best of them that can run.

    Returns:
        The output (B, E, L), and the state (B, E, N) after the last step.

    Raises:
        ValueError: If shapes do not fit or the backend cannot run.
    """
    check_shapes(u, delta, A, B, C, D, z, delta_bias)
    _check_piece(state, u, A, other)
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, state, other)
    options = ScanOptions(delta_softplus, reverse)
    if other is None or BACKENDS[_resolve(backend, u, A, True)].adding:
        out, last = _scan(inputs, options, backend)
    else:
        out, last = _scan(inputs._replace(z=None, other=None), options, backend)
        out = out + other
        out = out if z is None else out * F.silu(z)
    assert last is not None
    return out, last


selective_scan_ref = functools.partial(selective_scan, backend="reference")
"""The readable one, which the others are tested against."""


def _check_piece(state: Tensor, u: Tensor, A: Tensor, other: Tensor | None) -> None:
    shape = (len(u), *A.shape)
    dtype = torch.promote_types(u.dtype, torch.float32)
    if tuple(state.shape) != shape or state.dtype != dtype:
        raise ValueError(
            f"state must be {shape} {dtype} to fit u {tuple(u.shape)} {u.dtype} and A "
            f"{tuple(A.shape)}, got {tuple(state.shape)} {state.dtype}"
        )
    if other is not None and other.shape != u.shape:
        raise ValueError(f"other must be {tuple(u.shape)} like u, got {tuple(other.shape)}")


def _scan(inputs: ScanInputs, options: ScanOptions, backend: str) -> tuple[Tensor, Tensor | None]:
    name = _resolve(backend, inputs.u, inputs.A, inputs.state is not None)
    if BACKENDS[name].recorded and not torch.compiler.is_compiling():
        module: RecordedScan = BACKENDS[name].module
        # The recurrence needs float32; autocast would silently lower the products inside.
        with torch.autocast(inputs.u.device.type, enabled=False):
            return module.scan(inputs, options)
    out, _, last = scan_op(*inputs, *options, backends.gradient_wanted(*inputs), name)
    return out, last


@op_tools.evaluated_when_traced  # tracing cannot look into imports
def _resolve(backend: str, u: Tensor, A: Tensor, stateful: bool) -> str:
    able = {name: one for name, one in BACKENDS.items() if one.stateful or not stateful}
    return backends.resolve(able, BACKEND_VARIABLE, backend, u, A)


def check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Raise a ValueError that names what does not fit.

    u, delta and z are to be (B, E, L), A (E, N), B and C (B, N, L), D and delta_bias (E,).
    """
    if u.dim() != 3 or 0 in u.shape[1:]:
        raise ValueError(f"u must be (batch, d_inner > 0, length > 0), got {tuple(u.shape)}")
    if not u.is_floating_point():
        raise ValueError(f"u must be of a floating type, got {u.dtype}; convert it first")
    batch, d_inner, length = u.shape
    if A.dim() != 2 or A.shape[0] != d_inner or A.shape[1] == 0:
        raise ValueError(f"A must be (d_inner={d_inner}, d_state > 0), got {tuple(A.shape)}")
    selection = (batch, A.shape[1], length)
    expected = {
        "delta": (delta, tuple(u.shape)),
        "B": (B, selection),
        "C": (C, selection),
        "D": (D, (d_inner,)),
        "z": (z, tuple(u.shape)),
        "delta_bias": (delta_bias, (d_inner,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {shape} to fit u {tuple(u.shape)} and A {tuple(A.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
