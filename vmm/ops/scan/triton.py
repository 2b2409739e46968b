"""Selective scan on GPUs in Triton: float32 state, forward and backward, one or both directions.

What has to move, in numbers per element of u (N states; CHUNK is 64; tiles have E channels; inputs
that are shared by all channels, B and C, not counted): the forward pass reads u, delta and z and
writes the output, 4, and keeps N / 64; the backward pass reads u, delta, z and the gradient of the
output and writes three gradients, 7. Beyond that floor it moves N / 64 kept states, u and delta
once more to get at the states within a chunk, and 4 N / E for partial sums of the gradients of B
and C. Both directions in one call: forward 4 for u and delta, 1 for z, and 3 for the output, that
is 8 instead of 11 for two calls and a sum. Scratch memory that does not grow with the length stays
in cache.

Every launch takes both directions, backward too; there are two, one for each half, because the
gradient of z needs the outputs of both. A single one would have as many programs of twice the
steps, and leave a part of that gradient for each direction, which another launch has to add.

Gradients are sums of partial sums in a fixed order: no atomics, so the same numbers every time.
On the CPU the kernels run under Triton's interpreter (TRITON_INTERPRET=1), which is for tests.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vmm.ops.backends import why_no_triton
from vmm.ops.op_tools import channels_last, empty_packed
from vmm.ops.scan.interface import PairInputs, ScanInputs, ScanOptions

if TYPE_CHECKING:
    from vmm.ops.scan.triton_forward import Options

CHUNK = 64
"""Steps between two kept states, which take d_state / CHUNK times the memory of one input."""

_MOST_STATES = 256


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Say why the Triton scan cannot take u (B, E, L) and A (E, N), or return None."""
    if u.dtype == torch.float64 or A.dtype == torch.float64:
        return "computes in float32, these are float64"
    if A.shape[1] > _MOST_STATES:
        return f"takes at most {_MOST_STATES} states, A has {A.shape[1]}"
    return why_no_triton(u.device)


@functools.cache
def lanes(device: torch.device) -> int:
    """Threads of a warp: 32 on NVIDIA, 64 on AMD's CDNA, where 32 channels would fill half."""
    return int(torch.cuda.get_device_properties(device).warp_size) if device.type == "cuda" else 32


