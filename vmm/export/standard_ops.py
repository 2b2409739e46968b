"""vmm's operators in terms of PyTorch's own, for formats that know no others.

The scan is PyTorch's ``scan`` over a dimension, which ONNX has as ``Scan``: the graph does not grow
with the length of the sequence. A step is six operators on tensors that stay in the cache; larger
ones, over several steps, take longer for being cut and joined. For inference only: the operators'
kept states come out empty. Shape legend: X directions, B batch, E channels, L length, N states per
channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan_op as scan_over_steps

from vmm.ops.conv import op as conv_op  # noqa: F401  registers them
from vmm.ops.conv import torch as conv_torch
from vmm.ops.conv.interface import ConvInputs
from vmm.ops.scan import bidirectional  # noqa: F401  registers them
from vmm.ops.scan import op as scan_op  # noqa: F401  registers them
from vmm.ops.scan.interface import PairInputs, ScanInputs


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
    return _gated(one_way + other_way, inputs.z), one_way.new_empty(0)


def _selective_scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for ``vmm.ops.scan.op.scan_op``, from a state of zeros."""
    inputs, (softplus, reverse) = ScanInputs(*arguments[:-4]), arguments[-4:-2]
    assert inputs.state is None  # the towers see whole clips
    (y,) = _scan([inputs], [reverse], softplus)
    if inputs.other is not None:
        y = y + inputs.other.transpose(1, 2)
    return _gated(y, inputs.z), y.new_empty(0), y.new_empty(0)


def _causal_conv1d(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Stand in for ``vmm.ops.conv.op.conv_op``."""
    *tensors, silu, _ = arguments
    inputs = ConvInputs(*tensors)
    back, ahead = (
        inputs.x.new_empty(0) if out is None else out for out in conv_torch.forward(inputs, silu)
    )
    return back, ahead


def _gated(y: Tensor, z: Tensor | None) -> Tensor:
    """Apply the gate z (B, E, L) to y (B, L, E), and turn it: (B, E, L), packed."""
    return (y if z is None else y * F.silu(z.transpose(1, 2))).contiguous().transpose(1, 2)


def _scan(directions: list[ScanInputs], reverse: list[bool], softplus: bool) -> list[Tensor]:
    """Scan some sequences at once, without the gate: (B, L, E) each."""

    def steps(sequences: list[Tensor]) -> Tensor:
        """Put (B, L, C) each into (L, X, B, C), in the order of the scan."""
        rows = [x.transpose(0, 1) for x in sequences]
        return torch.stack([x.flip(0) if r else x for x, r in zip(rows, reverse, strict=True)], 1)

    u = [x.u.transpose(1, 2) for x in directions]
    sizes = [_step(x, softplus) for x in directions]
    step, added = steps(sizes), steps([size * x for size, x in zip(sizes, u, strict=True)])
    b = steps([x.B.transpose(1, 2) for x in directions])
    c = steps([x.C.transpose(1, 2) for x in directions])
    a = torch.stack([x.A.t() for x in directions]).unsqueeze(1)
    state = step.new_zeros(*step.shape[1:3], *a.shape[2:])
    sequences = [step.unsqueeze(3), added.unsqueeze(3), b.unsqueeze(4), c.unsqueeze(3)]
    _, scanned = scan_over_steps(_one_step, [state], sequences, (a,))
    outputs = []
    for x, rows, r, y in zip(directions, u, reverse, scanned.squeeze(3).unbind(1), strict=True):
        y = (y.flip(0) if r else y).transpose(0, 1)
        outputs.append(y if x.D is None else y + x.D * rows)
    return outputs


def _step(inputs: ScanInputs, softplus: bool) -> Tensor:
    """Return the step sizes (B, L, E)."""
    step = inputs.delta.transpose(1, 2)
    if inputs.delta_bias is not None:
        step = step + inputs.delta_bias
    if not softplus:
        return step
    # onnxruntime's Softplus takes twice as long as its parts. log(1 + x) is exact for a small x,
    # too, as x * log(y) / (y - 1) with the y that 1 + x is rounded to, but for y = 1.
    x = torch.exp(step.clamp(max=20))
    y = x + (1 + 2**-23)
    return torch.maximum(step, torch.log(y) / (y - 1) * x)


def _one_step(
    state: Tensor, step: Tensor, added: Tensor, b: Tensor, c: Tensor, a: Tensor
) -> list[Tensor]:
    """Return the next state (X, B, N, E) and the output (X, B, 1, E)."""
    state = torch.exp(step * a) * state + added * b
    return [state, torch.matmul(c, state)]
