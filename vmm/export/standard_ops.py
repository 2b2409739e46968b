"""vmm's operators in terms of PyTorch's own, for formats that know no others.

The scan goes over chunks of 16 steps, each unrolled, in PyTorch's ``scan`` over a dimension, which
ONNX has as ``Scan``: the graph does not grow with the length of the sequence. For inference only:
the operators' kept states come out empty. Shape legend: K chunks, T steps in a chunk, B batch,
E channels, L length, N states per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan_op as scan_over_chunks

from vmm.ops import bidirectional, conv_op, conv_torch, scan_op  # noqa: F401  registers them
from vmm.ops.conv_interface import ConvInputs
from vmm.ops.op_tools import packed
from vmm.ops.scan_interface import PairInputs, ScanInputs

_CHUNK = 16


def standard_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what ``ExportedProgram.run_decompositions`` replaces vmm's operators by."""
    ops = torch.ops.vmm
    return {
        ops.bidirectional_scan.default: _bidirectional_scan,
        ops.selective_scan.default: _selective_scan,
        ops.causal_conv1d.default: _causal_conv1d,
    }


def _bidirectional_scan(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Stand in for ``vmm.ops.bidirectional.bidirectional_op``."""
    inputs, softplus = PairInputs(*arguments[:-3]), arguments[-3]
    first, second = inputs.split()
    y = _scan(first, softplus, reverse=False) + _scan(second, softplus, reverse=True)
    return packed(_gated(y, inputs.z)), y.new_empty(0)


def _selective_scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for ``vmm.ops.scan_op.scan_op``, from a state of zeros."""
    inputs, (softplus, reverse) = ScanInputs(*arguments[:-4]), arguments[-4:-2]
    assert inputs.state is None  # the towers see whole clips
    y = _scan(inputs, softplus, reverse)
    if inputs.other is not None:
        y = y + inputs.other
    return packed(_gated(y, inputs.z)), y.new_empty(0), y.new_empty(0)


def _causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool, backend: str
) -> Tensor:
    """Stand in for ``vmm.ops.conv_op.conv_op``."""
    return conv_torch.forward(ConvInputs(x, weight, bias), silu, reverse)


def _gated(y: Tensor, z: Tensor | None) -> Tensor:
    return y if z is None else y * F.silu(z)


def _scan(inputs: ScanInputs, softplus: bool, reverse: bool) -> Tensor:
    """Scan (B, E, L) without the gate."""
    step = inputs.delta
    if inputs.delta_bias is not None:
        step = step + inputs.delta_bias.unsqueeze(-1)
    if softplus:
        step = F.softplus(step)
    length = inputs.u.shape[-1]
    # A step of size zero changes no state: whole chunks cost nothing but time.
    padding = -length % _CHUNK

    def chunks(x: Tensor) -> Tensor:
        """Cut (B, C, L) into (K, T, B, C)."""
        x = x.permute(2, 0, 1)
        x = F.pad(x.flip(0) if reverse else x, (0, 0, 0, 0, 0, padding))
        return x.reshape(-1, _CHUNK, *x.shape[1:])

    a = inputs.A.t().contiguous()
    state = inputs.u.new_zeros(inputs.u.shape[0], *a.shape)
    sequences = [chunks(x) for x in (inputs.u, step, inputs.B, inputs.C)]
    _, chunked = scan_over_chunks(_chunk, [state], sequences, (a,))
    y: Tensor = chunked.flatten(0, 1)[:length]
    y = (y.flip(0) if reverse else y).permute(1, 2, 0)
    return y if inputs.D is None else y + inputs.D.unsqueeze(-1) * inputs.u


def _chunk(state: Tensor, u: Tensor, step: Tensor, b: Tensor, c: Tensor, a: Tensor) -> list[Tensor]:
    """Do one chunk: the next state (B, N, E) and the output (T, B, E)."""
    decay = torch.exp(step.unsqueeze(2) * a)
    added = (step * u).unsqueeze(2) * b.unsqueeze(3)
    states = []
    for decay_t, added_t in zip(decay.unbind(0), added.unbind(0), strict=True):
        state = decay_t * state + added_t
        states.append(state)
    y = torch.matmul(c.unsqueeze(2), torch.stack(states)).squeeze(2)
    return [state.clone(), y]
