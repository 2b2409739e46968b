"""RMSNorm (arXiv 1910.07467): one pass forward and one backward where a kernel can take it.

PyTorch's own on the CPU is six operations forward and more backward, each through memory. Backward
here repeats the row's root, so that nothing but the input is kept for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from vmm.ops.backends import gradient_wanted, why_no_compiled_code
from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_kernel import compile_kernel, packed_address
from vmm.ops.kernels.cpu_lane_sums import sum_everywhere
from vmm.ops.kernels.cpu_values import LANES, Value

_PIECE = 64
"""Rows that one thread takes before it asks for more; each piece sums its own part of the gradient
of the weights, so that threads do not change it."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight, the mean over the last dimension.

    Args:
        x: (..., D), of any floating dtype.
        weight: (D,), of that dtype.
        eps: Above 0.

    Returns:
        Shape and dtype of x.
    """
    if not _suits(x, weight):
        return F.rms_norm(x, weight.shape, weight, eps)
    if gradient_wanted(x, weight):
        normed: Tensor = _Differentiable.apply(x, weight, eps)
        return normed
    return _normalised(x, weight, eps)


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Whether a kernel reads both from memory, or would if they had numbers; not in graphs."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, FakeTensor) or weight.ndim != 1:
        return False
    plain = all(y.dtype == torch.float32 and y.is_contiguous() for y in (x, weight))
    return plain and x.numel() > 0 and why_no_compiled_code(x, weight) is None


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return _normalised(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the derivative of this one
            x, weight = (y if y.requires_grad else y.detach().requires_grad_() for y in (x, weight))
            again = F.rms_norm(x, weight.shape, weight, ctx.eps)
            d_x, d_weight = torch.autograd.grad(again, (x, weight), d_out, create_graph=True)
            return d_x, d_weight, None
        d_x = torch.empty_like(x)
        sums = x.new_zeros(_pieces(x), x.shape[-1])
        rows = {"x": x, "d_out": d_out.contiguous(), "d_x": d_x}
        _run(_write_backward, rows, {"weight": weight, "d_weight": sums}, ctx.eps)
        return d_x, sums.sum(0), None


def _normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    out = torch.empty_like(x)
    _run(_write_forward, {"x": x, "out": out}, {"weight": weight}, eps)
    return out


def _pieces(x: Tensor) -> int:
    return -(-x.numel() // (x.shape[-1] * _PIECE))


def _run(
    write: Callable[..., None], rows: dict[str, Tensor], others: dict[str, Tensor], eps: float
) -> None:
    x = rows["x"]
    if type(x) is FakeTensor:  # who counts what is kept has no numbers
        return
    width = x.shape[-1]
    arguments = {"channels": width, "rows": x.numel() // width}
    arguments |= {name: packed_address(name, y) for name, y in (rows | others).items()}
    compile_kernel(write, arguments, width, eps, _PIECE).run(arguments, _pieces(x), x.numel())


class _Row:
    """One row of D numbers, in the kernel.

    Args:
        code: The kernel.
        width: D.
        index: Of the row.
    """

    def __init__(self, code: Emitter, width: int, index: Value) -> None:
        self.code, self.width = code, width
        self._place = index * (4 * width)

    def at(self, name: str, block: Value) -> Value:
        """Return the address of a block of the row in a tensor."""
        return self.code.arguments[name] + self._place + block * self.code.bytes

    def sums(self, terms: Callable[[Value], list[Value]], count: int) -> list[Value]:
        """Return sums over the row of what ``terms`` makes of a block, in every lane."""

        def add(block: Value, *totals: Value) -> list[Value]:
            return [total + x for total, x in zip(totals, terms(block), strict=True)]

        totals = self.each(add, *[self.code.number(0)] * count)
        return [sum_everywhere(self.code, total) for total in totals]

    def each(self, body: Callable[..., list[Value] | None], *carried: Value) -> list[Value]:
        """Write a loop over the row's blocks."""

        def one(block: Value, *now: Value) -> list[Value] | None:
            self.code.keep_lanes(block * -LANES + self.width)
            return body(block, *now)

        blocks = self._place * 0 + -(-self.width // LANES)
        return self.code.loop(blocks, one, *carried)


def _each_row(code: Emitter, width: int, size: int, body: Callable[[Value, _Row], None]) -> None:
    """Write ``body(piece, row)`` for all rows, in pieces of a size."""

    def piece(item: Value) -> None:
        first = item * size
        count = code.least(code.arguments["rows"] - first, size)
        code.loop(count, lambda i: body(item, _Row(code, width, first + i)))

    code.each_item(piece)


def _write_forward(code: Emitter, width: int, eps: float, size: int) -> None:
    def row(_: Value, at: _Row) -> None:
        def square(block: Value) -> list[Value]:
            x = code.load_row(at.at("x", block))
            return [x * x]

        (total,) = at.sums(square, 1)
        scale = 1.0 / code.root(total * (1 / width) + eps)

        def write(block: Value) -> None:
            weight = code.load_row(code.arguments["weight"] + block * code.bytes)
            code.store_row(code.load_row(at.at("x", block)) * scale * weight, at.at("out", block))

        at.each(write)

    _each_row(code, width, size, row)


def _write_backward(code: Emitter, width: int, eps: float, size: int) -> None:
    """With n = x / root: d_x = (w d - n mean(n w d)) / root, and d_weight sums n d over rows."""

    def row(piece: Value, at: _Row) -> None:
        def read(block: Value) -> tuple[Value, Value, Value]:
            weight = code.load_row(code.arguments["weight"] + block * code.bytes)
            d_out = code.load_row(at.at("d_out", block))
            return code.load_row(at.at("x", block)), d_out, weight * d_out

        def products(block: Value) -> list[Value]:
            x, _, weighted = read(block)
            return [x * x, x * weighted]

        squares, together = at.sums(products, 2)
        scale = 1.0 / code.root(squares * (1 / width) + eps)
        back = scale * scale * together * (1 / width)

        def write(block: Value) -> None:
            x, d_out, weighted = read(block)
            normed = x * scale
            code.store_row(weighted * scale - normed * back, at.at("d_x", block))
            total = code.arguments["d_weight"] + piece * (4 * width) + block * code.bytes
            code.store_row(code.load_row(total) + normed * d_out, total)

        at.each(write)

    _each_row(code, width, size, row)
