"""The language in which the CPU kernels are written: vectors of float32 with ordinary operators.

A kernel is a Python function that receives an ``Emitter``. What it computes with ``Value`` is
written down as LLVM code, to be compiled and run later (``cpu_kernel``); what it computes
with Python numbers happens while writing, so a Python ``for`` unrolls and a Python ``if`` leaves
code out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from vmm.ops.kernels.cpu_powers import LOG2E, exp2_each
from vmm.ops.kernels.cpu_values import (
    F32,
    HALVES,
    I32,
    I64,
    INTEGERS,
    LANES,
    VECTOR,
    Target,
    Value,
    as_float32,
    each,
)

# A minimax fit of relative error 3e-8, 1 at zero.
_LOG1P = (
    *(1.0, -0.4999964833, 0.3332132399, -0.2485716343, 0.1915365458),
    *(-0.1375380009, 0.07920450717, -0.03006577305, 5.364818964e-3),
)
"""log(1 + w) / w for w in [0, 1]."""


def _name(vector: Any) -> str:
    return f"v{LANES}{'i16' if vector == HALVES else 'f32'}"


def _size(vector: Any) -> int:
    """Bytes of a lane."""
    return 2 if vector == HALVES else 4


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
        self.target, self._tail = cpu, tail
        self._mask: Any = None
        table = Value(self, builder.function.args[0])
        count = 3 + len(names)
        items, memory, memory_bytes, *arguments = (
            self.load_integer(table + 8 * i) for i in range(count)
        )
        self.arguments = dict(zip(names, arguments, strict=True))
        thread, team = Value(self, ir.Constant(I64, 0)), Value(self, ir.Constant(I64, 1))
        if threads:
            calls = (self.call(f"omp_get_{name}", I32) for name in ("thread_num", "num_threads"))
            thread, team = (Value(self, builder.sext(call.raw, I64)) for call in calls)
        self.scratch = memory + thread * memory_bytes
        self._begin, self._end = items * thread // team, items * (thread + 1) // team

    def number(self, number: float) -> Value:
        """Return a vector with the same number in every lane."""
        return Value(self, each(VECTOR, as_float32(number)))

    def _load(self, address: Value, kind: Any) -> Any:
        return self.builder.load(self._pointer(address), align=4, typ=kind)

    def _store(self, raw: Any, address: Value) -> None:
        self.builder.store(raw, self._pointer(address), align=4)

    def _pointer(self, address: Value) -> Any:
        return self.builder.inttoptr(address.raw, ir.PointerType())

    def call(self, name: str, result: Any, *arguments: Any, **options: Any) -> Value:
        """Call a function of LLVM or of C by its name; declares it when needed."""
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(result, [argument.type for argument in arguments])
            function = ir.Function(module, signature, name)
        return Value(self, self.builder.call(function, arguments, **options))

    def least(self, x: Value, y: Value | int) -> Value:
        """Return the smaller of two integers."""
        other = y.raw if isinstance(y, Value) else ir.Constant(I64, y)
        smaller = self.builder.icmp_signed("<", x.raw, other)
        return Value(self, self.builder.select(smaller, x.raw, other))

    # Memory ---------------------------------------------------------------------------------------

    def keep_lanes(self, count: Value) -> None:
        """Let loads and stores of rows touch the first ``count`` lanes only."""
        if self._tail:
            index = ir.Constant(INTEGERS, list(range(LANES)))
            limit = self._splat(self.builder.trunc(count.raw, I32), INTEGERS)
            self._mask = self.builder.icmp_signed("<", index, limit)

    def load(self, address: Value) -> Value:
        """Load a whole vector."""
        return Value(self, self._load(address, VECTOR))

    def store(self, x: Value, address: Value) -> None:
        """Store a whole vector."""
        self._store(x.raw, address)

    def load_integer(self, address: Value) -> Value:
        """Load a 64-bit integer."""
        return Value(self, self._load(address, I64))

    def store_number(self, x: Value, address: Value) -> None:
        """Store the first lane."""
        self._store(self.builder.extract_element(x.raw, ir.Constant(I32, 0)), address)

    def add_to(self, address: Value, x: Value) -> None:
        """Add a vector to one in memory."""
        self.store(self.load(address) + x, address)

    def load_row(self, address: Value) -> Value:
        """Load the lanes that are inside the data; the others are zero."""
        return Value(self, self._load_inside(address, VECTOR))

    def store_row(self, x: Value, address: Value) -> None:
        """Store the lanes that are inside the data."""
        self._store_inside(x.raw, address)

    def load_bfloat16(self, address: Value) -> Value:
        """Load a row of bfloat16, which is the upper half of float32."""
        build = self.builder
        bits = build.zext(self._load_inside(address, HALVES), INTEGERS)
        return Value(self, build.bitcast(build.shl(bits, each(INTEGERS, 16)), VECTOR))

    def store_bfloat16(self, x: Value, address: Value) -> None:
        """Round to the nearest bfloat16, between two to the even one, and store the row."""
        build = self.builder
        bits = build.bitcast(x.raw, INTEGERS)
        upper = build.lshr(bits, each(INTEGERS, 16))
        half = build.add(build.and_(upper, each(INTEGERS, 1)), each(INTEGERS, 0x7FFF))
        rounded = build.lshr(build.add(bits, half), each(INTEGERS, 16))
        is_nan = build.fcmp_unordered("uno", x.raw, x.raw)
        rounded = build.select(is_nan, each(INTEGERS, 0x7FC0), rounded)
        self._store_inside(build.trunc(rounded, HALVES), address)

    def _load_inside(self, address: Value, kind: Any) -> Any:
        pointer = self._pointer(address)
        if not self._tail:
            return self.builder.load(pointer, align=_size(kind), typ=kind)
        operands = [pointer, ir.Constant(I32, _size(kind)), self._mask, each(kind, 0)]
        return self.call(f"llvm.masked.load.{_name(kind)}.p0", kind, *operands).raw

    def _store_inside(self, raw: Any, address: Value) -> None:
        pointer, kind = self._pointer(address), raw.type
        if not self._tail:
            self.builder.store(raw, pointer, align=_size(kind))
            return
        operands = [raw, pointer, ir.Constant(I32, _size(kind)), self._mask]
        self.call(f"llvm.masked.store.{_name(kind)}.p0", ir.VoidType(), *operands)

    def broadcast(self, address: Value) -> Value:
        """Load one number into every lane."""
        return Value(self, self._splat(self._load(address, F32), VECTOR))

    def shuffle(self, x: Value, y: Value, lanes: Sequence[int]) -> Value:
        """Pick lanes: those of x count from 0, those of y from ``LANES``."""
        return Value(
            self, self.builder.shuffle_vector(x.raw, y.raw, ir.Constant(INTEGERS, list(lanes)))
        )

    def add_numbers(self, address: Value, x: Value, count: int) -> None:
        """Add the first lanes of a vector to as many numbers in memory."""
        kind = ir.VectorType(F32, count)
        lanes = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        first = self.builder.shuffle_vector(x.raw, x.raw, lanes)
        self._store(self.builder.fadd(self._load(address, kind), first), address)

    def prefetch(self, address: Value) -> None:
        """Bring a cache line closer; the address may lie outside of all memory."""
        read, closest, data = (ir.Constant(I32, n) for n in (0, 3, 1))
        pointer = self._pointer(address)
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, read, closest, data)

    def _splat(self, scalar: Any, vector: Any) -> Any:
        build, undefined = self.builder, ir.Constant(vector, ir.Undefined)
        first = build.insert_element(undefined, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(INTEGERS, [0] * LANES)
        return build.shuffle_vector(first, undefined, zeros)

    # Arithmetic -----------------------------------------------------------------------------------

    def exp2(self, x: Value) -> Value:
        """Return 2^x; without AVX-512 clamped to 2^-121 .. 2^127. NaN stays NaN."""
        return self.exp2_each([x])[0]

    def exp2_each(self, xs: Sequence[Value]) -> list[Value]:
        """Return 2^x of several vectors, written side by side.

        One takes a long chain of operations; a CPU looks for independent ones only so far ahead.
        """
        return exp2_each(self, xs)

    def sigmoid(self, x: Value) -> Value:
        """Return 1 / (1 + e^-x)."""
        return 1.0 / (self.exp2(x * -LOG2E) + 1.0)

    def silu(self, x: Value) -> Value:
        """Return x / (1 + e^-x)."""
        return x / (self.exp2(x * -LOG2E) + 1.0)

    def softplus(self, x: Value) -> Value:
        """Return log(1 + e^x), which in float32 is x itself above 20."""
        zero = self.number(0).raw
        positive = self.builder.fcmp_ordered(">", x.raw, zero)
        magnitude = self.builder.select(positive, x.raw, (0.0 - x).raw)
        small = self.exp2(Value(self, magnitude) * -LOG2E)
        above = Value(self, self.builder.select(positive, x.raw, zero))
        return above + small * self.polynomial(_LOG1P, small)[0]

    def root(self, x: Value) -> Value:
        """Return the square root of x."""
        return self.call(f"llvm.sqrt.{_name(VECTOR)}", VECTOR, x.raw)

    def polynomial(self, coefficients: Sequence[float], *xs: Value) -> list[Value]:
        """Return its values at several points, side by side; the constant comes first."""
        totals = [self.number(coefficients[-1])] * len(xs)
        for coefficient in coefficients[-2::-1]:
            totals = [total * x + coefficient for total, x in zip(totals, xs, strict=True)]
        return totals

    def clamp(self, x: Value, low: float, high: float) -> Value:
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
        zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
        build.cbranch(build.icmp_signed(">", count.raw, zero), inside, after)

        build.position_at_end(inside)
        index = build.phi(I64)
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
        test = self.builder.icmp_signed(">", condition.raw, ir.Constant(I64, 0))
        with self.builder.if_then(test):
            body()
