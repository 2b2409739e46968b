"""The readable selective scan: one step after the other, plain autograd. For tests, not for use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.op_tools import recomputed_gradients
from vmm.ops.scan_interface import ScanInputs, ScanOptions


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Return None: it runs everywhere."""
    return None


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
) -> Tensor:
    """Compute the contract of ``vmm.ops.selective_scan.selective_scan`` in the obvious way."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    a, d_skip = A.to(dtype), None if D is None else D.to(dtype)
    step = delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype).unsqueeze(-1)
    if delta_softplus:
        step = F.softplus(step, threshold=20.0)

    # One tensor per step; unbind keeps autograd linear in the length, indexing would not.
    rows = [x.to(dtype).unbind(-1) for x in (u, B, C)]
    steps = list(zip(step.unbind(-1), *rows, strict=True))
    if reverse:
        steps.reverse()
    state = torch.zeros(u.shape[0], *A.shape, dtype=dtype, device=u.device)
    outputs = []
    for step_t, u_t, b_t, c_t in steps:
        decay = torch.exp(step_t.unsqueeze(-1) * a)
        state = decay * state + (step_t * u_t).unsqueeze(-1) * b_t.unsqueeze(1)
        y_t = (state * c_t.unsqueeze(1)).sum(-1)
        outputs.append(y_t if d_skip is None else y_t + d_skip * u_t)
    if reverse:
        outputs.reverse()
    y = torch.stack(outputs, dim=1).transpose(1, 2)
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype)


def starts_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Nothing is kept besides the inputs."""
    return (0,)


def forward(inputs: ScanInputs, options: ScanOptions, starts: Tensor | None) -> Tensor:
    """Scan inside of the operator."""
    return selective_scan(*inputs, options.delta_softplus, options.reverse)


def backward(inputs: ScanInputs, options: ScanOptions, starts: Tensor, d_out: Tensor) -> ScanInputs:
    """Repeat the scan and let autograd differentiate it."""
    gradients = recomputed_gradients(
        lambda *x: forward(ScanInputs(*x), options, None), inputs, d_out
    )
    return ScanInputs(*gradients)  # type: ignore[arg-type]
