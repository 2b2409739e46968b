"""The readable selective scan: one step after the other, plain autograd. For tests, not for use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.scan.interface import ScanInputs, ScanOptions


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Return None: it runs everywhere, for u (B, E, L) and A (E, N)."""
    return None


def scan(inputs: ScanInputs, options: ScanOptions) -> tuple[Tensor, Tensor]:
    """Compute the contract of ``vmm.ops.scan.selective_scan.selective_scan`` in the obvious way.

    Returns:
        The output (B, E, L) and the last state (B, E, N).
    """
    u = inputs.u
    dtype = torch.promote_types(u.dtype, torch.float32)
    a, d_skip = inputs.A.to(dtype), None if inputs.D is None else inputs.D.to(dtype)
    step = inputs.delta.to(dtype)
    if inputs.delta_bias is not None:
        step = step + inputs.delta_bias.to(dtype).unsqueeze(-1)
    if options.delta_softplus:
        step = F.softplus(step, threshold=20.0)

    # One tensor per step; unbind keeps autograd linear in the length, indexing would not.
    rows = [x.to(dtype).unbind(-1) for x in (u, inputs.B, inputs.C)]
    steps = list(zip(step.unbind(-1), *rows, strict=True))
    if options.reverse:
        steps.reverse()
    state = inputs.state
    if state is None:
        state = torch.zeros(u.shape[0], *a.shape, dtype=dtype, device=u.device)
    outputs = []
    for step_t, u_t, b_t, c_t in steps:
        decay = torch.exp(step_t.unsqueeze(-1) * a)
        state = decay * state + (step_t * u_t).unsqueeze(-1) * b_t.unsqueeze(1)
        y_t = (state * c_t.unsqueeze(1)).sum(-1)
        outputs.append(y_t if d_skip is None else y_t + d_skip * u_t)
    if options.reverse:
        outputs.reverse()
    y = torch.stack(outputs, dim=1).transpose(1, 2)
    if inputs.z is not None:
        y = y * F.silu(inputs.z.to(dtype))
    return y.to(u.dtype), state
