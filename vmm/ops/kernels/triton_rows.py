"""Triton, and what kernels over (batch, channels, length) need of it. The only file to import it.

A sub-tile is a few steps of one block of channels: a tuple with one row, a vector, per step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

__all__ = [
    "added",
    "gated",
    "jit",
    "load_rows",
    "row_offset",
    "sigmoid",
    "softplus",
    "store_rows",
    "tl",
]


def jit(function: Callable[..., Any]) -> Any:
    """Mark a kernel or a part of one."""
    # Specialised for sizes, each length would be compiled anew. That the number of channels may be
    # divisible must stay hidden too: wide loads of tiles would spread states over threads.
    sizes = {"length", "split", "channels", "batches", "slots"}
    parameters = inspect.signature(function).parameters
    return triton.jit(function, do_not_specialize=[name for name in parameters if name in sizes])


@jit
def softplus(x: tl.tensor) -> Any:
    """Return log(1 + exp(x)), x itself above 20; precise for very negative x too."""
    e = tl.exp(x)
    above_one = 1.0 + e
    rounded = above_one - 1.0  # what of e was added: the quotient makes up for the rest
    log1p = tl.where(rounded == 0.0, e, tl.log(above_one) * (e / rounded))
    return tl.where(x > 20.0, x, log1p)


@jit
def sigmoid(x: tl.tensor) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@jit
def row_offset(t: tl.tensor, distance: tl.tensor, length: tl.tensor, REVERSE: tl.constexpr) -> Any:
    """Return the offset of step t, given the distance of two rows."""
    position = length - 1 - t if REVERSE else t
    return tl.cast(position, tl.int64) * distance


@jit
def load_rows(
    rows: tl.tuple,
    at: tl.tuple,
    tile: tl.tuple,
    STEPS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Load a sub-tile of ``rows``, (pointer, distance of rows); zeros beyond the end.

    ``at`` is the first step of the sub-tile, the end of the part and L; ``tile`` its states, its
    channels and E.
    """
    pointer, distance = rows
    t0, end, length = at
    _, e, channels = tile
    loaded = ()
    for k in tl.static_range(STEPS):
        limit = tl.where(t0 + k < end, channels, 0)
        address = pointer + row_offset(t0 + k, distance, length, REVERSE) + e
        loaded = loaded + (tl.load(address, mask=e < limit, other=0.0).to(tl.float32),)
    return loaded


@jit
def store_rows(
    rows: tl.tuple,
    values: tl.tuple,
    at: tl.tuple,
    tile: tl.tuple,
    STEPS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> None:
    """Undo ``load_rows``."""
    pointer, distance = rows
    t0, end, length = at
    _, e, channels = tile
    for k in tl.static_range(STEPS):
        limit = tl.where(t0 + k < end, channels, 0)
        address = pointer + row_offset(t0 + k, distance, length, REVERSE) + e
        tl.store(address, values[k].to(pointer.dtype.element_ty), mask=e < limit)


@jit
def added(values: tl.tuple, others: tl.tuple, STEPS: tl.constexpr) -> Any:
    """Return the sums of two sub-tiles."""
    result = ()
    for k in tl.static_range(STEPS):
        result = result + (values[k] + others[k],)
    return result


@jit
def gated(values: tl.tuple, gates: tl.tuple, STEPS: tl.constexpr) -> Any:
    """Return a sub-tile times silu(gates)."""
    result = ()
    for k in tl.static_range(STEPS):
        result = result + (values[k] * (gates[k] * sigmoid(gates[k])),)
    return result
