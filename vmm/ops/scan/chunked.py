"""Selective scan in plain PyTorch, in chunks: any device, any d_state, little memory.

All products that do not depend on the previous state are done for a chunk of steps at once; only
one fused multiply-add per step is sequential. Training saves the inputs and the state at the start
of every chunk; the backward pass recomputes the states of one chunk at a time. A tile is
(chunk, B, N, E), time first and channels last, so every operation runs over contiguous memory.

Shape legend: T steps in a chunk, B batch, E channels, L length, N states per channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.op_tools import empty_packed
from vmm.ops.scan.interface import ScanInputs, ScanOptions

CHUNK = 32


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Return None: it runs everywhere, for u (B, E, L) and A (E, N)."""
    return None


class _Scanner:
    """Cuts the inputs into time-major tiles of the compute type, in the order of the scan."""

    def __init__(self, inputs: ScanInputs, delta_softplus: bool, reverse: bool) -> None:
        self.inputs, self.softplus, self.reverse = inputs, delta_softplus, reverse
        self.dtype = torch.promote_types(inputs.u.dtype, torch.float32)
        self.a = inputs.A.to(self.dtype).t().contiguous()  # (N, E)
        self.a_log2e = self.a * math.log2(math.e)
        self.d = None if inputs.D is None else inputs.D.to(self.dtype)
        self.bias = None if inputs.delta_bias is None else inputs.delta_bias.to(self.dtype)

    def chunks(self) -> Iterator[slice]:
        """Yield the positions of every chunk, in the order of the scan."""
        length = self.inputs.u.shape[-1]
        starts = range(0, length, CHUNK)
        for start in starts:
            stop = min(start + CHUNK, length)
            yield slice(length - stop, length - start) if self.reverse else slice(start, stop)

    def read(self, x: Tensor, at: slice) -> Tensor:
        """Copy positions ``at`` of a (B, K, L) tensor into a (T, B, K) tile."""
        tile = x[..., at].permute(2, 0, 1).to(self.dtype)
        return tile.flip(0) if self.reverse else tile.contiguous()

    def write(self, tile: Tensor, x: Tensor, at: slice) -> None:
        """Copy a (T, B, K) tile to positions ``at`` of a (B, K, L) tensor."""
        x[..., at] = (tile.flip(0) if self.reverse else tile).permute(1, 2, 0)

    def steps(self, at: slice) -> tuple[Tensor, Tensor]:
        """Return the step sizes (T, B, E) and what they were before the softplus."""
        raw = self.read(self.inputs.delta, at)
        if self.bias is not None:
            raw = raw + self.bias
        return (F.softplus(raw, threshold=20.0) if self.softplus else raw), raw

    def states(self, step: Tensor, u: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decays and the states (T, B, N, E) of a chunk that starts from ``state``."""
        decay = (step.unsqueeze(2) * self.a_log2e).exp2_()  # several times as fast as exp_
        states = (step * u).unsqueeze(2) * b.unsqueeze(3)
        for decay_t, state_t in zip(decay.unbind(0), states.unbind(0), strict=True):
            state = state_t.addcmul_(decay_t, state)
        return decay, states

    def outputs(self, u: Tensor, c: Tensor, states: Tensor) -> Tensor:
        """Return the outputs (T, B, E) of a chunk before the gate."""
        y = torch.matmul(c.unsqueeze(2), states).squeeze(2)
        return y if self.d is None else y.addcmul_(u, self.d)


def starts_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Return (chunks, B, N, E): one state at the start of every chunk."""
    return -(-u.shape[-1] // CHUNK), u.shape[0], A.shape[1], A.shape[0]


def forward(
    inputs: ScanInputs, options: ScanOptions, starts: Tensor | None, last: Tensor | None
) -> Tensor:
    """Compute the contract of ``vmm.ops.scan.selective_scan.selective_scan`` chunk by chunk.

    Fills ``starts`` (chunks, B, N, E) and ``last`` (B, E, N); returns (B, E, L).
    """
    scan = _Scanner(inputs, *options)
    out = empty_packed(inputs.u)
    batch, channels, _ = out.shape
    state = scan.a.new_zeros(batch, scan.a.shape[0], channels)
    if inputs.state is not None:
        state += inputs.state.transpose(1, 2)
    for k, at in enumerate(scan.chunks()):
        if starts is not None:
            starts[k] = state
        u, b, c = (scan.read(x, at) for x in (inputs.u, inputs.B, inputs.C))
        step, _ = scan.steps(at)
        _, states = scan.states(step, u, b, state)
        state = states[-1]
        y = scan.outputs(u, c, states)
        if inputs.z is not None:
            y.mul_(F.silu(scan.read(inputs.z, at)))
        scan.write(y, out, at)
    if last is not None:
        last.copy_(state.transpose(1, 2))
    return out


def backward(
    inputs: ScanInputs, options: ScanOptions, starts: Tensor, d_out: Tensor, d_last: Tensor | None
) -> ScanInputs:
    """Walk the chunks of ``d_out`` (B, E, L) from the last; ``carry`` is the state's gradient."""
    scan = _Scanner(inputs, *options)
    d_u, d_delta, d_b, d_c = (empty_packed(x) for x in (inputs.u, inputs.delta, inputs.B, inputs.C))
    d_z = None if inputs.z is None else empty_packed(inputs.z)
    d_a, d_skip = torch.zeros_like(scan.a), scan.a.new_zeros(scan.a.shape[1])
    d_bias = torch.zeros_like(d_skip)
    carry = torch.zeros_like(starts[0])
    if d_last is not None:
        carry += d_last.transpose(1, 2)
    for at, state in zip(reversed(list(scan.chunks())), reversed(starts.unbind(0)), strict=True):
        u, b, c = (scan.read(x, at) for x in (inputs.u, inputs.B, inputs.C))
        step, raw = scan.steps(at)
        decay, states = scan.states(step, u, b, state)
        d_y = scan.read(d_out, at)
        if inputs.z is not None and d_z is not None:
            z = scan.read(inputs.z, at)
            sigmoid = torch.sigmoid(z)
            d_gate = d_y * scan.outputs(u, c, states) * sigmoid * (1 + z * (1 - sigmoid))
            scan.write(d_gate, d_z, at)
            d_y = d_y * z * sigmoid
        d_skip += (d_y * u).sum((0, 1))

        d_states = d_y.unsqueeze(2) * c.unsqueeze(3)
        d_states[-1] += carry
        decay_t, d_states_t = decay.unbind(0), d_states.unbind(0)
        for t in range(len(d_states) - 1, 0, -1):
            d_states_t[t - 1].addcmul_(decay_t[t], d_states_t[t])
        carry = decay[0] * d_states[0]

        scan.write(torch.matmul(d_states, (step * u).unsqueeze(3)).squeeze(3), d_b, at)
        scan.write(torch.matmul(states, d_y.unsqueeze(3)).squeeze(3), d_c, at)
        d_input = torch.matmul(b.unsqueeze(2), d_states).squeeze(2)  # of step * u
        # Gradient of the exponent step * A: d_state * decay * previous state.
        decay.mul_(d_states)
        decay[0].mul_(state)
        decay[1:].mul_(states[:-1])
        d_a += torch.mul(decay, step.unsqueeze(2), out=states).sum((0, 1))
        d_step = decay.mul_(scan.a).sum(2).addcmul_(d_input, u)
        if scan.softplus:
            d_step.mul_(torch.sigmoid(raw).masked_fill_(raw > 20, 1.0))  # linear above
        d_bias += d_step.sum((0, 1))
        scan.write(d_step, d_delta, at)
        d_u_tile = d_input.mul_(step)
        scan.write(d_u_tile if scan.d is None else d_u_tile.addcmul_(d_y, scan.d), d_u, at)
    return ScanInputs(
        d_u,
        d_delta,
        d_a.t().to(inputs.A.dtype),
        d_b,
        d_c,
        None if inputs.D is None else d_skip.to(inputs.D.dtype),
        d_z,
        None if inputs.delta_bias is None else d_bias.to(inputs.delta_bias.dtype),
        None if inputs.state is None else carry.transpose(1, 2),
    )
