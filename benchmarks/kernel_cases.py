"""The Triton kernels as their operators launch them, and what each must move and compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vmm.ops.conv import triton as conv_triton
from vmm.ops.conv.interface import ConvInputs
from vmm.ops.scan import triton as scan_triton
from vmm.ops.scan.interface import PairInputs, ScanInputs, ScanOptions

STATES, TAPS = 16, 4


class Shape(NamedTuple):
    """What a kernel is estimated for."""

    name: str
    batch: int
    channels: int
    length: int


SHAPES = (
    Shape("M, 8 frames, 8 clips", 8, 1152, 1569),
    Shape("Ti, 64 frames, 1 clip", 1, 384, 12545),
)


class Kernel(NamedTuple):
    """One launch, as the operator makes it.

    Args:
        call: Launches, given a type; kernels before it in the same call are left out by ``place``.
        place: Of this kernel among those that the call launches.
        span: Steps of time that one iteration of the loop takes; a whole program without a loop.
        steps: Steps that one program takes, given L.
        moved: Numbers (of the type, of float32) that it moves per element of (B, L, E).
        least: The same for what cannot be avoided by any kernel of this operator, its share.
        operations: Of the multiply-add units per element, least.
        special: exp, log and 1 / x per element, least.
    """

    call: Callable[[torch.dtype], None]
    place: int
    span: int
    steps: Callable[[int], int]
    moved: tuple[float, float]
    least: tuple[float, float]
    operations: float
    special: float


def _rows(channels: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(2, 64, channels, dtype=dtype).transpose(1, 2)


def _scan(dtype: torch.dtype) -> ScanInputs:
    rows, one = _rows(256, dtype), torch.zeros(256)
    selected = _rows(STATES, dtype)
    return ScanInputs(rows, rows, torch.zeros(256, STATES), selected, selected, one, rows, one)


def _pair(dtype: torch.dtype) -> PairInputs:
    one = _scan(dtype)
    return PairInputs.join(one, one, one.z)


def _starts(directions: int) -> Tensor:
    return torch.zeros(directions, 2, 2, STATES, 256)


def _one_forward(dtype: torch.dtype) -> None:
    options = ScanOptions(delta_softplus=True, reverse=False)
    scan_triton.forward(_scan(dtype), options, _starts(1), None)


def _one_backward(dtype: torch.dtype) -> None:
    options = ScanOptions(delta_softplus=True, reverse=False)
    scan_triton.backward(_scan(dtype), options, _starts(1), _rows(256, dtype), None)


def _both_forward(dtype: torch.dtype) -> None:
    scan_triton.pair_forward(_pair(dtype), True, _starts(2))


def _both_backward(dtype: torch.dtype) -> None:
    scan_triton.pair_backward(_pair(dtype), True, _starts(2), _rows(256, dtype))


def _conv(dtype: torch.dtype) -> ConvInputs:
    taps = torch.zeros(256, TAPS), torch.zeros(256)
    return ConvInputs(_rows(256, dtype), *taps, *taps)


def _conv_forward(dtype: torch.dtype) -> None:
    conv_triton.forward(_conv(dtype), True)


def _conv_backward(dtype: torch.dtype) -> None:
    d_out = _rows(256, dtype)
    conv_triton.backward(_conv(dtype), True, (d_out, d_out))


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


def programs(name: str, shape: Shape, threads: int) -> int:
    """Return how many programs a launch has."""
    if name.startswith("convolution"):
        blocks = -(-shape.channels // conv_triton._TILE_CHANNELS)
        return blocks * shape.batch * -(-shape.length // KERNELS[name].steps(shape.length))
    directions = 2 if name.startswith("both") else 1
    return -(-shape.channels // threads) * shape.batch * directions
