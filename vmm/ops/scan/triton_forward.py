"""The selective scan as a Triton kernel.

A program is one sample, one block of channels and one direction. A tile is (N, E): with a channel
for each thread, a thread holds all states of its channel, and sums over states stay within it. Time
goes in sub-tiles, written out: their rows are all requested before the first is used. Every
``chunk`` steps the state is kept for the gradient, which repeats the forward pass chunk by chunk.

Two directions are scanned by two launches, each with both directions: first each its own first half
(FIRST), which together are all positions, then each its second half (SECOND), where it adds its
output to what the other one left there. So neither waits for the other and no sum depends on which
is faster.

Names: t counts in the order of the scan, positions in that of memory. A comes as (N, E), multiplied
by log2(e). Shape legend: B batch, E channels, L length, N states per channel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vmm.ops.kernels.triton_rows import (
    added,
    gated,
    jit,
    load_rows,
    row_offset,
    softplus,
    store_rows,
    tl,
)

WHOLE = tl.constexpr(0)
FIRST = tl.constexpr(1)
SECOND = tl.constexpr(2)


class Options(NamedTuple):
    """What the kernels are specialised for.

    Args:
        states: N.
        tile_states: N of a tile, a power of two.
        tile_channels: E of a tile, a power of two.
        steps: Steps in a sub-tile.
        chunk: Steps between kept states, a multiple of ``steps``.
        gate: Whether there is z.
        softplus: Whether delta goes through the softplus.
        stateful: Whether ``carry`` holds a state, or the gradient of one, from outside, and is to
            hold the one at the other end; for one direction.
        unit: What the distances of rows and samples of B and C are given in, in numbers; 4 if all
            are multiples of 16 bytes, which allows wide loads.
    """

    states: int
    tile_states: int
    tile_channels: int
    steps: int
    chunk: int
    gate: bool
    softplus: bool
    stateful: bool
    unit: int


@jit
def selected(
    rows: tl.tuple,
    t: tl.tensor,
    at: tl.tuple,
    n: tl.tensor,
    OPTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Load row t of B or C as a column of a tile."""
    pointer, distance = rows
    limit = tl.where(t < at[1], OPTIONS.states, 0)
    address = pointer + row_offset(t, distance, at[2], REVERSE) * OPTIONS.unit + n
    return tl.load(address, mask=n < limit, other=0.0).to(tl.float32)[:, None]


@jit
def tile_offsets(index: tl.tensor, tile: tl.tuple, OPTIONS: tl.constexpr) -> Any:
    """Return the offsets of a tile of a tensor (..., N, E), given how many (N, E) precede it."""
    n, e, channels = tile
    rows = tl.cast(index, tl.int64) * OPTIONS.states + n
    return rows[:, None] * channels + e[None, :]


@jit
def own_tile(channels: tl.tensor, OPTIONS: tl.constexpr) -> Any:
    """Return the states and the channels of this program, and E."""
    e = tl.program_id(0) * OPTIONS.tile_channels + tl.arange(0, OPTIONS.tile_channels)
    n = tl.arange(0, OPTIONS.tile_states)
    return n, e, channels


@jit
def part_interval(
    length: tl.tensor, split: tl.tensor, PART: tl.constexpr, REVERSE: tl.constexpr
) -> Any:
    """Return the first step and the end of a part; the halves meet at position ``split``."""
    half = length - split if REVERSE else split
    begin = half if PART == SECOND else 0 * length
    end = half if PART == FIRST else length
    return begin, end


@jit
def sample_inputs(
    own: tl.tuple,
    batch: tl.tensor,
    tile: tl.tuple,
    OPTIONS: tl.constexpr,
) -> Any:
    """Go to a sample: u, delta, B, C as (pointer, distance of rows), and A, D, bias loaded."""
    u, delta, b, c, a, d, bias = own
    n, e, channels = tile
    here = (n[:, None] < OPTIONS.states) & (e[None, :] < channels)
    rows = (
        (u[0] + batch * u[1], u[2]),
        (delta[0] + batch * delta[1], delta[2]),
        (b[0] + batch * b[1] * OPTIONS.unit, b[2]),
        (c[0] + batch * c[1] * OPTIONS.unit, c[2]),
    )
    parameters = (
        tl.load(a + tile_offsets(0, tile, OPTIONS), mask=here, other=0.0),
        tl.load(d + e, mask=e < channels, other=0.0),
        tl.load(bias + e, mask=e < channels, other=0.0),
    )
    return rows, parameters, here


