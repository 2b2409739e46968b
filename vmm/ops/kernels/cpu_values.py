"""Values of kernels that are being written: integers and vectors of float32 (``cpu_emitter``)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llvmlite import ir

LANES = 16
"""float32 numbers in a vector. LLVM splits it for CPUs with narrower registers."""

I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR, INTEGERS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
HALVES = ir.VectorType(I16, LANES)


@dataclass(frozen=True)
class Target:
    """What to compile for."""

    cpu: str
    features: str
    powers: Literal["avx512", "avx2", "plain"]
    """Whose instructions powers of two use (``cpu_powers``)."""


class Writer(Protocol):
    """What values and powers of two need of an ``Emitter``, which explains it."""

    builder: Any
    target: Target

    def number(self, number: float) -> Value:
        """Return a vector with the same number in every lane."""

    def polynomial(self, coefficients: Sequence[float], *xs: Value) -> list[Value]:
        """Return its values at several points."""

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """Limit x; NaN passes."""

    def call(self, name: str, result: Any, *arguments: Any, **options: Any) -> Value:
        """Call a function by its name."""


def each(vector: Any, number: float) -> Any:
    """Return a constant with the same number in every lane."""
    return ir.Constant(vector, [number] * LANES)


def as_float32(number: float) -> float:
    """Round; LLVM refuses float32 constants that are not exactly representable."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


class Value:
    """A 64-bit integer, or a vector of float32 lanes, inside a kernel being written."""

    __slots__ = ("_emitter", "raw")

    def __init__(self, emitter: Writer, raw: Any) -> None:
        self._emitter, self.raw = emitter, raw

    def _apply(self, real: str, integer: str, *operands: Value | float) -> Value:
        build = self._emitter.builder
        if self.raw.type == I64:
            raw = [x.raw if isinstance(x, Value) else ir.Constant(I64, x) for x in operands]
            return Value(self._emitter, getattr(build, integer)(*raw))
        raw = [x.raw if isinstance(x, Value) else self._emitter.number(x).raw for x in operands]
        # "contract" lets LLVM fuse a product and a sum; nothing that could hide a NaN is allowed.
        return Value(self._emitter, getattr(build, real)(*raw, flags=("contract",)))

    def __add__(self, other: Value | float) -> Value:
        return self._apply("fadd", "add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self._apply("fsub", "sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self._apply("fsub", "sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self._apply("fmul", "mul", self, other)

    def __truediv__(self, other: Value) -> Value:
        return self._apply("fdiv", "sdiv", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return self._apply("fdiv", "sdiv", other, self)

    def __floordiv__(self, other: Value | int) -> Value:
        return self._apply("fdiv", "sdiv", self, other)

    def __mod__(self, other: Value | int) -> Value:
        return self._apply("frem", "srem", self, other)

    __radd__, __rmul__ = __add__, __mul__
