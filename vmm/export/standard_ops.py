"""vmm's operators in terms of PyTorch's own, for formats that know no others.

The scan goes over chunks of 16 steps, each unrolled, in PyTorch's ``scan`` over a dimension, which
ONNX has as ``Scan``: the graph does not grow with the length of the sequence. For inference only:
the operators' kept states come out empty. Shape legend: K chunks, T steps in a chunk, X directions,
B batch, E channels, L length, N states per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan_op as scan_over_chunks

from vmm.ops.conv import op as conv_op  # noqa: F401  registers them
from vmm.ops.conv import torch as conv_torch
from vmm.ops.conv.interface import ConvInputs
from vmm.ops.op_tools import packed
from vmm.ops.scan import bidirectional  # noqa: F401  registers them
from vmm.ops.scan import op as scan_op  # noqa: F401  registers them
from vmm.ops.scan.interface import PairInputs, ScanInputs

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
    """Stand in for ``vmm.ops.scan.bidirectional.bidirectional_op``."""
    inputs, softplus = PairInputs(*arguments[:-3]), arguments[-3]
    first, second = inputs.split()
    one_way, other_way = _scan([first, second], [False, True], softplus)
    return packed(_gated(one_way + other_way, inputs.z)), one_way.new_empty(0)


def _selective_scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for ``vmm.ops.scan.op.scan_op``, from a state of zeros."""
    inputs, (softplus, reverse) = ScanInputs(*arguments[:-4]), arguments[-4:-2]
    assert inputs.state is None  # the towers see whole clips
    (y,) = _scan([inputs], [reverse], softplus)
    if inputs.other is not None:
        y = y + inputs.other
    return packed(_gated(y, inputs.z)), y.new_empty(0), y.new_empty(0)


def _causal_conv1d(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Stand in for ``vmm.ops.conv.op.conv_op``."""
    *tensors, silu, _ = arguments
    inputs = ConvInputs(*tensors)
    back, ahead = (
        inputs.x.new_empty(0) if out is None else out for out in conv_torch.forward(inputs, silu)
    )
    return back, ahead


def _gated(y: Tensor, z: Tensor | None) -> Tensor:
    return y if z is None else y * F.silu(z)


def _scan(directions: list[ScanInputs], reverse: list[bool], softplus: bool) -> list[Tensor]:
    """Scan some sequences at once, (B, E, L) each, without the gate."""
    length = directions[0].u.shape[-1]
    # A step of size zero changes no state: the last chunk may be filled up.
    padding = -length % _CHUNK

    def chunks(sequences: list[Tensor]) -> Tensor:
        """Cut (B, C, L) each into (K, T, X, B, C)."""
        rows = [x.permute(2, 0, 1) for x in sequences]
        x = torch.stack([x.flip(0) if r else x for x, r in zip(rows, reverse, strict=True)], 1)
        return F.pad(x, (0, 0) * 3 + (0, padding)).reshape(-1, _CHUNK, *x.shape[1:])

    u = chunks([x.u for x in directions])
    step = chunks([_step(x, softplus) for x in directions])
    b, c = chunks([x.B for x in directions]), chunks([x.C for x in directions])
    a = torch.stack([x.A.t() for x in directions]).unsqueeze(1)
    state = u.new_zeros(1, *u.shape[2:4], *a.shape[2:])
    _, chunked = scan_over_chunks(_chunk, [state], [u, step, b, c], (a,))
    outputs = []
    for x, r, y in zip(directions, reverse, chunked.flatten(0, 1)[:length].unbind(1), strict=True):
        y = (y.flip(0) if r else y).permute(1, 2, 0)
        outputs.append(y if x.D is None else y + x.D.unsqueeze(-1) * x.u)
    return outputs


def _step(inputs: ScanInputs, softplus: bool) -> Tensor:
    step = inputs.delta
    if inputs.delta_bias is not None:
        step = step + inputs.delta_bias.unsqueeze(-1)
    return F.softplus(step) if softplus else step


def _chunk(state: Tensor, u: Tensor, step: Tensor, b: Tensor, c: Tensor, a: Tensor) -> list[Tensor]:
    """Do one chunk: the next state (1, X, B, N, E) and the output (T, X, B, E)."""
    decay = torch.exp(step.unsqueeze(3) * a)
    added = (step * u).unsqueeze(3) * b.unsqueeze(4)
    states = []
    for decay_t, added_t in zip(torch.split(decay, 1), torch.split(added, 1), strict=True):
        state = decay_t * state + added_t
        states.append(state)
    y = torch.matmul(c.unsqueeze(3), torch.cat(states)).squeeze(3)
    return [state, y]