@jit
def walk(
    rows: tl.tuple,
    parameters: tl.tuple,
    state: tl.tensor,
    at: tl.tuple,
    tile: tl.tuple,
    OPTIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Scan a sub-tile.

    Returns:
        Of each step the raw step size, the step size (zero beyond the end, which leaves states
        alone) and u; the state before the first and after each step; the outputs before the gate.
    """
    a, skip, offset = parameters
    u_rows, delta_rows, b_rows, c_rows = rows
    STEPS: tl.constexpr = OPTIONS.steps
    deltas = load_rows(delta_rows, at, tile, STEPS, REVERSE)
    us = load_rows(u_rows, at, tile, STEPS, REVERSE)
    raws = ()
    steps = ()
    states = (state,)
    ys = ()
    for k in tl.static_range(STEPS):
        t = at[0] + k
        raw = deltas[k] + offset
        step = tl.where(t < at[1], softplus(raw) if OPTIONS.softplus else raw, 0.0)
        raws = raws + (raw,)
        steps = steps + (step,)
        b = selected(b_rows, t, at, tile[0], OPTIONS, REVERSE)
        state = tl.exp2(step[None, :] * a) * state + (step * us[k])[None, :] * b
        states = states + (state,)
        if OUTPUTS:
            c = selected(c_rows, t, at, tile[0], OPTIONS, REVERSE)
            ys = ys + (tl.sum(state * c, axis=0) + skip * us[k],)
    return raws, steps, us, states, ys


@jit
def _scan_part(
    own: tl.tuple,
    shared: tl.tuple,
    sizes: tl.tuple,
    direction: tl.constexpr,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
    KEEP: tl.constexpr,
    REVERSE: tl.constexpr,
) -> None:
    """Scan one part of one direction."""
    z, out, partial, starts, carry = shared
    length, split, channels, batches, slots = sizes
    STEPS: tl.constexpr = OPTIONS.steps
    batch = tl.cast(tl.program_id(1), tl.int64)
    tile = own_tile(channels, OPTIONS)
    rows, parameters, here = sample_inputs(own, batch, tile, OPTIONS)
    sample = batch * length * channels
    z_rows = (z[0] + batch * z[1], z[2])
    left = (partial + sample, channels)
    carry += tile_offsets(direction * batches + batch, tile, OPTIONS)

    begin, end = part_interval(length, split, PART, REVERSE)
    slot = direction * slots + (slots // 2 if PART == SECOND else 0)
    STATES: tl.constexpr = OPTIONS.tile_states  # Triton 3.5 and 3.6 want names in lists of sizes
    CHANNELS: tl.constexpr = OPTIONS.tile_channels
    state = tl.zeros([STATES, CHANNELS], tl.float32)
    if PART == SECOND or OPTIONS.stateful:
        state = tl.load(carry, mask=here, other=0.0)
    for chunk in range(begin, end, OPTIONS.chunk):
        if KEEP:
            index = (slot + (chunk - begin) // OPTIONS.chunk) * batches + batch
            tl.store(starts + tile_offsets(index, tile, OPTIONS), state, mask=here)
        for t0 in range(chunk, tl.minimum(chunk + OPTIONS.chunk, end), STEPS):
            at = (t0, end, length)
            _, _, _, states, ys = walk(rows, parameters, state, at, tile, OPTIONS, True, REVERSE)
            state = states[STEPS]
            if PART == FIRST:
                store_rows(left, ys, at, tile, STEPS, REVERSE)
            else:
                if PART == SECOND:
                    others = load_rows(left, at, tile, STEPS, REVERSE)
                    ys = added(ys, others, STEPS)
                if OPTIONS.gate:
                    gates = load_rows(z_rows, at, tile, STEPS, REVERSE)
                    ys = gated(ys, gates, STEPS)
                store_rows((out + sample, channels), ys, at, tile, STEPS, REVERSE)
    if PART == FIRST or OPTIONS.stateful:
        tl.store(carry, state, mask=here)


@jit
def forward_kernel(
    first: tl.tuple,
    second: tl.tuple,
    shared: tl.tuple,
    length: tl.tensor,
    split: tl.tensor,
    channels: tl.tensor,
    batches: tl.tensor,
    slots: tl.tensor,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
    KEEP: tl.constexpr,
    REVERSE: tl.constexpr,
) -> None:
    """Write the output of one direction (WHOLE), or of a half of both (FIRST, then SECOND).

    Args:
        first: Of one direction: u, delta, B and C, each as (pointer, distance of samples, distance
            of rows), then A (N, E), D and delta_bias in float32.
        second: The same for the reversed one of two directions.
        shared: z like u; ``out``, ``partial`` (float32) packed (B, L, E); ``starts`` (directions,
            slots, B, N, E) and ``carry`` (directions, B, N, E) in float32.
        length: L.
        split: Position where the halves meet.
        channels: E.
        batches: B.
        slots: Kept states per direction.
        OPTIONS: An ``Options``.
        PART: WHOLE, FIRST or SECOND.
        KEEP: Whether to keep states.
        REVERSE: Direction of ``first``.
    """
    sizes = (length, split, channels, batches, slots)
    if tl.program_id(2) == 0:
        _scan_part(first, shared, sizes, 0, OPTIONS, PART, KEEP, REVERSE)
    else:
        _scan_part(second, shared, sizes, 1, OPTIONS, PART, KEEP, True)
