"""The causal convolution as Triton kernels, one or both directions at once.

A tile is (T, E): steps of time by channels. All shifted tiles that a tile depends on are loaded
anew; they are in cache. ``window`` holds those of x, 2 K - 1 of them, from K - 1 steps before to
K - 1 steps after. Shape legend: B batch, E channels, L length, K taps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vmm.ops.kernels.triton_rows import jit, sigmoid, tl


class Options(NamedTuple):
    """What the kernels are specialised for.

    Args:
        taps: K.
        silu: Whether the output goes through SiLU.
        back: Whether there is a direction that looks back.
        ahead: Whether there is one that looks ahead.
        tile_steps: T of a tile, a power of two.
        tile_channels: E of a tile, a power of two.
    """

    taps: int
    silu: bool
    back: bool
    ahead: bool
    tile_steps: int
    tile_channels: int


@jit
def _load(rows: tl.tuple, t: tl.tensor, e: tl.tensor, sizes: tl.tuple) -> Any:
    """Load rows t, zeros where the sequence has none."""
    pointer, distance = rows
    length, width = sizes
    address = pointer + tl.cast(t, tl.int64)[:, None] * distance + e[None, :]
    inside = (t >= 0)[:, None] & (t < length)[:, None] & (e < width)[None, :]
    return tl.load(address, mask=inside, other=0.0).to(tl.float32)


@jit
def _store(rows: tl.tuple, x: tl.tensor, t: tl.tensor, e: tl.tensor, sizes: tl.tuple) -> None:
    pointer, distance = rows
    length, width = sizes
    address = pointer + tl.cast(t, tl.int64)[:, None] * distance + e[None, :]
    inside = (t < length)[:, None] & (e < width)[None, :]
    tl.store(address, x.to(pointer.dtype.element_ty), mask=inside)


@jit
def _window(rows: tl.tuple, t: tl.tensor, e: tl.tensor, sizes: tl.tuple, TAPS: tl.constexpr) -> Any:
    window = ()
    for i in tl.static_range(2 * TAPS - 1):
        window = window + (_load(rows, t + (i - (TAPS - 1)), e, sizes),)
    return window


@jit
def _parameters(own: tl.tuple, e: tl.tensor, width: tl.tensor, TAPS: tl.constexpr) -> Any:
    """Load the K weights, given as (K, E), and the bias of the channels."""
    weight, bias = own
    loaded = ()
    for k in tl.static_range(TAPS):
        loaded = loaded + (tl.load(weight + k * width + e, mask=e < width, other=0.0)[None, :],)
    return loaded, tl.load(bias + e, mask=e < width, other=0.0)[None, :]


@jit
def _convolved(
    window: tl.tuple,
    parameters: tl.tuple,
    OFFSET: tl.constexpr,
    TAPS: tl.constexpr,
    AHEAD: tl.constexpr,
) -> Any:
    """Return what comes before the activation, ``OFFSET`` steps later, or earlier if ahead."""
    weights, total = parameters
    for k in tl.static_range(TAPS):
        total = total + weights[k] * window[2 * (TAPS - 1) - OFFSET - k if AHEAD else OFFSET + k]
    return total


@jit
def _forward_one(
    out: tl.tuple,
    own: tl.tuple,
    window: tl.tuple,
    t: tl.tensor,
    e: tl.tensor,
    sizes: tl.tuple,
    OPTIONS: tl.constexpr,
    AHEAD: tl.constexpr,
) -> None:
    parameters = _parameters(own, e, sizes[1], OPTIONS.taps)
    y = _convolved(window, parameters, 0, OPTIONS.taps, AHEAD)
    _store(out, y * sigmoid(y) if OPTIONS.silu else y, t, e, sizes)


@jit
def forward_kernel(
    x: tl.tuple,
    back: tl.tuple,
    ahead: tl.tuple,
    outs: tl.tuple,
    length: tl.tensor,
    width: tl.tensor,
    OPTIONS: tl.constexpr,
) -> None:
    """Write the output of each direction that is there. One program is one tile.

    Args:
        x: Pointer, distance of samples, distance of rows.
        back: Weight (K, E) and bias (E,) in float32 of what looks back; anything if it is absent.
        ahead: Those of what looks ahead.
        outs: Two, packed (B, L, E).
        length: L.
        width: E.
        OPTIONS: An ``Options``.
    """
    batch = tl.cast(tl.program_id(2), tl.int64)
    t = tl.program_id(0) * OPTIONS.tile_steps + tl.arange(0, OPTIONS.tile_steps)
    e = tl.program_id(1) * OPTIONS.tile_channels + tl.arange(0, OPTIONS.tile_channels)
    sizes = (length, width)
    sample = batch * length * width
    window = _window((x[0] + batch * x[1], x[2]), t, e, sizes, OPTIONS.taps)
    if OPTIONS.back:
        _forward_one((outs[0] + sample, width), back, window, t, e, sizes, OPTIONS, False)
    if OPTIONS.ahead:
        _forward_one((outs[1] + sample, width), ahead, window, t, e, sizes, OPTIONS, True)


@jit
def _backward_one(
    d_out: tl.tuple,
    parameters: tl.tuple,
    window: tl.tuple,
    carried: tl.tuple,
    t: tl.tensor,
    e: tl.tensor,
    sizes: tl.tuple,
    OPTIONS: tl.constexpr,
    AHEAD: tl.constexpr,
) -> Any:
    """Add one direction to the gradient of x, and to the sums that are one for each step of a tile.

    An input reaches the outputs of its own step and of K - 1 later (or earlier) ones, all of whose
    gradients before the activation are computed here.
    """
    TAPS: tl.constexpr = OPTIONS.taps
    d_x, sums = carried
    weights = parameters[0]
    added = ()
    for o in tl.static_range(TAPS):
        d_y = _load(d_out, t - o if AHEAD else t + o, e, sizes)
        if OPTIONS.silu:
            y = _convolved(window, parameters, o, TAPS, AHEAD)
            s = sigmoid(y)
            d_y = d_y * (s * (1.0 + y * (1.0 - s)))
        d_x = d_x + weights[TAPS - 1 - o] * d_y
        if o == 0:
            for k in tl.static_range(TAPS):
                x = window[2 * (TAPS - 1) - k if AHEAD else k]
                added = added + (sums[k] + d_y * x,)
            added = added + (sums[TAPS] + d_y,)
    return d_x, added


@jit
def _store_sums(
    pointer: tl.tensor, sums: tl.tuple, e: tl.tensor, width: tl.tensor, TAPS: tl.constexpr
) -> None:
    for k in tl.static_range(TAPS + 1):
        tl.store(pointer + k * width + e, tl.sum(sums[k], axis=0), mask=e < width)


@jit
def _zeros(OPTIONS: tl.constexpr) -> Any:
    """Return a tile of zeros."""
    # Triton 3.5 and 3.6 take sizes in a list for numbers unless a name makes them constants.
    STEPS: tl.constexpr = OPTIONS.tile_steps
    CHANNELS: tl.constexpr = OPTIONS.tile_channels
    return tl.zeros([STEPS, CHANNELS], tl.float32)


@jit
def backward_kernel(
    x: tl.tuple,
    back: tl.tuple,
    ahead: tl.tuple,
    d_outs: tl.tuple,
    d_x: tl.tensor,
    partial: tl.tuple,
    length: tl.tensor,
    span: tl.tensor,
    width: tl.tensor,
    OPTIONS: tl.constexpr,
) -> None:
    """Write the gradients. One program is ``span`` steps, tile by tile, of a block of channels.

    Args:
        x: As in ``forward_kernel``.
        back: As there.
        ahead: As there.
        d_outs: Two, each as (pointer, distance of samples, distance of rows).
        d_x: Packed (B, L, E).
        partial: Two, (programs along time, B, K + 1, E) in float32: the sums over ``span`` steps
            that make up the gradients of the weights and, last, of the bias.
        length: L.
        span: A multiple of a tile's steps.
        width: E.
        OPTIONS: An ``Options``.
    """
    TAPS: tl.constexpr = OPTIONS.taps
    batch = tl.cast(tl.program_id(2), tl.int64)
    e = tl.program_id(1) * OPTIONS.tile_channels + tl.arange(0, OPTIONS.tile_channels)
    sizes = (length, width)
    of_back = _parameters(back, e, width, TAPS)
    of_ahead = _parameters(ahead, e, width, TAPS)
    zeros = ()
    for _ in tl.static_range(TAPS + 1):
        zeros = zeros + (_zeros(OPTIONS),)
    back_sums = zeros
    ahead_sums = zeros
    begin = tl.program_id(0) * span
    for t0 in range(begin, tl.minimum(begin + span, length), OPTIONS.tile_steps):
        t = t0 + tl.arange(0, OPTIONS.tile_steps)
        window = _window((x[0] + batch * x[1], x[2]), t, e, sizes, TAPS)
        total = _zeros(OPTIONS)
        if OPTIONS.back:
            rows = (d_outs[0][0] + batch * d_outs[0][1], d_outs[0][2])
            total, back_sums = _backward_one(
                rows, of_back, window, (total, back_sums), t, e, sizes, OPTIONS, False
            )
        if OPTIONS.ahead:
            rows = (d_outs[1][0] + batch * d_outs[1][1], d_outs[1][2])
            total, ahead_sums = _backward_one(
                rows, of_ahead, window, (total, ahead_sums), t, e, sizes, OPTIONS, True
            )
        _store((d_x + batch * length * width, width), total, t, e, sizes)
    place = (tl.program_id(0) * tl.num_programs(2) + batch) * (TAPS + 1) * width
    if OPTIONS.back:
        _store_sums(partial[0] + place, back_sums, e, width, TAPS)
    if OPTIONS.ahead:
        _store_sums(partial[1] + place, ahead_sums, e, width, TAPS)
