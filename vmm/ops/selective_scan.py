"""The selective scan (S6) of Mamba: its contract, its reference and the choice of a backend.

Shape legend: B batch, E channels (d_inner), L length, N states per channel (d_state).
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from vmm.ops import backends, op_tools
from vmm.ops.scan_interface import BACKEND_VARIABLE, BACKENDS, RECORDED
from vmm.ops.scan_op import scan_op
from vmm.ops.scan_reference import selective_scan as selective_scan_ref

__all__ = ["BACKENDS", "check_shapes", "choose_backend", "selective_scan", "selective_scan_ref"]


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
    name = _resolve(backend, u, A)
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    if name in RECORDED and not torch.compiler.is_compiling():
        module = importlib.import_module(BACKENDS[name])
        # The recurrence needs float32; autocast would silently lower the products inside.
        with torch.autocast(u.device.type, enabled=False):
            recorded: Tensor = module.selective_scan(*tensors, delta_softplus, reverse)
        return recorded
    keep = backends.gradient_wanted(*tensors)
    out: Tensor = scan_op(*tensors, delta_softplus, reverse, keep, name)[0]
    return out


@op_tools.evaluated_when_traced  # tracing cannot look into imports
def _resolve(backend: str, u: Tensor, A: Tensor) -> str:
    return backends.resolve(BACKENDS, BACKEND_VARIABLE, backend, u, A)


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
    """Raise a ValueError that names what does not fit."""
    if u.dim() != 3 or u.shape[-1] == 0:
        raise ValueError(f"u must be (batch, d_inner, length > 0), got {tuple(u.shape)}")
    if not u.is_floating_point():
        raise ValueError(f"u must be of a floating type, got {u.dtype}; convert it first")
    batch, d_inner, length = u.shape
    if A.dim() != 2 or A.shape[0] != d_inner:
        raise ValueError(f"A must be (d_inner={d_inner}, d_state), got {tuple(A.shape)}")
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
