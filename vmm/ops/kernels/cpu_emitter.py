"""The language in which the CPU kernels are written: vectors of float32 with ordinary operators.

A kernel is a Python function that receives an ``Emitter``. What it computes with ``Value`` is
written down as LLVM code, to be compiled and run later (``cpu_kernel``); what it computes
with Python numbers happens while writing, so a Python ``for`` unrolls and a Python ``if`` leaves
code out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

LANES = 16
"""float32 numbers in a vector. LLVM splits it for CPUs with narrower registers."""

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR, _INTEGERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_HALVES = ir.VectorType(_I16, LANES)
_LOG2E = 1.4426950408889634
# Minimax fits of relative error 2e-9, 2e-9 and 3e-8. All are 1 at zero, and the powers have their
# slope there too, so that a decay of nearly one (a small step) is not biased over a long sequence.
_EXP2 = (
    *(1.0, 0.6931471825, 0.2402264774, 0.05550332367),
    *(9.618436918e-3, 1.339887502e-3, 1.535336196e-4),
)
"""2^f for f in [-0.5, 0.5]."""
_EXP2_NEAR = (18.011405944824219, 12.484555244445801, 4.326961994171143, 1.0)
"""2^f / ``_EXP2_SCALE`` for f in [-1/32, 1/32]. The last coefficient is 1: one product less."""
_EXP2_SCALE = 0.055520374327898026
"""Of float32 numbers near the best fit, one whose product with the first coefficient is 1 to 3e-10.
"""
_LOG1P = (
    *(1.0, -0.4999964833, 0.3332132399, -0.2485716343, 0.1915365458),
    *(-0.1375380009, 0.07920450717, -0.03006577305, 5.364818964e-3),
)
"""log(1 + w) / w for w in [0, 1]."""
_ROUND = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, found in the low bits
_ROUND_16TH = _ROUND / 16  # to a multiple of 1/16


@dataclass(frozen=True)
class Target:
    """What to compile for."""

    cpu: str
    features: str
    avx512: bool
    """Use its instructions for powers of two."""


def _each(vector: Any, number: float) -> Any:
    """Return a constant with the same number in every lane."""
    return ir.Constant(vector, [number] * LANES)


def _name(vector: Any) -> str:
    return f"v{LANES}{'i16' if vector == _HALVES else 'f32'}"


def _size(vector: Any) -> int:
    """Bytes of a lane."""
    return 2 if vector == _HALVES else 4


def _as_float32(number: float) -> float:
    """Round; LLVM refuses float32 constants that are not exactly representable."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


class Value:
    """A 64-bit integer, or a vector of float32 lanes, inside a kernel being written."""

    __slots__ = ("_emitter", "raw")

    def __init__(self, emitter: Emitter, raw: Any) -> None:
        self._emitter, self.raw = emitter, raw

    def _apply(self, real: str, integer: str, *operands: Value | float) -> Value:
        build = self._emitter.builder
        if self.raw.type == _I64:
            raw = [x.raw if isinstance(x, Value) else ir.Constant(_I64, x) for x in operands]
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

    def __mod__(self, other: Value) -> Value:
        return self._apply("frem", "srem", self, other)

    __radd__, __rmul__ = __add__, __mul__


