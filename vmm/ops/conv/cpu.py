"""Causal convolution on the CPU, compiled: channels-last, SiLU fused, forward and backward.

A block of channels keeps its taps and the last inputs in registers for a few rows, then the next
block takes the same rows. The gradient is one such walk too: it repeats the forward pass, so
nothing but the inputs is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from vmm.ops.backends import why_no_compiled_code
from vmm.ops.conv.interface import ConvInputs, ConvOutputs, Taps
from vmm.ops.kernels.cpu_blocks import (
    SPAN,
    Block,
    as_rows,
    by_block,
    each_block,
    each_span,
    from_blocks,
    row_arguments,
    size_arguments,
)
from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_kernel import compile_kernel, packed_address
from vmm.ops.kernels.cpu_values import LANES, Value
from vmm.ops.op_tools import empty_packed

_SUFFIXES = ("", "_reverse")
"""Of the names that belong to one direction."""


why_not = why_no_compiled_code


def forward(inputs: ConvInputs, silu: bool) -> ConvOutputs:
    """Compute the contract of ``vmm.ops.conv.causal_conv`` in compiled code."""
    x = as_rows(inputs.x)
    ways = _ways(inputs)
    outs = {f"out{suffix}": empty_packed(x) for suffix in ways}
    _run(write_forward, {"x": x} | outs, _parameters(ways), silu)
    back, ahead = (outs.get(f"out{suffix}") for suffix in _SUFFIXES)
    dtype = inputs.x.dtype
    return None if back is None else back.to(dtype), None if ahead is None else ahead.to(dtype)


def backward(inputs: ConvInputs, silu: bool, d_outs: ConvOutputs) -> ConvInputs:
    """Return the gradients; those of parameters in float32."""
    x = as_rows(inputs.x)
    d_x = empty_packed(x)
    parameters = _parameters(_ways(inputs))
    sums = {f"d_{name}": y.new_empty(len(x), *y.shape) for name, y in parameters.items()}
    rows = {"x": x, "d_x": d_x}
    given = ((suffix, y) for suffix, y in zip(_SUFFIXES, d_outs, strict=True) if y is not None)
    rows |= {f"d_out{suffix}": as_rows(y) for suffix, y in given}
    _run(write_backward, rows, parameters | sums, silu)
    found = {name: from_blocks(y.sum(0), x.shape[1]) for name, y in sums.items()}
    return ConvInputs(d_x, **{name.removeprefix("d_"): y for name, y in found.items()})


def _ways(inputs: ConvInputs) -> dict[str, Taps]:
    """Return the directions that are there, by the suffix of their names."""
    ways = zip(_SUFFIXES, inputs.directions(), strict=True)
    return {suffix: taps for suffix, taps in ways if taps is not None}


def _parameters(ways: dict[str, Taps]) -> dict[str, Tensor]:
    """Return weights (blocks, K, lanes) and biases (blocks, lanes), a weight first."""
    found: dict[str, Tensor] = {}
    for suffix, (weight, bias) in ways.items():
        offset = weight.new_zeros(len(weight)) if bias is None else bias
        found |= {f"weight{suffix}": weight.float(), f"bias{suffix}": offset.float()}
    return {name: by_block(y) for name, y in found.items()}


class _Conv:
    """One direction of one block.

    Looking ahead by K - 1 rows is looking back from K - 1 rows later with the taps mirrored, so
    both directions work on the same window of inputs, ``lag`` rows apart.

    Args:
        at: The block.
        taps: K.
        suffix: Of the names of this direction's arguments.
    """

    def __init__(self, at: Block, taps: int, suffix: str) -> None:
        code = at.code
        start = at.per_channel("weight" + suffix, taps)
        weight = [code.load(start + k * code.bytes) for k in range(taps)]
        self.suffix, self.lag = suffix, taps - 1 if suffix else 0
        self.weight = weight[::-1] if suffix else weight
        self.bias = code.load(at.per_channel("bias" + suffix))

    def __call__(self, window: list[Value]) -> Value:
        total = self.bias
        for weight, x in zip(self.weight, window, strict=True):
            total = total + weight * x
        return total


class _Row(NamedTuple):
    """Where a walk is."""

    at: Block
    ways: list[_Conv]
    t: Value
    back: bool
    """Whether row t exists."""
    ahead: bool
    """Whether row t - (K - 1) does."""

    def has(self, conv: _Conv) -> bool:
        """Whether the row that a direction is about exists."""
        return self.ahead if conv.lag else self.back

    def expect(self, *names: str) -> None:
        """Bring the next block of all rows that this one reads or writes closer."""
        self.at.expect_next_block(self.t, SPAN, *names)
        for conv in self.ways:
            for name in ("out", "d_out"):
                self.at.expect_next_block(self.t - conv.lag, SPAN, name + conv.suffix)


class _Walk:
    """A walk over all rows and K - 1 more of the blocks of an item.

    Args:
        code: The kernel.
        item: The item.
        taps: K.
        rows: Name, without suffix, of rows that each direction has.
        carried: Vectors that a block carries from row to row, zeros at first.
    """

    def __init__(self, code: Emitter, item: Value, taps: int, rows: str, carried: int) -> None:
        self.code, self.taps = code, taps
        self._item, self._rows, self._carried = item, rows, carried

    def convolutions(self, at: Block) -> list[_Conv]:
        """Return the directions of a block."""
        given = (suffix for suffix in _SUFFIXES if self._rows + suffix in self.code.arguments)
        return [_Conv(at, self.taps, suffix) for suffix in given]

    def carried(self, at: Block) -> list[Value]:
        """Load what a block carries."""
        return [self.code.load(address) for address in self._places(at)]

    def _places(self, at: Block) -> list[Value]:
        start = self.code.scratch + at.place * (self._carried * self.code.bytes)
        return [start + n * self.code.bytes for n in range(self._carried)]

    def _carry(self, at: Block, values: Sequence[Value]) -> None:
        for value, address in zip(values, self._places(at), strict=True):
            self.code.store(value, address)

    def over(self, one_row: Callable[..., list[Value]]) -> None:
        """Write ``carried = one_row(row, *carried)`` for all rows of all blocks."""
        code = self.code
        nothing = [code.number(0.0)] * self._carried
        each_block(code, self._item, lambda at: self._carry(at, nothing))
        length, lag = code.arguments["length"], self.taps - 1
        both = code.least(length, lag)
        parts = (
            (length * 0, both, True, False),
            (length, length * -1 + lag, False, False),  # only of less rows than the window
            (length * 0 + lag, length - lag, True, True),
            (length - both + lag, both, False, True),
        )
        for start, count, *known in parts:

            def some_rows(at: Block, first: Value, rows: Value, known: Any = known) -> None:
                ways = self.convolutions(at)

                def one(k: Value, *now: Value) -> list[Value]:
                    return one_row(_Row(at, ways, first + k, *known), *now)

                self._carry(at, code.loop(rows, one, *self.carried(at)))

            each_span(code, self._item, start, count, some_rows)


def write_forward(code: Emitter, taps: int, silu: bool) -> None:
    """Write out = conv(x, weight, bias), and the same for what ends in ``_reverse``."""

    def one_row(row: _Row, *previous: Value) -> list[Value]:
        row.expect("x")
        window = [*previous, row.at.read("x", row.t) if row.back else code.number(0.0)]
        for conv in filter(row.has, row.ways):
            y = conv(window)
            row.at.write("out" + conv.suffix, row.t - conv.lag, code.silu(y) if silu else y)
        return window[1:]

    code.each_item(lambda item: _Walk(code, item, taps, "out", taps - 1).over(one_row))


def write_backward(code: Emitter, taps: int, silu: bool) -> None:
    """Write the gradients, given that of ``out``, of ``out_reverse`` or of both.

    d_x is complete; d_weight (batch, blocks, taps, lanes) and d_bias (batch, blocks, lanes) of each
    direction have to be summed over samples.
    """
    zero, of_rows = code.number(0.0), 2 * taps - 2

    def one_row(row: _Row, *carried: Value) -> list[Value]:
        # The last inputs, their gradients as far as known, those of the parameters.
        previous, pending = carried[: taps - 1], carried[taps - 1 : of_rows]
        sums, at = list(carried[of_rows:]), row.at
        row.expect("x")
        at.expect_next_block(row.t - (taps - 1), SPAN, "d_x")
        window = [*previous, at.read("x", row.t) if row.back else zero]
        d_window = [*pending, zero]
        for i, conv in enumerate(row.ways):
            if row.has(conv):
                d_y = at.read("d_out" + conv.suffix, row.t - conv.lag)
                if silu:
                    y = conv(window)
                    sigmoid = code.sigmoid(y)
                    d_y = d_y * (sigmoid * (1.0 + y * (1.0 - sigmoid)))
                d_window = [d + w * d_y for d, w in zip(d_window, conv.weight, strict=True)]
                first = i * (taps + 1)
                sums[first] = sums[first] + d_y
                for k, x in enumerate(window, first + 1):
                    sums[k] = sums[k] + x * d_y
        if row.ahead:
            at.write("d_x", row.t - (taps - 1), d_window[0])
        return [*window[1:], *d_window[1:], *sums]

    def one_item(item: Value) -> None:
        walk = _Walk(code, item, taps, "d_out", of_rows + _num_ways(code, "d_out") * (taps + 1))
        walk.over(one_row)

        def keep_sums(at: Block) -> None:
            sums = walk.carried(at)[of_rows:]
            for i, conv in enumerate(walk.convolutions(at)):
                d_bias, *d_weight = sums[i * (taps + 1) : (i + 1) * (taps + 1)]
                code.store(d_bias, at.per_sample("d_bias" + conv.suffix))
                start = at.per_sample("d_weight" + conv.suffix, taps)
                for k, d_w in enumerate(reversed(d_weight) if conv.lag else d_weight):
                    code.store(d_w, start + k * code.bytes)

        each_block(code, item, keep_sums)

    code.each_item(one_item)


def _num_ways(code: Emitter, rows: str) -> int:
    return sum(rows + suffix in code.arguments for suffix in _SUFFIXES)


def _run(
    write: Callable[..., None],
    rows: dict[str, Tensor],
    per_channel: dict[str, Tensor],
    silu: bool,
) -> None:
    x = rows["x"]
    arguments = size_arguments(x)
    for name, tensor in rows.items():
        arguments |= row_arguments(name, tensor, reverse=False)
    arguments |= {name: packed_address(name, tensor) for name, tensor in per_channel.items()}
    taps = next(iter(per_channel.values())).shape[1]
    most = 2 * (taps - 1) + 2 * (taps + 1)  # vectors that a block carries
    kernel = compile_kernel(write, arguments, taps, silu)
    scratch = LANES * most * arguments["group_blocks"]
    kernel.run(arguments, len(x) * arguments["groups"], x.numel(), scratch)
