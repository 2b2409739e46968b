"""The Triton kernels as their operators launch them, and what each must move and compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm.ops.conv import triton as conv_triton
from vmm.ops.conv.interface import ConvInputs
from vmm.ops.scan import triton as scan_triton
from vmm.ops.scan.interface import PairInputs, ScanInputs, ScanOptions

STATES, TAPS = 16, 4


Launches = Callable[[], object]


class Shape(NamedTuple):
    """What a kernel is estimated for."""

    name: str
    batch: int
    channels: int
    length: int


Prepare = Callable[[torch.dtype, Shape, "torch.device | str"], Launches]
SHAPES = (
    Shape("M, 8 frames, 8 clips", 8, 1152, 1569),
    Shape("Ti, 64 frames, 1 clip", 1, 384, 12545),
)


SMALL = Shape("to compile for", 2, 256, 128)


class Kernel(NamedTuple):
    """One launch, as the operator makes it.

    Args:
        prepare: Makes inputs of a type and shape on a device, and returns a call that launches; it
            launches the kernels of one operator.
        place: Of this kernel among those that the call launches.
        span: Steps of time that one iteration of the loop takes; a whole program without a loop.
        steps: Steps that one program takes, given L.
        moved: Numbers (of the type, of float32) that it moves per element of (B, L, E).
        least: The same for what cannot be avoided by any kernel of this operator, its share.
        operations: Of the multiply-add units per element, least.
        special: exp, log and 1 / x per element, least.
    """

    prepare: Prepare
    place: int
    span: int
    steps: Callable[[int], int]
    moved: tuple[float, float]
    least: tuple[float, float]
    operations: float
    special: float


class _Inputs:
    """Makes them, with the memory that the mixer gives them."""

    def __init__(self, dtype: torch.dtype, shape: Shape, device: torch.device | str) -> None:
        self.dtype, self.shape, self.device = dtype, shape, device

    def rows(self, channels: int | None = None) -> Tensor:
        """Return (B, channels, L) of the type, channels last."""
        size = self.shape.batch, self.shape.length, channels or self.shape.channels
        return torch.rand(size, device=self.device).to(self.dtype).transpose(1, 2)

    def parameter(self, *more: int) -> Tensor:
        """Return (E, ...) float32."""
        return torch.rand(self.shape.channels, *more, device=self.device)

    def scan(self) -> ScanInputs:
        one, selected = self.parameter(), (self.rows(STATES), self.rows(STATES))
        a = -self.parameter(STATES)
        return ScanInputs(self.rows(), self.rows(), a, *selected, one, self.rows(), one)

    def conv(self) -> ConvInputs:
        taps = self.parameter(TAPS), self.parameter()
        return ConvInputs(self.rows(), *taps, *taps)


def _one_forward(*of: Any) -> Launches:
    inputs, options = _Inputs(*of).scan(), ScanOptions(delta_softplus=True, reverse=False)
    starts = inputs.A.new_empty(scan_triton.starts_shape(inputs.u, inputs.A))
    return lambda: scan_triton.forward(inputs, options, starts, None)


def _one_backward(*of: Any) -> Launches:
    make, options = _Inputs(*of), ScanOptions(delta_softplus=True, reverse=False)
    inputs, d_out = make.scan(), make.rows()
    starts = inputs.A.new_zeros(scan_triton.starts_shape(inputs.u, inputs.A))
    return lambda: scan_triton.backward(inputs, options, starts, d_out, None)


def _pair(make: _Inputs) -> tuple[PairInputs, Tensor]:
    one, other = make.scan(), make.scan()
    starts = one.A.new_zeros(scan_triton.pair_starts_shape(one.u, one.A))
    return PairInputs.join(one, other, one.z), starts


def _both_forward(*of: Any) -> Launches:
    inputs, starts = _pair(_Inputs(*of))
    return lambda: scan_triton.pair_forward(inputs, True, starts)


def _both_backward(*of: Any) -> Launches:
    make = _Inputs(*of)
    (inputs, starts), d_out = _pair(make), make.rows()
    return lambda: scan_triton.pair_backward(inputs, True, starts, d_out)


def _conv_forward(*of: Any) -> Launches:
    inputs = _Inputs(*of).conv()
    return lambda: conv_triton.forward(inputs, True)


def _conv_backward(*of: Any) -> Launches:
    make = _Inputs(*of)
    inputs, d_outs = make.conv(), (make.rows(), make.rows())
    return lambda: conv_triton.backward(inputs, True, d_outs)


def _whole(length: int) -> int:
    return length


def _half(length: int) -> int:
    return (length + 1) // 2


_KEPT = STATES / scan_triton.CHUNK
_SUMS = 4 * STATES / 128  # partial sums of d_B and d_C, written and read, per direction
_CONV_SUMS = 2 * (TAPS + 1) / conv_triton._SPAN
# Operations per state update and direction as in benchmarks.scan_report: 7 forward, 15 backward,
# with one power of two each. Halves of both directions are one update per element and state.
_FORWARD, _BACKWARD = (7.0 * STATES, 1.0 * STATES), (15.0 * STATES, 1.0 * STATES)
KERNELS = {
    "scan, forward": Kernel(_one_forward, 0, 8, _whole, (4, _KEPT), (4, 0), *_FORWARD),
    "scan, backward": Kernel(
        _one_backward, 0, 2, _whole, (9, _KEPT + _SUMS), (7, 0), *_BACKWARD
    ),
    "both directions, forward 1": Kernel(
        _both_forward, 0, 8, _half, (2, 1 + _KEPT), (3, 0), *_FORWARD
    ),
    "both directions, forward 2": Kernel(
        _both_forward, 1, 8, _half, (4, 1 + _KEPT), (3, 0), *_FORWARD
    ),
    "both directions, backward 1": Kernel(
        _both_backward, 0, 2, _half, (8, 1 + _KEPT + _SUMS), (5.5, 0), *_BACKWARD
    ),
    "both directions, backward 2": Kernel(
        _both_backward, 1, 2, _half, (9, 1 + _KEPT + _SUMS), (5.5, 0), *_BACKWARD
    ),
    "convolution, forward": Kernel(
        _conv_forward, 0, conv_triton._TILE_STEPS, lambda n: conv_triton._TILE_STEPS,
        (3, 0), (3, 0), 2 * (TAPS + 3), 2 * 2,
    ),
    "convolution, backward": Kernel(
        _conv_backward, 0, conv_triton._TILE_STEPS_BACKWARD, lambda n: conv_triton._SPAN,
        (4, _CONV_SUMS), (4, 0), 2 * (3 * TAPS + 6), 2 * 2,
    ),
}  # fmt: skip


def operators() -> dict[str, list[str]]:
    """Return the names of the kernels that each operator launches."""
    found: dict[str, list[str]] = {}
    for name in KERNELS:
        found.setdefault(name.rstrip(" 12"), []).append(name)
    return found


def programs(name: str, shape: Shape, threads: int) -> int:
    """Return how many programs a launch has."""
    if name.startswith("convolution"):
        blocks = -(-shape.channels // conv_triton._TILE_CHANNELS)
        return blocks * shape.batch * -(-shape.length // KERNELS[name].steps(shape.length))
    directions = 2 if name.startswith("both") else 1
    return -(-shape.channels // threads) * shape.batch * directions