class Emitter:
    """Writes one kernel. Addresses are integers and count bytes."""

    def __init__(
        self, builder: Any, cpu: Target, names: Sequence[str], tail: bool, threads: bool
    ) -> None:
        """Start a kernel.

        Args:
            builder: llvmlite's, at the entry of a function of one argument: the address of a table
                of 64-bit integers, which are the number of items, the address and the size in bytes
                of the private memory of a thread, and the arguments.
            cpu: What to compile for.
            names: Of the arguments, in the order of the table.
            tail: Some vectors are only partly inside the data: see ``keep_lanes``.
            threads: Share the items among the threads of an OpenMP team.
        """
        self.builder = builder
        self.bytes = 4 * LANES
        self._cpu, self._tail = cpu, tail
        self._mask: Any = None
        table = Value(self, builder.function.args[0])
        count = 3 + len(names)
        items, memory, memory_bytes, *arguments = (
            Value(self, self._load(table + 8 * i, _I64)) for i in range(count)
        )
        self.arguments = dict(zip(names, arguments, strict=True))
        thread, team = Value(self, ir.Constant(_I64, 0)), Value(self, ir.Constant(_I64, 1))
        if threads:
            calls = (self._call(f"omp_get_{name}", _I32) for name in ("thread_num", "num_threads"))
            thread, team = (Value(self, builder.sext(call.raw, _I64)) for call in calls)
        self.scratch = memory + thread * memory_bytes
        self._begin, self._end = items * thread // team, items * (thread + 1) // team

    def number(self, number: float) -> Value:
        """Return a vector with the same number in every lane."""
        return Value(self, _each(_VECTOR, _as_float32(number)))

    def _load(self, address: Value, kind: Any) -> Any:
        return self.builder.load(self._pointer(address), align=4, typ=kind)

    def _store(self, raw: Any, address: Value) -> None:
        self.builder.store(raw, self._pointer(address), align=4)

    def _pointer(self, address: Value) -> Any:
        return self.builder.inttoptr(address.raw, ir.PointerType())

    def _call(self, name: str, result: Any, *arguments: Any, **options: Any) -> Value:
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(result, [argument.type for argument in arguments])
            function = ir.Function(module, signature, name)
        return Value(self, self.builder.call(function, arguments, **options))

    def least(self, x: Value, y: Value | int) -> Value:
        """Return the smaller of two integers."""
        other = y.raw if isinstance(y, Value) else ir.Constant(_I64, y)
        smaller = self.builder.icmp_signed("<", x.raw, other)
        return Value(self, self.builder.select(smaller, x.raw, other))

    # Memory ---------------------------------------------------------------------------------------

    def keep_lanes(self, count: Value) -> None:
        """Let loads and stores of rows touch the first ``count`` lanes only."""
        if self._tail:
            index = ir.Constant(_INTEGERS, list(range(LANES)))
            limit = self._splat(self.builder.trunc(count.raw, _I32), _INTEGERS)
            self._mask = self.builder.icmp_signed("<", index, limit)

    def load(self, address: Value) -> Value:
        """Load a whole vector."""
        return Value(self, self._load(address, _VECTOR))

    def store(self, x: Value, address: Value) -> None:
        """Store a whole vector."""
        self._store(x.raw, address)

    def add_to(self, address: Value, x: Value) -> None:
        """Add a vector to one in memory."""
        self.store(self.load(address) + x, address)

    def load_row(self, address: Value) -> Value:
        """Load the lanes that are inside the data; the others are zero."""
        return Value(self, self._load_inside(address, _VECTOR))

    def store_row(self, x: Value, address: Value) -> None:
        """Store the lanes that are inside the data."""
        self._store_inside(x.raw, address)

    def load_bfloat16(self, address: Value) -> Value:
        """Load a row of bfloat16, which is the upper half of float32."""
        build = self.builder
        bits = build.zext(self._load_inside(address, _HALVES), _INTEGERS)
        return Value(self, build.bitcast(build.shl(bits, _each(_INTEGERS, 16)), _VECTOR))

    def store_bfloat16(self, x: Value, address: Value) -> None:
        """Round to the nearest bfloat16, between two to the even one, and store the row."""
        build = self.builder
        bits = build.bitcast(x.raw, _INTEGERS)
        upper = build.lshr(bits, _each(_INTEGERS, 16))
        half = build.add(build.and_(upper, _each(_INTEGERS, 1)), _each(_INTEGERS, 0x7FFF))
        rounded = build.lshr(build.add(bits, half), _each(_INTEGERS, 16))
        is_nan = build.fcmp_unordered("uno", x.raw, x.raw)
        rounded = build.select(is_nan, _each(_INTEGERS, 0x7FC0), rounded)
        self._store_inside(build.trunc(rounded, _HALVES), address)

    def _load_inside(self, address: Value, kind: Any) -> Any:
        pointer = self._pointer(address)
        if not self._tail:
            return self.builder.load(pointer, align=_size(kind), typ=kind)
        operands = [pointer, ir.Constant(_I32, _size(kind)), self._mask, _each(kind, 0)]
        return self._call(f"llvm.masked.load.{_name(kind)}.p0", kind, *operands).raw

    def _store_inside(self, raw: Any, address: Value) -> None:
        pointer, kind = self._pointer(address), raw.type
        if not self._tail:
            self.builder.store(raw, pointer, align=_size(kind))
            return
        operands = [raw, pointer, ir.Constant(_I32, _size(kind)), self._mask]
        self._call(f"llvm.masked.store.{_name(kind)}.p0", ir.VoidType(), *operands)

    def broadcast(self, address: Value) -> Value:
        """Load one number into every lane."""
        return Value(self, self._splat(self._load(address, _F32), _VECTOR))

    def shuffle(self, x: Value, y: Value, lanes: Sequence[int]) -> Value:
        """Pick lanes: those of x count from 0, those of y from ``LANES``."""
        return Value(
            self, self.builder.shuffle_vector(x.raw, y.raw, ir.Constant(_INTEGERS, list(lanes)))
        )

    def add_numbers(self, address: Value, x: Value, count: int) -> None:
        """Add the first lanes of a vector to as many numbers in memory."""
        kind = ir.VectorType(_F32, count)
        lanes = ir.Constant(ir.VectorType(_I32, count), list(range(count)))
        first = self.builder.shuffle_vector(x.raw, x.raw, lanes)
        self._store(self.builder.fadd(self._load(address, kind), first), address)

    def prefetch(self, address: Value) -> None:
        """Bring a cache line closer; the address may lie outside of all memory."""
        read, closest, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
        pointer = self._pointer(address)
        self._call("llvm.prefetch.p0", ir.VoidType(), pointer, read, closest, data)

    def _splat(self, scalar: Any, vector: Any) -> Any:
        build, undefined = self.builder, ir.Constant(vector, ir.Undefined)
        first = build.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(_INTEGERS, [0] * LANES)
        return build.shuffle_vector(first, undefined, zeros)

    # Arithmetic -----------------------------------------------------------------------------------

    def exp2(self, x: Value) -> Value:
        """Return 2^x; without AVX-512 clamped to 2^-126 .. 2^127. NaN stays NaN."""
        return self.exp2_each([x])[0]

    def exp2_each(self, xs: Sequence[Value]) -> list[Value]:
        """Return 2^x of several vectors, written side by side.

        One takes a long chain of operations; a CPU looks for independent ones only so far ahead.
        """
        if not self._cpu.avx512:
            return [self._plain_exp2(x) for x in xs]
        shifted = [x + _ROUND_16TH for x in xs]
        rounded = [x - _ROUND_16TH for x in shifted]
        rests = (x - whole for x, whole in zip(xs, rounded, strict=True))
        powers = self._polynomial(_EXP2_NEAR, *rests)
        powers = [self._root(x) * power for x, power in zip(shifted, powers, strict=True)]
        return [self._scale(power, x) for power, x in zip(powers, rounded, strict=True)]

    def _root(self, shifted: Value) -> Value:
        """Return ``_EXP2_SCALE`` 2^(k/16), k the lowest four bits of a lane, from a table."""
        roots = [_as_float32(_EXP2_SCALE * 2 ** (k / 16)) for k in range(16)]
        table = ir.Constant(_VECTOR, roots)
        places = self.builder.bitcast(shifted.raw, _INTEGERS)
        return self._call("llvm.x86.avx512.permvar.sf.512", _VECTOR, table, places)

    def _scale(self, x: Value, exponent: Value) -> Value:
        """Return x 2^floor(exponent)."""
        every_lane, rounding = ir.Constant(_I16, -1), ir.Constant(_I32, 4)  # the current mode
        operands = [x.raw, exponent.raw, self.number(0).raw, every_lane, rounding]
        return self._call("llvm.x86.avx512.mask.scalef.ps.512", _VECTOR, *operands)

    def _plain_exp2(self, x: Value) -> Value:
        x = self._clamp(x, -126.0, 127.0)
        shifted = x + _ROUND
        (power,) = self._polynomial(_EXP2, x - (shifted - _ROUND))
        build = self.builder
        integers = build.bitcast(shifted.raw, _INTEGERS)
        exponent = build.shl(integers, _each(_INTEGERS, 23))  # to the exponent bits
        bits = build.add(build.bitcast(power.raw, _INTEGERS), exponent)
        return Value(self, build.bitcast(bits, _VECTOR))

    def sigmoid(self, x: Value) -> Value:
        """Return 1 / (1 + e^-x)."""
        return 1.0 / (self.exp2(x * -_LOG2E) + 1.0)

    def silu(self, x: Value) -> Value:
        """Return x / (1 + e^-x)."""
        return x / (self.exp2(x * -_LOG2E) + 1.0)

    def softplus(self, x: Value) -> Value:
        """Return log(1 + e^x), which in float32 is x itself above 20."""
        zero = self.number(0).raw
        positive = self.builder.fcmp_ordered(">", x.raw, zero)
        magnitude = self.builder.select(positive, x.raw, (0.0 - x).raw)
        small = self.exp2(Value(self, magnitude) * -_LOG2E)
        above = Value(self, self.builder.select(positive, x.raw, zero))
        return above + small * self._polynomial(_LOG1P, small)[0]

    def _polynomial(self, coefficients: Sequence[float], *xs: Value) -> list[Value]:
        """Return the values at several points, side by side."""
        totals = [self.number(coefficients[-1])] * len(xs)
        for coefficient in coefficients[-2::-1]:
            totals = [total * x + coefficient for total, x in zip(totals, xs, strict=True)]
        return totals

    def _clamp(self, x: Value, low: float, high: float) -> Value:
        """Limit x; the comparisons are false for NaN, which therefore passes."""
        raw = x.raw
        for sign, limit in (("<", low), (">", high)):
            bound = self.number(limit).raw
            outside = self.builder.fcmp_ordered(sign, raw, bound)
            raw = self.builder.select(outside, bound, raw)
        return Value(self, raw)

    # Control --------------------------------------------------------------------------------------

    def loop(
        self, count: Value, body: Callable[..., Sequence[Value] | None], *carried: Value
    ) -> list[Value]:
        """Write ``for i in range(count): carried = body(i, *carried)``.

        Returns:
            The values carried out of the last round, or in, if there is none.
        """
        build = self.builder
        before = build.block
        inside, after = (build.append_basic_block(name) for name in ("loop", "done"))
        zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
        build.cbranch(build.icmp_signed(">", count.raw, zero), inside, after)

        build.position_at_end(inside)
        index = build.phi(_I64)
        entering = [build.phi(value.raw.type) for value in carried]
        leaving = body(Value(self, index), *(Value(self, phi) for phi in entering)) or []
        assert len(leaving) == len(carried)
        following = build.add(index, one)
        bottom = build.block
        build.cbranch(build.icmp_signed("<", following, count.raw), inside, after)
        index.add_incoming(zero, before)
        index.add_incoming(following, bottom)

        build.position_at_end(after)
        results = []
        for phi, start, end in zip(entering, carried, leaving, strict=True):
            phi.add_incoming(start.raw, before)
            phi.add_incoming(end.raw, bottom)
            result = build.phi(phi.type)
            result.add_incoming(start.raw, before)
            result.add_incoming(end.raw, bottom)
            results.append(Value(self, result))
        return results

    def each_item(self, body: Callable[[Value], None]) -> None:
        """Write ``body(item)`` for the items that this thread was given."""
        self.loop(self._end - self._begin, lambda i: body(self._begin + i))

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        """Write ``if condition > 0: body()``."""
        test = self.builder.icmp_signed(">", condition.raw, ir.Constant(_I64, 0))
        with self.builder.if_then(test):
            body()
