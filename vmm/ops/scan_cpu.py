"""Selective scan on the CPU, compiled: float32, any d_state, forward and backward.

Inputs whose channels are innermost in memory (transposed views of (B, L, E), as the mixer passes)
are used in place; others are copied once. Training keeps, besides the inputs, the states at every
``TILE``-th step.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vmm.ops.backends import gradient_wanted
from vmm.ops.cpu_blocks import (
    by_block,
    channels_last,
    empty_channels_last,
    from_blocks,
    row_arguments,
    size_arguments,
)
from vmm.ops.cpu_kernel import compile_kernel
from vmm.ops.scan_cpu_kernels import TILE, scratch_size, write_backward, write_forward

_LOG2E = math.log2(math.e)


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Say why the compiled scan cannot take these inputs, or return None."""
    if u.device.type != "cpu":
        return f"needs tensors on the CPU, these are on {u.device.type}"
    if u.dtype == torch.float64 or A.dtype == torch.float64:
        return "computes in float32, these are float64"
    if torch.compiler.is_compiling():
        return "torch.compile and torch.export cannot look inside it"
    if importlib.util.find_spec("llvmlite") is None:
        return "needs the package llvmlite"
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
    """Compute the contract of ``vmm.ops.selective_scan.selective_scan`` in compiled code."""
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    # Conversions stay outside of the Function, so autograd undoes them.
    full = [None if x is None else x.float() for x in tensors]
    keep = gradient_wanted(*tensors)
    out: Tensor = _CompiledScan.apply(*full, delta_softplus, reverse, keep)
    return out.to(u.dtype)


class _CompiledScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        u, delta, a, b, c, d, z, bias, softplus, reverse, keep = inputs
        batch, channels, length = u.shape
        states = a.shape[1]
        rows = {"u": u, "delta": delta, "B": b, "C": c} | ({} if z is None else {"z": z})
        rows = {name: channels_last(x) for name, x in rows.items()}
        zeros = u.new_zeros(channels)
        per_channel = {
            "A": a * _LOG2E,
            "D": zeros if d is None else d,
            "delta_bias": zeros if bias is None else bias,
        }
        per_channel = {name: by_block(x) for name, x in per_channel.items()}
        tiles = -(-length // TILE) if keep else 0
        starts = u.new_empty(tiles, batch, *per_channel["A"].shape)
        out = empty_channels_last(u)

        arguments = _inputs(rows, per_channel, starts, reverse) | row_arguments("out", out, reverse)
        options = (states, z is not None, softplus)
        _run(write_forward, arguments, options, u)
        if keep:
            ctx.save_for_backward(*rows.values(), *per_channel.values(), starts)
            ctx.names = (*rows, *per_channel)
            ctx.options, ctx.reverse = options, reverse
            ctx.given = (d is not None, bias is not None)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        *saved, starts = ctx.saved_tensors
        rows = dict(zip(ctx.names, saved, strict=True))
        per_channel = {name: rows.pop(name) for name in ("A", "D", "delta_bias")}
        rows["d_out"] = channels_last(d_out)
        u = rows["u"]
        batch, channels, length = u.shape
        states, gate, _ = ctx.options

        arguments = _inputs(rows, per_channel, starts, ctx.reverse)
        d_b, d_c = (
            u.new_empty(arguments["groups"], batch, length, states).transpose(2, 3) for _ in "BC"
        )
        results = {name: empty_channels_last(u) for name in ("d_u", "d_delta", "d_z")[: 2 + gate]}
        for name, x in (results | {"d_B": d_b[0], "d_C": d_c[0]}).items():
            arguments |= row_arguments(name, x, ctx.reverse)
        arguments["d_B_group"] = d_b.stride(0) * d_b.element_size()
        sums = {f"d_{name}": x.new_zeros(batch, *x.shape) for name, x in per_channel.items()}
        arguments |= {name: x.data_ptr() for name, x in sums.items()}
        _run(write_backward, arguments, ctx.options, u)

        d_a, d_skip, d_bias = (from_blocks(x.sum(0), channels) for x in sums.values())
        given_d, given_bias = ctx.given
        return (
            results["d_u"],
            results["d_delta"],
            d_a,
            d_b.sum(0),
            d_c.sum(0),
            d_skip if given_d else None,
            results.get("d_z"),
            d_bias if given_bias else None,
            None,
            None,
            None,
        )


def _inputs(
    rows: dict[str, Tensor], per_channel: dict[str, Tensor], starts: Tensor, reverse: bool
) -> dict[str, int]:
    """Describe what both kernels work on; ``starts`` without tiles means that none are kept."""
    arguments = size_arguments(rows["u"])
    for name, x in rows.items():
        arguments |= row_arguments(name, x, reverse)
    arguments |= {name: x.data_ptr() for name, x in per_channel.items()}
    arguments["starts"] = starts.data_ptr() if len(starts) else 0
    arguments["tile_bytes"] = starts.stride(0) * starts.element_size()
    return arguments


def _run(
    write: Callable[..., None],
    arguments: dict[str, int],
    options: tuple[int, bool, bool],
    u: Tensor,
) -> None:
    states = options[0]
    kernel = compile_kernel(write, arguments, *options)
    scratch = scratch_size(states, arguments["group_blocks"])
    kernel.run(arguments, len(u) * arguments["groups"], u.numel() * states, scratch)
