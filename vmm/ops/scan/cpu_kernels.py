"""The selective scan and its gradient as CPU kernels, written for ``vmm.ops.kernels.cpu_emitter``.

The states of a block of channels stay in registers for a few rows, and wait in memory while the
other blocks take the same rows; so memory is read once per input and written once per output. Time
is cut into tiles: training keeps the states at the start of each, and the gradient recomputes the
others tile by tile in cache.

The equations are in ``vmm.ops.scan.selective_scan``; A comes multiplied by log2(e). All kernels are
specialised for d_state (``states``), for the softplus, and for the arguments that are there: the
gate z, and ``other``, which is added to the output before the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from vmm.ops.kernels.cpu_blocks import SPAN, Block, each_block, each_span
from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_lane_sums import LaneSums
from vmm.ops.kernels.cpu_values import LANES, Value

TILE = 128
"""Steps between two kept states, which take d_state / TILE times the memory of one input."""

_TOGETHER = 4
"""States whose decays are computed side by side (see ``Emitter.exp2_each``)."""

_AT_ONCE = 8
"""States whose gradients are propagated side by side: more would not fit into registers."""

_LN2 = math.log(2.0)

_ROWS = (
    *("u", "delta", "z", "other", "d_out"),
    *("d_u", "d_delta", "d_z", "d_other", "y"),
)
"""What the gradient reads and writes at every step, of what is there."""


def scratch_size(states: int) -> int:
    """Return how many float32 numbers the gradient kernel needs per thread."""
    return LANES * (states * (2 * TILE + 1) + 4 * TILE)


class _Scan:
    """The scan of one block, and the arithmetic that all kernels share.

    Args:
        at: The block.
        states: d_state.
        softplus: Whether the step sizes go through it.
        suffix: Of the names of this scan's arguments.
    """

    def __init__(self, at: Block, states: int, softplus: bool, suffix: str = "") -> None:
        self.at, self.code, self.states, self._softplus = at, at.code, states, softplus
        self._suffix = suffix
        self.skip = self.code.load(at.per_channel("D" + suffix))
        self._bias = self.code.load(at.per_channel("delta_bias" + suffix))
        self._a = at.per_channel("A" + suffix, states)

    def read(self, name: str, t: Value) -> Value:
        """Load this block of row t."""
        return self.at.read(name + self._suffix, t)

    def load(self, address: Value, count: int) -> list[Value]:
        """Load vectors, one per state."""
        return [self.code.load(address + n * self.code.bytes) for n in range(count)]

    def store(self, states: Sequence[Value], address: Value) -> None:
        """Store vectors, one per state."""
        for n, state in enumerate(states):
            self.code.store(state, address + n * self.code.bytes)

    def start(self, tile: Value) -> Value:
        """Return the address of the states kept at the start of a tile."""
        # (tiles, batch, blocks, states, lanes)
        return (
            self.at.per_sample("starts" + self._suffix, self.states)
            + tile * self.code.arguments["tile_bytes"]
        )

    def raw_step(self, t: Value) -> Value:
        """Return the step size before the softplus."""
        return self.read("delta", t) + self._bias

    def step(self, t: Value) -> Value:
        """Return the step size."""
        raw = self.raw_step(t)
        return self.code.softplus(raw) if self._softplus else raw

    def raw_gradient(self, t: Value, d_step: Value) -> Value:
        """Return the gradient before the softplus, given that of the step size."""
        return d_step * self.code.sigmoid(self.raw_step(t)) if self._softplus else d_step

    def next_step(self, t: Value) -> Value:
        """Return the step size after t, or again the last one.

        The loops ask for it one round ahead: all else in a round waits for the step size, whose
        long chain of operations then overlaps with the round before.
        """
        return self.step(self.code.least(t + 1, self.code.arguments["length"] - 1))

    def a(self, n: int) -> Value:
        """Return A of state n."""
        return self.code.load(self._a + n * self.code.bytes)

    def selected(self, name: str, t: Value, n: int) -> Value:
        """Return number n of B or C at t, in all lanes."""
        return self.code.broadcast(self.at.row(name + self._suffix, t) + 4 * n)

    def sums(self, name: str, t: Value, first: int = 0) -> LaneSums:
        """Start adding sums over this block to the gradient of B or C at t, from state first on."""
        start = self.at.row(name, t) + self.at.group * self.code.arguments["d_B_group"]
        return LaneSums(self.code, start + 4 * first)

    def advance(
        self, step: Value, scaled: Value, old: Sequence[Value], t: Value
    ) -> Iterator[tuple[int, Value, Value]]:
        """Yield n, state n after step t, and its decay."""
        for first in range(0, self.states, _TOGETHER):
            group = range(first, min(first + _TOGETHER, self.states))
            decays = self.code.exp2_each([step * self.a(n) for n in group])
            for n, decay in zip(group, decays, strict=True):
                yield n, decay * old[n] + scaled * self.selected("B", t, n), decay

    def output(self, sums: Sequence[Value], t: Value) -> Value:
        """Return the output at t before the gate, given the sums over states."""
        out = sums[0] + sums[1]
        other = "other" + self._suffix
        return out + self.at.read(other, t) if other in self.code.arguments else out

    def walk(
        self, first: Value, rows: Value, results: Sequence[str], finish: Callable[..., None]
    ) -> None:
        """Scan some rows; the state comes from memory and goes there.

        Args:
            first: The first of them.
            rows: Their number, up to ``SPAN``.
            results: Names of what ``finish`` reads and writes.
            finish: Called with the block, t and the output there before the gate.
        """
        at, code = self.at, self.code
        place = at.per_sample("state" + self._suffix, self.states)
        start = self.load(place, self.states)
        inside = code.least(first % TILE, 1)
        keep = code.arguments["starts" + self._suffix] * (1 - inside)
        code.when(keep, lambda: self.store(start, self.start(first // TILE)))
        names = [*(name + self._suffix for name in ("u", "delta", "other")), *results]

        def one_row(k: Value, step: Value, *state: Value) -> list[Value]:
            t = first + k
            at.expect_next_block(t, SPAN, *names)
            u = self.read("u", t)
            scaled = step * u
            new = [self.next_step(t)]
            y = [self.skip * u, code.number(0.0)]  # two sums: their additions overlap
            for n, state_n, _ in self.advance(step, scaled, state, t):
                new.append(state_n)
                y[n % 2] = y[n % 2] + self.selected("C", t, n) * state_n
            finish(at, t, self.output(y, t))
            return new

        _, *last = code.loop(rows, one_row, self.step(first), *start)
        self.store(last, place)


def _tiles(code: Emitter) -> Value:
    return (code.arguments["length"] + (TILE - 1)) // TILE


def _tile_length(code: Emitter, tile: Value) -> Value:
    return code.least(code.arguments["length"] - tile * TILE, TILE)


def _each_span(code: Emitter, item: Value, body: Callable[[Block, Value, Value], None]) -> None:
    length = code.arguments["length"]
    each_span(code, item, length * 0, length, body)


def write_forward(code: Emitter, states: int, softplus: bool) -> None:
    """Write out = scan(u, delta, A, B, C, D, z, other); keeps states if ``starts`` is not zero.

    ``state`` (batch, blocks, states, lanes) is the one before the first step, and then after the
    last.
    """

    def some_rows(at: Block, first: Value, rows: Value) -> None:
        _Scan(at, states, softplus).walk(first, rows, ("z", "out"), _write_gated)

    code.each_item(lambda item: _each_span(code, item, some_rows))


def write_pair_forward(code: Emitter, states: int, softplus: bool) -> None:
    """Write the sum of two scans, times the gate; the second one's arguments end in ``_reverse``.

    The output of the first waits in rows that are the second one's ``other``.
    """

    def wait(at: Block, t: Value, y: Value) -> None:
        at.write("waiting", t, y)

    def first_way(at: Block, first: Value, rows: Value) -> None:
        _Scan(at, states, softplus).walk(first, rows, ("waiting",), wait)

    def second_way(at: Block, first: Value, rows: Value) -> None:
        _Scan(at, states, softplus, "_reverse").walk(first, rows, ("z", "out"), _write_gated)

    def one_item(item: Value) -> None:
        _each_span(code, item, first_way)
        _each_span(code, item, second_way)

    code.each_item(one_item)


def _write_gated(at: Block, t: Value, y: Value) -> None:
    """Write a row of ``out``: y, times SiLU of z if there is one."""
    if "z" in at.code.arguments:
        y = y * at.code.silu(at.read("z", t))
    at.write("out", t, y)


class _Scratch:
    """Addresses of a thread's private memory: what is known of one tile of one block."""

    def __init__(self, code: Emitter, states: int) -> None:
        self._code, self._vectors = code, states * code.bytes
        sizes = {
            "decay": TILE * self._vectors,
            "state": (TILE + 1) * self._vectors,  # number k is the state before step k
            **dict.fromkeys(("step", "d_y", "d_scaled", "d_step"), TILE * code.bytes),
        }
        self._starts = {}
        address = code.scratch
        for name, size in sizes.items():
            self._starts[name] = address
            address = address + size

    def vector(self, name: str, k: Value) -> Value:
        """Return the address of vector k."""
        return self._starts[name] + k * self._code.bytes

    def states(self, name: str, k: Value) -> Value:
        """Return the address of the vectors of step k, one per state."""
        return self._starts[name] + k * self._vectors