def starts_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Return (directions, slots, B, N, E) for one direction."""
    return 1, -(-u.shape[-1] // CHUNK), u.shape[0], A.shape[1], A.shape[0]


def pair_starts_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Return (directions, slots, B, N, E) for both; each half has slots of its own."""
    half = (u.shape[-1] + 1) // 2
    return 2, 2 * -(-half // CHUNK), u.shape[0], A.shape[1], A.shape[0]


def forward(
    inputs: ScanInputs, options: ScanOptions, starts: Tensor | None, last: Tensor | None
) -> Tensor:
    """Compute the contract of ``vmm.ops.scan.selective_scan.selective_scan``.

    Fills ``starts``, of ``starts_shape``, and ``last`` (B, E, N); returns (B, E, L).
    """
    launch = _Launch([inputs], inputs.z, options)
    out = launch.forward(starts)
    if last is not None:
        last.copy_(launch.carry[0].transpose(1, 2))
    return out


def backward(
    inputs: ScanInputs,
    options: ScanOptions,
    starts: Tensor,
    d_out: Tensor,
    d_last: Tensor | None,
) -> ScanInputs:
    """Return the gradient of every input, of its shape.

    ``starts`` is of ``starts_shape``, ``d_out`` (B, E, L), ``d_last`` (B, E, N).
    """
    launch = _Launch([inputs], inputs.z, options)
    if launch.stateful:
        launch.carry.zero_()
        if d_last is not None:
            launch.carry[0] = d_last.transpose(1, 2)
    (gradients,), d_z = launch.backward(starts, d_out)
    d_state = launch.carry[0].transpose(1, 2) if launch.stateful else None
    return gradients._replace(z=d_z, state=d_state)


def pair_forward(inputs: PairInputs, delta_softplus: bool, starts: Tensor | None) -> Tensor:
    """Compute the contract of ``vmm.ops.scan.bidirectional.bidirectional_scan``.

    Fills ``starts``, of ``pair_starts_shape``; returns (B, E, L).
    """
    return _pair(inputs, delta_softplus).forward(starts)


def pair_backward(
    inputs: PairInputs, delta_softplus: bool, starts: Tensor, d_out: Tensor
) -> PairInputs:
    """Return the gradient of every input of both directions, of its shape.

    ``starts`` is of ``pair_starts_shape``, ``d_out`` (B, E, L).
    """
    (first, second), d_z = _pair(inputs, delta_softplus).backward(starts, d_out)
    return PairInputs.join(first, second, d_z)


def _pair(inputs: PairInputs, delta_softplus: bool) -> _Launch:
    return _Launch(list(inputs.split()), inputs.z, ScanOptions(delta_softplus, reverse=False))


class _Launch:
    """One direction, or the forward and the reversed one, ready for the kernels."""

    def __init__(self, scans: list[ScanInputs], z: Tensor | None, options: ScanOptions) -> None:
        self.scans, self.z, self.options = scans, z, options
        self.u = scans[0].u
        self.batch, self.channels, self.length = self.u.shape
        self.states = scans[0].A.shape[1]
        self.pair = len(scans) == 2
        self.rows = [
            [channels_last(x) for x in (scan.u, scan.delta, scan.B, scan.C)] for scan in scans
        ]
        self.parameters = [self._parameters(scan) for scan in scans]
        width = lanes(self.u.device)
        blocks = -(-self.channels // width)
        self.warps = min(4, 1 << (blocks - 1).bit_length())
        self.width = width * self.warps
        # States, or gradients of states, that one launch leaves for the next.
        self.carry = self.u.new_empty(
            len(scans), self.batch, self.states, self.channels, dtype=torch.float32
        )
        self.stateful = scans[0].state is not None
        if scans[0].state is not None:
            self.carry[0] = scans[0].state.transpose(1, 2)

    def forward(self, starts: Tensor | None) -> Tensor:
        """Return the output, the sum of both directions; fills ``starts``."""
        from vmm.ops.scan.triton_forward import forward_kernel

        out = empty_packed(self.u)
        gate = self._strided(out if self.z is None else channels_last(self.z))
        keep = starts is not None
        shared = (
            gate,
            out,
            self._partial(out),
            self.carry if starts is None else starts,
            self.carry,
        )
        first, *rest = self._directions()
        for part in self._parts():
            forward_kernel[self._grid()](
                first,
                rest[0] if rest else first,
                shared,
                *self._sizes(),
                OPTIONS=self._kernel_options(8),
                PART=part,
                KEEP=keep,
                REVERSE=self.options.reverse,
                num_warps=self.warps,
            )
        return out

    def backward(self, starts: Tensor, d_out: Tensor) -> tuple[list[ScanInputs], Tensor | None]:
        """Return the gradients of every direction, without z, and of z."""
        from vmm.ops.scan.triton_backward import backward_kernel

        options = self._kernel_options(2)
        d_z = None if self.z is None else empty_packed(self.u)
        given = channels_last(d_out)
        gate = self._strided(given if self.z is None else channels_last(self.z))
        partial = self._partial(given if d_z is None else d_z)
        scratch = self.carry.new_empty(
            len(self.scans), self.batch, CHUNK // options.steps, self.states, self.channels
        )
        shared = (self._strided(given), gate, self.carry if d_z is None else d_z, partial)
        results = [self._empty_results() for _ in self.scans]
        first, *rest = self._directions()
        for part in reversed(self._parts()):
            backward_kernel[self._grid()](
                first,
                rest[0] if rest else first,
                results[0],
                results[-1],
                (*shared, starts, self.carry, scratch),
                *self._sizes(),
                OPTIONS=options,
                PART=part,
                REVERSE=self.options.reverse,
                num_warps=self.warps,
            )
        return [self._summed(result) for result in results], d_z

    def _parameters(self, scan: ScanInputs) -> tuple[Tensor, Tensor, Tensor]:
        zeros = self.u.new_zeros(self.channels, dtype=torch.float32)
        return (
            (scan.A.float() * math.log2(math.e)).t().contiguous(),
            zeros if scan.D is None else scan.D.float().contiguous(),
            zeros if scan.delta_bias is None else scan.delta_bias.float().contiguous(),
        )

    @staticmethod
    def _strided(x: Tensor, unit: int = 1) -> tuple[Tensor, int, int]:
        return x, x.stride(0) // unit, x.stride(2) // unit

    def _unit(self) -> int:
        """Return 4 if rows of B and C all start at multiples of 16 bytes in steps of 4, else 1."""
        for _, _, *selected in self.rows:
            for x in selected:
                if x.stride(0) % 4 or x.stride(2) % 4 or x.data_ptr() % 16:
                    return 1
        return 4

    def _directions(self) -> list[tuple[Any, ...]]:
        unit = self._unit()
        return [
            (*(self._strided(x, unit if i > 1 else 1) for i, x in enumerate(rows)), *parameters)
            for rows, parameters in zip(self.rows, self.parameters, strict=True)
        ]

    def _partial(self, like: Tensor) -> Tensor:
        """Return memory for what the first launch leaves for the second: ``like`` if it fits."""
        if not self.pair or like.dtype == torch.float32:
            return like
        return empty_packed(like, torch.float32)

    def _parts(self) -> list[int]:
        from vmm.ops.scan.triton_forward import FIRST, SECOND, WHOLE

        return [int(part.value) for part in ((FIRST, SECOND) if self.pair else (WHOLE,))]

    def _grid(self) -> tuple[int, int, int]:
        return -(-self.channels // self.width), self.batch, len(self.scans)

    def _sizes(self) -> tuple[int, int, int, int, int]:
        split = (self.length + 1) // 2
        slots = 2 * -(-split // CHUNK) if self.pair else -(-self.length // CHUNK)
        return self.length, split, self.channels, self.batch, slots

    def _kernel_options(self, most_steps: int) -> Options:
        from vmm.ops.scan.triton_forward import Options

        tile_states = 1 << (self.states - 1).bit_length()
        return Options(
            states=self.states,
            tile_states=tile_states,
            tile_channels=self.width,
            steps=max(1, most_steps * 16 // max(tile_states, 16)),
            chunk=CHUNK,
            gate=self.z is not None,
            softplus=self.options.delta_softplus,
            stateful=self.stateful,
            unit=self._unit(),
        )

    def _empty_results(self) -> tuple[Tensor, ...]:
        blocks = -(-self.channels // self.width)
        single = self.parameters[0][0]
        d_selected = [
            single.new_empty(blocks, self.batch, self.length, self.states) for _ in range(2)
        ]
        d_a = single.new_empty(self.batch, self.states, self.channels)
        per_channel = [single.new_empty(self.batch, self.channels) for _ in range(2)]
        return empty_packed(self.u), empty_packed(self.u), *d_selected, d_a, *per_channel

    def _summed(self, results: tuple[Tensor, ...]) -> ScanInputs:
        d_u, d_delta, d_b, d_c, d_a, d_skip, d_bias = results
        return ScanInputs(
            d_u,
            d_delta,
            d_a.sum(0).t(),
            d_b.sum(0).transpose(1, 2),
            d_c.sum(0).transpose(1, 2),
            d_skip.sum(0),
            None,
            d_bias.sum(0),
        )
