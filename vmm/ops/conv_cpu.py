"""Causal convolution on the CPU, compiled: channels-last, SiLU fused, forward and backward.

Every block of channels keeps its taps and the last inputs in registers while the kernel walks over
time. The gradient is one walk too: it repeats the forward pass, so nothing but the inputs is saved.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from vmm.ops.conv_interface import ConvInputs
from vmm.ops.cpu_blocks import (
    Block,
    as_rows,
    by_block,
    each_block,
    from_blocks,
    row_arguments,
    size_arguments,
)
from vmm.ops.cpu_emitter import Emitter, Value
from vmm.ops.cpu_kernel import compile_kernel
from vmm.ops.op_tools import empty_packed


def why_not(x: Tensor, weight: Tensor) -> str | None:
    """Say why the compiled convolution cannot take these inputs, or return None."""
    if x.device.type != "cpu":
        return f"needs tensors on the CPU, these are on {x.device.type}"
    if x.dtype == torch.float64 or weight.dtype == torch.float64:
        return "computes in float32, these are float64"
    if importlib.util.find_spec("llvmlite") is None:
        return "needs the package llvmlite"
    return None


def forward(inputs: ConvInputs, silu: bool, reverse: bool) -> Tensor:
    """Compute the contract of ``vmm.ops.causal_conv.causal_conv1d`` in compiled code."""
    x = as_rows(inputs.x)
    out = empty_packed(x)
    _run(write_forward, {"x": x, "out": out}, _by_block(inputs), _options(inputs, silu), reverse)
    return out.to(inputs.x.dtype)


def backward(inputs: ConvInputs, silu: bool, reverse: bool, d_out: Tensor) -> ConvInputs:
    """Return the gradients; those of parameters in float32."""
    x = as_rows(inputs.x)
    d_x = empty_packed(x)
    per_channel = _by_block(inputs)
    sums = {f"d_{name}": y.new_empty(len(x), *y.shape) for name, y in per_channel.items()}
    rows = {"x": x, "d_out": as_rows(d_out), "d_x": d_x}
    _run(write_backward, rows, per_channel | sums, _options(inputs, silu), reverse)
    return ConvInputs(d_x, *(from_blocks(y.sum(0), x.shape[1]) for y in sums.values()))


def _by_block(inputs: ConvInputs) -> dict[str, Tensor]:
    weight = inputs.weight.float()
    bias = weight.new_zeros(len(weight)) if inputs.bias is None else inputs.bias.float()
    return {"weight": by_block(weight), "bias": by_block(bias)}


def _options(inputs: ConvInputs, silu: bool) -> tuple[int, bool]:
    return inputs.weight.shape[1], silu


class _Conv:
    """The convolution of one block."""

    def __init__(self, at: Block, taps: int) -> None:
        code = at.code
        start = at.per_channel("weight", taps)
        self.weight = [code.load(start + k * code.bytes) for k in range(taps)]
        self.bias = code.load(at.per_channel("bias"))

    def __call__(self, window: list[Value]) -> Value:
        total = self.bias
        for weight, x in zip(self.weight, window, strict=True):
            total = total + weight * x
        return total


def write_forward(code: Emitter, taps: int, silu: bool) -> None:
    """Write out = conv(x, weight, bias)."""

    def one_block(at: Block) -> None:
        conv = _Conv(at, taps)

        def one_step(t: Value, *previous: Value) -> list[Value]:
            window = [*previous, at.read("x", t)]
            y = conv(window)
            at.write("out", t, y * code.sigmoid(y) if silu else y)
            return window[1:]

        code.loop(code.arguments["length"], one_step, *[code.number(0.0)] * (taps - 1))

    code.each_item(lambda item: each_block(code, item, one_block))


def write_backward(code: Emitter, taps: int, silu: bool) -> None:
    """Write the gradients, given that of ``out``.

    d_x is complete; d_weight (batch, blocks, taps, lanes) and d_bias (batch, blocks, lanes) have to
    be summed over samples.
    """
    length = code.arguments["length"]

    def one_block(at: Block) -> None:
        conv = _Conv(at, taps)

        def store_input_gradient(t: Value, d_x: Value) -> None:
            code.when(t + 1, lambda: at.write("d_x", t, d_x))  # t < 0 is padding

        def one_step(t: Value, d_bias: Value, *carried: Value) -> list[Value]:
            # The last inputs, their gradients as far as known, and the gradients of the taps.
            previous, pending = carried[: taps - 1], carried[taps - 1 : 2 * taps - 2]
            d_weight = carried[2 * taps - 2 :]
            window = [*previous, at.read("x", t)]
            d_y = at.read("d_out", t)
            if silu:
                y = conv(window)
                sigmoid = code.sigmoid(y)
                d_y = d_y * (sigmoid * (1.0 + y * (1.0 - sigmoid)))
            parts = zip((*pending, code.number(0.0)), conv.weight, strict=True)
            oldest, *younger = [d_x + weight * d_y for d_x, weight in parts]
            store_input_gradient(t - (taps - 1), oldest)
            d_weight = tuple(d_w + x * d_y for d_w, x in zip(d_weight, window, strict=True))
            return [d_bias + d_y, *window[1:], *younger, *d_weight]

        d_bias, *carried = code.loop(length, one_step, *[code.number(0.0)] * (3 * taps - 1))
        for i, d_x in enumerate(carried[taps - 1 : 2 * taps - 2]):
            store_input_gradient(length - (taps - 1) + i, d_x)
        code.store(d_bias, at.per_sample("d_bias"))
        for k, d_w in enumerate(carried[2 * taps - 2 :]):
            code.store(d_w, at.per_sample("d_weight", taps) + k * code.bytes)

    code.each_item(lambda item: each_block(code, item, one_block))


def _run(
    write: Callable[..., None],
    rows: dict[str, Tensor],
    per_channel: dict[str, Tensor],
    options: tuple[int, bool],
    reverse: bool,
) -> None:
    x = rows["x"]
    arguments = size_arguments(x)
    for name, tensor in rows.items():
        arguments |= row_arguments(name, tensor, reverse)
    arguments |= {name: tensor.data_ptr() for name, tensor in per_channel.items()}
    kernel = compile_kernel(write, arguments, *options)
    kernel.run(arguments, len(x) * arguments["groups"], x.numel())
