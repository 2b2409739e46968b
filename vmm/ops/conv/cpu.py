"""Causal convolution on the CPU, compiled: channels-last, SiLU fused, forward and backward.

Every block of channels keeps its taps and the last inputs in registers while the kernel walks over
time. The gradient is one walk too: it repeats the forward pass, so nothing but the inputs is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vmm.ops.backends import why_no_compiled_code
from vmm.ops.conv.interface import ConvInputs, ConvOutputs, Taps
from vmm.ops.kernels.cpu_blocks import (
    Block,
    as_rows,
    by_block,
    each_block,
    from_blocks,
    row_arguments,
    size_arguments,
)
from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_kernel import compile_kernel, packed_address
from vmm.ops.kernels.cpu_values import Value
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


def _convolutions(at: Block, taps: int, rows: str) -> list[_Conv]:
    given = (suffix for suffix in _SUFFIXES if rows + suffix in at.code.arguments)
    return [_Conv(at, taps, suffix) for suffix in given]


def _walk(code: Emitter, taps: int, one_row: Callable[..., list[Value]], *carried: Value) -> Any:
    """Write ``carried = one_row(t, back, ahead, *carried)`` for all rows and K - 1 more.

    ``back`` says, while writing, whether row t exists, and ``ahead`` whether row t - (K - 1) does.
    """
    length, lag = code.arguments["length"], taps - 1
    both = code.least(length, lag)
    parts = (
        (both, length * 0, True, False),
        (length * -1 + lag, length, False, False),  # only sequences shorter than the window
        (length - lag, length * 0 + lag, True, True),
        (both, length - both + lag, False, True),
    )
    for count, start, *known in parts:

        def one(i: Value, *now: Value, start: Value = start, known: Any = known) -> list[Value]:
            return one_row(start + i, *known, *now)

        carried = tuple(code.loop(count, one, *carried))
    return carried


def write_forward(code: Emitter, taps: int, silu: bool) -> None:
    """Write out = conv(x, weight, bias), and the same for what ends in ``_reverse``."""
    zero = code.number(0.0)

    def one_block(at: Block) -> None:
        ways = _convolutions(at, taps, "out")

        def one_row(t: Value, back: bool, ahead: bool, *previous: Value) -> list[Value]:
            at.expect(t, "x", "out", "out_reverse")
            window = [*previous, at.read("x", t) if back else zero]
            for conv in ways:
                if ahead if conv.lag else back:
                    y = conv(window)
                    at.write("out" + conv.suffix, t - conv.lag, code.silu(y) if silu else y)
            return window[1:]

        _walk(code, taps, one_row, *[zero] * (taps - 1))

    code.each_item(lambda item: each_block(code, item, one_block))


def write_backward(code: Emitter, taps: int, silu: bool) -> None:
    """Write the gradients, given that of ``out``, of ``out_reverse`` or of both.

    d_x is complete; d_weight (batch, blocks, taps, lanes) and d_bias (batch, blocks, lanes) of each
    direction have to be summed over samples.
    """
    zero = code.number(0.0)

    def one_block(at: Block) -> None:
        ways = _convolutions(at, taps, "d_out")

        def one_row(t: Value, back: bool, ahead: bool, *carried: Value) -> list[Value]:
            # The last inputs, their gradients as far as known, those of the parameters.
            previous, pending = carried[: taps - 1], carried[taps - 1 : 2 * taps - 2]
            sums = list(carried[2 * taps - 2 :])
            at.expect(t, "x", "d_out", "d_out_reverse", "d_x")
            window, d_window = [*previous, at.read("x", t) if back else zero], [*pending, zero]
            for i, conv in enumerate(ways):
                if ahead if conv.lag else back:
                    d_y = at.read("d_out" + conv.suffix, t - conv.lag)
                    if silu:
                        y = conv(window)
                        sigmoid = code.sigmoid(y)
                        d_y = d_y * (sigmoid * (1.0 + y * (1.0 - sigmoid)))
                    d_window = [d + w * d_y for d, w in zip(d_window, conv.weight, strict=True)]
                    first = i * (taps + 1)
                    sums[first] = sums[first] + d_y
                    for k, x in enumerate(window, first + 1):
                        sums[k] = sums[k] + x * d_y
            if ahead:
                at.write("d_x", t - (taps - 1), d_window[0])
            return [*window[1:], *d_window[1:], *sums]

        nothing = [zero] * (2 * taps - 2 + len(ways) * (taps + 1))
        sums = _walk(code, taps, one_row, *nothing)[2 * taps - 2 :]
        for i, conv in enumerate(ways):
            d_bias, *d_weight = sums[i * (taps + 1) : (i + 1) * (taps + 1)]
            code.store(d_bias, at.per_sample("d_bias" + conv.suffix))
            start = at.per_sample("d_weight" + conv.suffix, taps)
            for k, d_w in enumerate(reversed(d_weight) if conv.lag else d_weight):
                code.store(d_w, start + k * code.bytes)

    code.each_item(lambda item: each_block(code, item, one_block))


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
    kernel = compile_kernel(write, arguments, taps, silu)
    kernel.run(arguments, len(x) * arguments["groups"], x.numel())
