"""The gradient of the selective scan as a Triton kernel, built from ``scan_triton_forward``.

Each chunk is scanned again from its kept state, which gives the state before each of its sub-tiles;
then the sub-tiles are walked through from the last to the first.
"""

from __future__ import annotations

from typing import Any

from vmm.ops.kernels.triton_rows import (
    added,
    gated,
    jit,
    load_rows,
    row_offset,
    sigmoid,
    store_rows,
    tl,
)
from vmm.ops.scan.triton_forward import (
    FIRST,
    SECOND,
    own_tile,
    part_interval,
    sample_inputs,
    selected,
    tile_offsets,
    walk,
)

_LN2 = tl.constexpr(0.6931471805599453)


@jit
def _gate_gradients(d_outs: tl.tuple, ys: tl.tuple, gates: tl.tuple, STEPS: tl.constexpr) -> Any:
    result = ()
    for k in tl.static_range(STEPS):
        s = sigmoid(gates[k])
        d_silu = s * (1.0 + gates[k] * (1.0 - s))
        result = result + (d_outs[k] * ys[k] * d_silu,)
    return result


@jit
def _propagate(
    walked: tl.tuple,
    rows: tl.tuple,
    parameters: tl.tuple,
    d_selected: tl.tuple,
    d_ys: tl.tuple,
    sums: tl.tuple,
    at: tl.tuple,
    n: tl.tensor,
    OPTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Walk a sub-tile backwards; returns the new ``sums``, and the gradients of u and delta.

    ``walked`` is what ``walk`` gave, ``d_selected`` where d_B and d_C go, summed over the channels
    of the tile, and ``d_ys`` the gradient of the outputs before the gate. ``sums`` are the
    gradients of the state after the sub-tile, and of A, D and delta_bias so far.
    """
    raws, steps, us, states = walked
    a, skip, _ = parameters
    g, d_a, d_skip, d_offset = sums
    d_us = ()
    d_deltas = ()
    LAST: tl.constexpr = OPTIONS.steps - 1
    for k in tl.static_range(LAST, -1, -1):
        t = at[0] + k
        limit = tl.where(t < at[1], OPTIONS.states, 0)
        row = row_offset(t, OPTIONS.states, at[2], REVERSE) + n
        d_y = d_ys[k]
        step = steps[k]
        scaled = step * us[k]
        tl.store(d_selected[1] + row, tl.sum(d_y[None, :] * states[k + 1], axis=1), mask=n < limit)
        g += d_y[None, :] * selected(rows[3], t, at, n, OPTIONS, REVERSE)
        tl.store(d_selected[0] + row, tl.sum(g * scaled[None, :], axis=1), mask=n < limit)
        d_scaled = tl.sum(g * selected(rows[2], t, at, n, OPTIONS, REVERSE), axis=0)
        # Written unlike in ``_walk``: the compiler would keep those decays, and spill registers.
        g = g * tl.exp(step[None, :] * (a * _LN2))
        d_exponent = g * states[k]
        d_a += d_exponent * step[None, :]
        d_step = tl.sum(d_exponent * a, axis=0) * _LN2 + d_scaled * us[k]
        d_raw = d_step * sigmoid(raws[k]) if OPTIONS.softplus else d_step
        d_raw = tl.where(t < at[1], d_raw, 0.0)
        d_offset += d_raw
        d_skip += d_y * us[k]
        d_us = (d_scaled * step + skip * d_y,) + d_us
        d_deltas = (d_raw,) + d_deltas
    return (g, d_a, d_skip, d_offset), d_us, d_deltas


@jit
def _sweep(
    rows: tl.tuple,
    parameters: tl.tuple,
    state: tl.tensor,
    scratch: tl.tensor,
    chunk: tl.tensor,
    at: tl.tuple,
    tile: tl.tuple,
    here: tl.tensor,
    OPTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Scan a chunk up to its last sub-tile, storing the state before each; returns their number."""
    STEPS: tl.constexpr = OPTIONS.steps
    subtiles = (tl.minimum(OPTIONS.chunk, at[1] - chunk) + STEPS - 1) // STEPS
    tl.store(scratch, state, mask=here)
    for j in range(1, subtiles):
        before = (chunk + (j - 1) * STEPS, at[1], at[2])
        _, _, _, states, _ = walk(rows, parameters, state, before, tile, OPTIONS, False, REVERSE)
        state = states[STEPS]
        tl.store(scratch + j * OPTIONS.states * tile[2], state, mask=here)
    tl.debug_barrier()
    return subtiles


@jit
def _undo_gate(
    z_rows: tl.tuple,
    d_z_rows: tl.tuple,
    left: tl.tuple,
    d_outs: tl.tuple,
    ys: tl.tuple,
    at: tl.tuple,
    tile: tl.tuple,
    STEPS: tl.constexpr,
    PART: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Store d_z, or outputs for the part that comes later; returns gradients before the gate."""
    gates = load_rows(z_rows, at, tile, STEPS, REVERSE)
    if PART == SECOND:
        store_rows(left, ys, at, tile, STEPS, REVERSE)
    else:
        if PART == FIRST:
            ys = added(ys, load_rows(left, at, tile, STEPS, REVERSE), STEPS)
        d_gates = _gate_gradients(d_outs, ys, gates, STEPS)
        store_rows(d_z_rows, d_gates, at, tile, STEPS, REVERSE)
    return gated(d_outs, gates, STEPS)


@jit
def _subtile(
    rows: tl.tuple,
    parameters: tl.tuple,
    others: tl.tuple,
    results: tl.tuple,
    sums: tl.tuple,
    state: tl.tensor,
    at: tl.tuple,
    tile: tl.tuple,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Store the gradients of a sub-tile that starts from ``state``; returns the new ``sums``."""
    d_out_rows, z_rows, d_z_rows, left = others
    d_u_rows, d_delta_rows, d_selected = results
    d_ys = load_rows(d_out_rows, at, tile, OPTIONS.steps, REVERSE)
    raws, steps, us, states, ys = walk(
        rows, parameters, state, at, tile, OPTIONS, OPTIONS.gate, REVERSE
    )
    if OPTIONS.gate:
        d_ys = _undo_gate(
            z_rows,
            d_z_rows,
            left,
            d_ys,
            ys,
            at,
            tile,
            OPTIONS.steps,
            PART,
            REVERSE,
        )
    sums, d_us, d_deltas = _propagate(
        (raws, steps, us, states),
        rows,
        parameters,
        d_selected,
        d_ys,
        sums,
        at,
        tile[0],
        OPTIONS,
        REVERSE,
    )
    store_rows(d_u_rows, d_us, at, tile, OPTIONS.steps, REVERSE)
    store_rows(d_delta_rows, d_deltas, at, tile, OPTIONS.steps, REVERSE)
    return sums


@jit
def _first_sums(
    places: tl.tuple,
    here: tl.tensor,
    inside: tl.tensor,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
) -> Any:
    """Return the sums to start from: zeros, or those of the second half, which was before.

    ``places`` are those of the carried gradient of the state, and of d_A, d_D and d_delta_bias.
    """
    carry, d_a, d_d, d_bias = places
    STATES: tl.constexpr = OPTIONS.tile_states  # Triton 3.5 and 3.6 want names in lists of sizes
    CHANNELS: tl.constexpr = OPTIONS.tile_channels
    if PART == FIRST or OPTIONS.stateful:
        g = tl.load(carry, mask=here, other=0.0)
    else:
        g = tl.zeros([STATES, CHANNELS], tl.float32)
    if PART == FIRST:
        d_a_sum = tl.load(d_a, mask=here, other=0.0)
        d_skip = tl.load(d_d, mask=inside, other=0.0)
        d_offset = tl.load(d_bias, mask=inside, other=0.0)
    else:
        d_a_sum = tl.zeros([STATES, CHANNELS], tl.float32)
        d_skip = tl.zeros([CHANNELS], tl.float32)
        d_offset = tl.zeros([CHANNELS], tl.float32)
    return g, d_a_sum, d_skip, d_offset


@jit
def _store_sums(
    places: tl.tuple,
    sums: tl.tuple,
    here: tl.tensor,
    inside: tl.tensor,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
) -> None:
    """Undo ``_first_sums``; the gradient of the state goes to the first half, or outside."""
    carry, d_a, d_d, d_bias = places
    tl.store(d_a, sums[1], mask=here)
    tl.store(d_d, sums[2], mask=inside)
    tl.store(d_bias, sums[3], mask=inside)
    if PART == SECOND or OPTIONS.stateful:
        tl.store(carry, sums[0], mask=here)


@jit
def _chunk(
    inputs: tl.tuple,
    others: tl.tuple,
    results: tl.tuple,
    sums: tl.tuple,
    state: tl.tensor,
    scratch: tl.tensor,
    chunk: tl.tensor,
    at: tl.tuple,
    tile: tl.tuple,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
    REVERSE: tl.constexpr,
) -> Any:
    """Store the gradients of a chunk that starts from ``state``; returns the new ``sums``."""
    rows, parameters, here = inputs
    _, end, length = at
    subtiles = _sweep(rows, parameters, state, scratch, chunk, at, tile, here, OPTIONS, REVERSE)
    for j in range(0, subtiles):
        place = subtiles - 1 - j
        own = (chunk + place * OPTIONS.steps, end, length)
        state = tl.load(scratch + place * OPTIONS.states * tile[2], mask=here, other=0.0)
        sums = _subtile(
            rows,
            parameters,
            others,
            results,
            sums,
            state,
            own,
            tile,
            OPTIONS,
            PART,
            REVERSE,
        )
    tl.debug_barrier()
    return sums


@jit
def _other_rows(shared: tl.tuple, batch: tl.tensor, sample: tl.tensor, channels: tl.tensor) -> Any:
    """Go to a sample: d_out, z, d_z and ``partial`` as (pointer, distance of rows)."""
    d_out, z, d_z, partial, _, _, _ = shared
    return (
        (d_out[0] + batch * d_out[1], d_out[2]),
        (z[0] + batch * z[1], z[2]),
        (d_z + sample, channels),
        (partial + sample, channels),
    )


@jit
def _gradient_part(
    own: tl.tuple,
    results: tl.tuple,
    shared: tl.tuple,
    sizes: tl.tuple,
    direction: tl.constexpr,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
    REVERSE: tl.constexpr,
) -> None:
    """Walk one part of one direction backwards, chunk by chunk."""
    d_u, d_delta, d_b, d_c, d_a, d_d, d_bias = results
    _, _, _, _, starts, carry, scratch = shared
    length, split, channels, batches, slots = sizes
    CHUNK: tl.constexpr = OPTIONS.chunk
    batch = tl.cast(tl.program_id(1), tl.int64)
    tile = own_tile(channels, OPTIONS)
    inputs = sample_inputs(own, batch, tile, OPTIONS)
    here = inputs[2]
    sample = batch * length * channels
    block = (tl.program_id(0) * batches + batch) * length * OPTIONS.states
    own_index = direction * batches + batch
    carry += tile_offsets(own_index, tile, OPTIONS)
    scratch += tile_offsets(own_index * (CHUNK // OPTIONS.steps), tile, OPTIONS)
    d_a += tile_offsets(batch, tile, OPTIONS)
    d_d += batch * channels + tile[1]
    d_bias += batch * channels + tile[1]
    places = (carry, d_a, d_d, d_bias)

    begin, end = part_interval(length, split, PART, REVERSE)
    slot = direction * slots + (slots // 2 if PART == SECOND else 0)
    sums = _first_sums(places, here, tile[1] < channels, OPTIONS, PART)
    d_selected = (d_b + block, d_c + block)
    results_here = ((d_u + sample, channels), (d_delta + sample, channels), d_selected)
    others = _other_rows(shared, batch, sample, channels)
    chunks = (end - begin + CHUNK - 1) // CHUNK
    for i in range(0, chunks):
        chunk = begin + (chunks - 1 - i) * CHUNK
        index = (slot + chunks - 1 - i) * batches + batch
        state = tl.load(starts + tile_offsets(index, tile, OPTIONS), mask=here, other=0.0)
        sums = _chunk(
            inputs,
            others,
            results_here,
            sums,
            state,
            scratch,
            chunk,
            (0, end, length),
            tile,
            OPTIONS,
            PART,
            REVERSE,
        )
    _store_sums(places, sums, here, tile[1] < channels, OPTIONS, PART)


@jit
def backward_kernel(
    first: tl.tuple,
    second: tl.tuple,
    first_results: tl.tuple,
    second_results: tl.tuple,
    shared: tl.tuple,
    length: tl.tensor,
    split: tl.tensor,
    channels: tl.tensor,
    batches: tl.tensor,
    slots: tl.tensor,
    OPTIONS: tl.constexpr,
    PART: tl.constexpr,
    REVERSE: tl.constexpr,
) -> None:
    """Write the gradients of one direction (WHOLE), or of a half of both (SECOND, then FIRST).

    Args:
        first: As for ``forward_kernel``, like ``second`` and the sizes.
        second: See there.
        first_results: d_u and d_delta packed (B, L, E); d_B and d_C (blocks of channels, B, L, N);
            d_A (B, N, E), d_D and d_delta_bias (B, E), which are to be summed over samples.
        second_results: The same for the other direction.
        shared: d_out and z like u; d_z and ``partial`` (float32) packed (B, L, E); ``starts`` and
            ``carry`` as for ``forward_kernel``; ``scratch`` (directions, B, sub-tiles, N, E).
        length: L.
        split: Position where the halves meet.
        channels: E.
        batches: B.
        slots: Kept states per direction.
        OPTIONS: An ``Options``.
        PART: WHOLE, SECOND or FIRST.
        REVERSE: Direction of ``first``.
    """
    sizes = (length, split, channels, batches, slots)
    if tl.program_id(2) == 0:
        _gradient_part(first, first_results, shared, sizes, 0, OPTIONS, PART, REVERSE)
    else:
        _gradient_part(second, second_results, shared, sizes, 1, OPTIONS, PART, True)