def write_backward(code: Emitter, states: int, softplus: bool) -> None:
    """Write the gradients of all inputs, given that of ``out`` and the kept states.

    d_u, d_delta and d_z are complete; d_state is the gradient of the last state, and then of the
    first. d_A (batch, blocks, states, lanes), d_D and d_delta_bias (batch, blocks, lanes) start
    from zero and have to be summed over samples; d_B and d_C (groups, batch, length, states) start
    from zero and have to be summed over groups. The first of two directions has, in place of d_z,
    ``y``: its output before the gate, which is the ``other`` of the second.
    """
    scratch = _Scratch(code, states)

    def one_item(item: Value) -> None:
        tiles = _tiles(code)

        def one_tile(i: Value) -> None:
            tile = tiles - 1 - i
            length = _tile_length(code, tile)

            def one_block(at: Block) -> None:
                scan = _Scan(at, states, softplus)
                _recompute(scan, tile, length, scratch)
                for first in range(0, states, _AT_ONCE):
                    together = range(first, min(first + _AT_ONCE, states))
                    _propagate(scan, tile, length, scratch, together)

            each_block(code, item, one_block)

        code.loop(tiles, one_tile)

    code.each_item(one_item)


def _recompute(scan: _Scan, tile: Value, length: Value, scratch: _Scratch) -> None:
    """Repeat the forward pass of a tile; leaves decays, states, step sizes, d_y, and d_C."""
    at, code = scan.at, scan.code
    start = scan.load(scan.start(tile), scan.states)
    scan.store(start, scratch.states("state", tile * 0))

    def one_step(k: Value, step: Value, d_skip: Value, *state: Value) -> list[Value]:
        t = tile * TILE + k
        at.expect_next_block(t, -TILE, *_ROWS)
        u, d_y = at.read("u", t), at.read("d_out", t)
        if "z" in code.arguments:
            z = at.read("z", t)
            sigmoid = code.sigmoid(z)
            d_silu, d_y = d_y * (sigmoid * (1.0 + z * (1.0 - sigmoid))), d_y * (z * sigmoid)
        if "d_other" in code.arguments:
            at.write("d_other", t, d_y)
        code.store(step, scratch.vector("step", k))
        code.store(d_y, scratch.vector("d_y", k))
        scaled = step * u
        following = scan.next_step(t)
        y, d_c = [scan.skip * u, code.number(0.0)], scan.sums("d_C", t)
        new = []
        for n, state_n, decay in scan.advance(step, scaled, state, t):
            offset = n * code.bytes
            new.append(state_n)
            # Stored at once: to keep them all until the end, registers are too few.
            code.store(decay, scratch.states("decay", k) + offset)
            code.store(state_n, scratch.states("state", k + 1) + offset)
            y[n % 2] = y[n % 2] + scan.selected("C", t, n) * state_n  # left out if nothing uses it
            d_c.append(d_y * state_n)
        d_c.finish()
        if "y" in code.arguments:
            at.write("y", t, scan.output(y, t))
        if "d_z" in code.arguments:
            at.write("d_z", t, d_silu * scan.output(y, t))
        return [following, d_skip + d_y * u, *new]

    first = scan.step(tile * TILE)
    _, d_skip, *_ = code.loop(length, one_step, first, code.number(0.0), *start)
    code.add_to(at.per_sample("d_D"), d_skip)


