"""Powers of two in CPU kernels: most of the work of a scan, so each kind of CPU has its own way.

All split x into a whole number, which becomes the exponent, and a small rest for a polynomial. The
smaller the rest, the fewer products: with AVX-512 and AVX2 an instruction that permutes lanes
looks up powers of fractions in a table that fits into a register.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from llvmlite import ir

from vmm.ops.kernels.cpu_values import (
    F32,
    I16,
    I32,
    INTEGERS,
    LANES,
    VECTOR,
    Value,
    Writer,
    as_float32,
    each,
)

LOG2E = 1.4426950408889634
# Minimax fits of relative error 2e-9, 2e-9 and 3e-8. All are 1 at zero and have the slope of the
# power there, so that a decay of nearly one (a small step) is not biased over a long sequence.
_WHOLE = (
    *(1.0, 0.6931471825, 0.2402264774, 0.05550332367),
    *(9.618436918e-3, 1.339887502e-3, 1.535336196e-4),
)
"""2^f for f in [-0.5, 0.5]."""
# The last coefficient is 1: one product less. Of float32 scales near the best fit, those whose
# product with the first coefficient is 1 to 3e-10.
_16THS = (18.011405944824219, 12.484555244445801, 4.326961994171143, 1.0)
"""2^f / ``_16THS_SCALE`` for f in [-1/32, 1/32]."""
_16THS_SCALE = 0.055520374327898026
_8THS = (18.015766143798828, 12.487577438354492, 4.328423500061035, 1.0)
"""2^f / ``_8THS_SCALE`` for f in [-1/16, 1/16]."""
_8THS_SCALE = 0.05550693720579147
_ROUND = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, found in the low bits


def exp2_each(code: Writer, xs: Sequence[Value]) -> list[Value]:
    """Return 2^x of several vectors, written side by side; see ``Emitter.exp2``."""
    ways = {"avx512": _exp2_16ths, "avx2": _exp2_8ths, "plain": _exp2_whole}
    return ways[code.target.powers](code, xs)


def _split(code: Writer, xs: Sequence[Value], parts: int) -> tuple[list[Value], list[Value]]:
    """Round to a multiple of 1 / parts; return sums that have it in their low bits, and rests."""
    shifted = [x + _ROUND / parts for x in xs]
    return shifted, [x - (s - _ROUND / parts) for x, s in zip(xs, shifted, strict=True)]


def _exp2_16ths(code: Writer, xs: Sequence[Value]) -> list[Value]:
    """Look up sixteenths, and let AVX-512 scale by the exponent."""
    shifted, rests = _split(code, xs, 16)
    powers = code.polynomial(_16THS, *rests)
    table = ir.Constant(VECTOR, [as_float32(_16THS_SCALE * 2 ** (k / 16)) for k in range(16)])
    every_lane, rounding = ir.Constant(I16, -1), ir.Constant(I32, 4)  # the current mode
    scaled = []
    for x, power in zip(shifted, powers, strict=True):
        places = code.builder.bitcast(x.raw, INTEGERS)  # of which the lowest four bits count
        root = code.call("llvm.x86.avx512.permvar.sf.512", VECTOR, table, places)
        exponent = x - _ROUND / 16
        operands = [(root * power).raw, exponent.raw, code.number(0).raw, every_lane, rounding]
        scaled.append(code.call("llvm.x86.avx512.mask.scalef.ps.512", VECTOR, *operands))
    return scaled


def _exp2_8ths(code: Writer, xs: Sequence[Value]) -> list[Value]:
    """Look up eighths; the exponent is added to the bits of what is found."""
    build, half = code.builder, LANES // 2
    floats, integers = ir.VectorType(F32, half), ir.VectorType(I32, half)
    # The smallest exponent with which the scale stays a normal number.
    shifted, rests = _split(code, [code.clamp(x, -121.0, 127.0) for x in xs], 8)
    powers = code.polynomial(_8THS, *rests)
    # To bring the exponent to its bits, k/8 is shifted beside it: taken off beforehand.
    roots = [_bits(_8THS_SCALE * 2 ** (k / 8)) - (k << 20) for k in range(8)]
    table = build.bitcast(ir.Constant(integers, roots), floats)
    scaled = []
    for x, power in zip(shifted, powers, strict=True):
        places = build.bitcast(x.raw, INTEGERS)  # of which the lowest three bits count
        found = []
        for first in (0, half):
            lanes = ir.Constant(integers, [*range(first, first + half)])
            part = build.shuffle_vector(places, places, lanes)
            found.append(code.call("llvm.x86.avx2.permps", floats, table, part).raw)
        root = build.shuffle_vector(*found, ir.Constant(INTEGERS, [*range(LANES)]))
        bits = build.add(build.bitcast(root, INTEGERS), build.shl(places, each(INTEGERS, 20)))
        scaled.append(Value(code, build.bitcast(bits, VECTOR)) * power)
    return scaled


def _exp2_whole(code: Writer, xs: Sequence[Value]) -> list[Value]:
    """Use what every CPU has: the exponent is added to the bits of the polynomial."""
    build, scaled = code.builder, []
    for x in xs:
        (shifted,), (rest,) = _split(code, [code.clamp(x, -126.0, 127.0)], 1)
        (power,) = code.polynomial(_WHOLE, rest)
        exponent = build.shl(build.bitcast(shifted.raw, INTEGERS), each(INTEGERS, 23))
        bits = build.add(build.bitcast(power.raw, INTEGERS), exponent)
        scaled.append(Value(code, build.bitcast(bits, VECTOR)))
    return scaled


def _bits(number: float) -> int:
    """Return the bits of a float32 as an integer."""
    bits: int = struct.unpack("i", struct.pack("f", number))[0]
    return bits
