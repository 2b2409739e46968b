"""Selective scan on the CPU, compiled: computes in float32, any d_state, forward and backward.

What has a length is read and written as it is, in float32 or bfloat16. Inputs whose channels are
innermost in memory (transposed views of (B, L, E), as the mixer passes) are used in place; others
are copied once. Training keeps, besides the inputs, the states at every ``TILE``-th step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vmm.ops.backends import why_no_compiled_code
from vmm.ops.kernels.cpu_blocks import (
    as_rows,
    by_block,
    from_blocks,
    row_arguments,
    row_dtype,
    size_arguments,
)
from vmm.ops.kernels.cpu_kernel import compile_kernel, packed_address
from vmm.ops.kernels.cpu_values import LANES
from vmm.ops.op_tools import empty_packed
from vmm.ops.scan.cpu_kernels import (
    TILE,
    scratch_size,
    write_backward,
    write_forward,
    write_pair_forward,
)
from vmm.ops.scan.interface import PairInputs, ScanInputs, ScanOptions

_LOG2E = math.log2(math.e)


why_not = why_no_compiled_code


def starts_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Return (tiles, B, blocks, N, lanes): the states at the start of every tile."""
    batch, channels, length = u.shape
    return -(-length // TILE), batch, -(-channels // LANES), A.shape[1], LANES


def pair_starts_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Return (2, tiles, B, blocks, N, lanes), the shape of two directions' kept states."""
    return 2, *starts_shape(u, A)


def forward(
    inputs: ScanInputs, options: ScanOptions, starts: Tensor | None, last: Tensor | None
) -> Tensor:
    """Compute the contract of ``vmm.ops.scan.selective_scan.selective_scan`` in compiled code.

    Fills ``starts``, of ``starts_shape``, and ``last`` (B, E, N); returns (B, E, L).
    """
    out = empty_packed(inputs.u, row_dtype(inputs.u))
    state = _scan(inputs, options, starts, out)
    if last is not None:
        last.copy_(_from_state(state, last))
    return out.to(inputs.u.dtype)


def pair_forward(inputs: PairInputs, delta_softplus: bool, starts: Tensor | None) -> Tensor:
    """Compute the contract of ``vmm.ops.scan.bidirectional.bidirectional_scan``.

    One common gate takes the sum of the directions, (B, E, L).
    """
    first, second = (one._replace(z=None) for one in inputs.split())
    of_first, of_second = (None, None) if starts is None else starts.unbind(0)
    out = empty_packed(inputs.u, row_dtype(inputs.u))
    states = _to_state(None, first), _to_state(None, second)
    rows, per_channel = _prepare(first)
    arguments = _inputs(rows, per_channel, of_first, states[0], reverse=False)
    others = _prepare(second)
    arguments |= _inputs(*others, of_second, states[1], reverse=True, suffix="_reverse")
    z = None if inputs.z is None else as_rows(inputs.z)
    if z is not None:
        arguments |= row_arguments("z", z, True)
    arguments |= row_arguments("out", out, True)
    waiting = out if out.dtype == torch.float32 else empty_packed(inputs.u, torch.float32)
    arguments |= row_arguments("waiting", waiting, False)
    arguments |= row_arguments("other_reverse", waiting, True)
    _run(write_pair_forward, arguments, delta_softplus, rows["u"], inputs.A.shape[1])
    return out.to(inputs.u.dtype)


def _same_or_empty(x: Tensor, like: Tensor) -> Tensor:
    """Return x itself, which kernels read before they overwrite it, if it has the right type."""
    dtype = row_dtype(like)
    return x if x.dtype == dtype else empty_packed(like, dtype)


def _scan(inputs: ScanInputs, options: ScanOptions, starts: Tensor | None, out: Tensor) -> Tensor:
    """Fill ``out``; returns the last state as kernels keep it."""
    rows, per_channel = _prepare(inputs)
    state = _to_state(inputs.state, inputs)
    arguments = _inputs(rows, per_channel, starts, state, options.reverse)
    arguments |= row_arguments("out", out, options.reverse)
    _run(write_forward, arguments, options.delta_softplus, rows["u"], inputs.A.shape[1])
    return state


def _to_state(x: Tensor | None, inputs: ScanInputs) -> Tensor:
    """Copy (B, E, N) to (B, blocks, N, lanes), the layout of one kept state; None is zeros."""
    batch, *shape = starts_shape(inputs.u, inputs.A)[1:]
    if x is None:
        return inputs.u.new_zeros(batch, *shape, dtype=torch.float32)
    blocks = by_block(x.float().transpose(0, 1)).movedim(1, 0)
    return blocks.clone(memory_format=torch.contiguous_format)  # kernels overwrite it


def _from_state(x: Tensor, like: Tensor) -> Tensor:
    """Undo ``_to_state``."""
    return from_blocks(x.movedim(0, 1), like.shape[1]).transpose(0, 1)


def backward(
    inputs: ScanInputs,
    options: ScanOptions,
    starts: Tensor,
    d_out: Tensor,
    d_last: Tensor | None,
) -> ScanInputs:
    """Return the gradients, in float32 or the inputs' bfloat16.

    ``starts`` is of ``starts_shape``, ``d_out`` (B, E, L), ``d_last`` (B, E, N).
    """
    d_state = _to_state(d_last, inputs)
    results = {name: getattr(inputs, name) for name in ("z", "other")}
    results = {
        f"d_{name}": empty_packed(x, row_dtype(x)) for name, x in results.items() if x is not None
    }
    gradients = _gradients(inputs, options, starts, d_out, d_state, results)
    if inputs.state is None:
        return gradients
    return gradients._replace(state=_from_state(d_state, inputs.state))


def pair_backward(
    inputs: PairInputs, delta_softplus: bool, starts: Tensor, d_out: Tensor
) -> PairInputs:
    """Return the gradients of both directions, in float32 or the inputs' bfloat16.

    ``starts`` is of ``pair_starts_shape``, ``d_out`` (B, E, L).
    """
    first, second = inputs.split()
    of_first, of_second = {}, {}
    if inputs.z is not None:
        y = empty_packed(inputs.u, torch.float32)
        of_first["y"], of_second["d_z"] = y, _same_or_empty(y, inputs.z)
        second = second._replace(other=y)
    d_first, d_second = (
        _gradients(one, options, starts[i], d_out, _to_state(None, one), results)
        for i, (one, options, results) in enumerate(
            (
                (first, ScanOptions(delta_softplus, False), of_first),
                (second, ScanOptions(delta_softplus, True), of_second),
            )
        )
    )
    return PairInputs.join(d_first, d_second, of_second.get("d_z"))


def _gradients(
    inputs: ScanInputs,
    options: ScanOptions,
    starts: Tensor,
    d_out: Tensor,
    d_state: Tensor,
    results: dict[str, Tensor],
) -> ScanInputs:
    """Return the gradients; ``d_state`` goes from that of the last state to that of the first.

    ``results`` (d_z, d_other or y, see ``write_backward``) are filled.
    """
    rows, per_channel = _prepare(inputs)
    rows["d_out"] = as_rows(d_out)
    u = rows["u"]
    batch, channels, length = u.shape

    arguments = _inputs(rows, per_channel, starts, d_state, options.reverse)
    arguments["d_state"] = arguments.pop("state")
    d_b, d_c = (
        u.new_zeros(
            arguments["groups"], batch, length, inputs.A.shape[1], dtype=torch.float32
        ).transpose(2, 3)
        for _ in "BC"
    )
    results |= {f"d_{name}": empty_packed(rows[name]) for name in ("u", "delta")}
    for name, x in (results | {"d_B": d_b[0], "d_C": d_c[0]}).items():
        arguments |= row_arguments(name, x, options.reverse)
    arguments["d_B_group"] = d_b.stride(0) * d_b.element_size()
    sums = {f"d_{name}": x.new_zeros(batch, *x.shape) for name, x in per_channel.items()}
    arguments |= {name: packed_address(name, x) for name, x in sums.items()}
    states = inputs.A.shape[1]
    _run(write_backward, arguments, options.delta_softplus, u, states, scratch_size(states))

    d_a, d_skip, d_bias = (from_blocks(x.sum(0), channels) for x in sums.values())
    return ScanInputs(
        results["d_u"],
        results["d_delta"],
        d_a,
        _summed(d_b),
        _summed(d_c),
        d_skip,
        results.get("d_z"),
        d_bias,
        other=results.get("d_other"),
    )


def _summed(x: Tensor) -> Tensor:
    return x[0] if len(x) == 1 else x.sum(0)  # the sum of one would be a copy


def _prepare(inputs: ScanInputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Lay out the inputs for the kernels: rows in time, and what belongs to channels in blocks."""
    rows = {"u": inputs.u, "delta": inputs.delta, "z": inputs.z, "other": inputs.other}
    laid_out = {name: as_rows(x) for name, x in rows.items() if x is not None}
    # Small, and read number by number.
    laid_out |= {"B": as_rows(inputs.B.float()), "C": as_rows(inputs.C.float())}
    given = {"D": inputs.D, "delta_bias": inputs.delta_bias}
    per_channel = {"A": inputs.A.float() * _LOG2E} | {
        name: inputs.A.new_zeros(inputs.u.shape[1]).float() if x is None else x.float()
        for name, x in given.items()
    }
    return laid_out, {name: by_block(x) for name, x in per_channel.items()}


def _inputs(
    rows: dict[str, Tensor],
    per_channel: dict[str, Tensor],
    starts: Tensor | None,
    state: Tensor,
    reverse: bool,
    suffix: str = "",
) -> dict[str, int]:
    """Describe what the kernels work on; ``suffix`` is added to the names of one direction."""
    arguments = size_arguments(rows["u"])
    for name, x in rows.items():
        arguments |= row_arguments(name + suffix, x, reverse)
    arguments |= {name + suffix: packed_address(name, x) for name, x in per_channel.items()}
    arguments["starts" + suffix] = packed_address("starts", starts)
    arguments["tile_bytes"] = 0 if starts is None else starts.stride(0) * starts.element_size()
    arguments["state" + suffix] = packed_address("state", state)
    return arguments


def _run(
    write: Callable[..., None],
    arguments: dict[str, int],
    softplus: bool,
    u: Tensor,
    states: int,
    scratch: int = 0,
) -> None:
    kernel = compile_kernel(write, arguments, states, softplus)
    kernel.run(arguments, len(u) * arguments["groups"], u.numel() * states, scratch)