def _propagate(scan: _Scan, tile: Value, length: Value, scratch: _Scratch, together: range) -> None:
    """Walk a tile backwards for some of the states.

    ``g`` is the gradient of the state, carried in ``d_state``. What needs the sums over all states
    is done with the last of them.
    """
    at, code = scan.at, scan.code
    is_first, is_last = together.start == 0, together.stop == scan.states
    here = together.start * code.bytes
    d_state, d_a = (at.per_sample(name, scan.states) + here for name in ("d_state", "d_A"))
    zero, count = code.number(0.0), len(together)

    def one_step(i: Value, d_bias: Value, *carried: Value) -> list[Value]:
        k = length - 1 - i
        t = tile * TILE + k
        step, d_y = (code.load(scratch.vector(name, k)) for name in ("step", "d_y"))
        u = at.read("u", t)
        scaled = step * u
        # Two sums each: their additions overlap.
        totals = [
            [zero if is_first else code.load(scratch.vector(name, k)), zero]
            for name in ("d_scaled", "d_step")
        ]
        d_b = scan.sums("d_B", t, together.start)
        following, d_as = [], []
        for place, n in enumerate(together):
            offset = n * code.bytes
            g = d_y * scan.selected("C", t, n) + carried[place]
            totals[0][n % 2] = totals[0][n % 2] + g * scan.selected("B", t, n)
            d_b.append(g * scaled)
            following.append(g * code.load(scratch.states("decay", k) + offset))
            # Gradient of the exponent, step * A.
            d_exponent = following[place] * code.load(scratch.states("state", k) + offset)
            totals[1][n % 2] = totals[1][n % 2] + d_exponent * scan.a(n)
            d_as.append(carried[count + place] + d_exponent * step)
        d_b.finish()
        d_scaled, d_step = (x + y for x, y in totals)
        if is_last:
            at.write("d_u", t, d_scaled * step + scan.skip * d_y)
            d_delta = scan.raw_gradient(t, d_scaled * u + d_step * _LN2)  # A is times log2(e)
            at.write("d_delta", t, d_delta)
            d_bias = d_bias + d_delta
        else:
            code.store(d_scaled, scratch.vector("d_scaled", k))
            code.store(d_step, scratch.vector("d_step", k))
        return [d_bias, *following, *d_as]

    d_bias, *carried = code.loop(
        length, one_step, zero, *scan.load(d_state, count), *[zero] * count
    )
    scan.store(carried[:count], d_state)
    for place in range(count):
        code.add_to(d_a + place * code.bytes, carried[count + place])
    if is_last:
        code.add_to(at.per_sample("d_delta_bias"), d_bias)
