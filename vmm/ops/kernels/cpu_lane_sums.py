"""Sums over the lanes of one vector or of many, for ``vmm.ops.kernels.cpu_emitter``."""

from __future__ import annotations

from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_values import LANES, Value

_QUARTERS = range(0, LANES, 4)
# Lanes of two vectors and their neighbours. The first two levels stay inside quarters of a vector,
# the others move whole quarters: CPUs have fast instructions for both.
_LEFT_INSIDE = [start + i for q in _QUARTERS for start in (q, LANES + q) for i in (0, 2)]
_LEFT_QUARTERS = [start + i for start in range(0, 2 * LANES, 8) for i in range(4)]
_INSIDE = _LEFT_INSIDE, [i + 1 for i in _LEFT_INSIDE]
_WHOLE = _LEFT_QUARTERS, [i + 4 for i in _LEFT_QUARTERS]
_NEIGHBOURS = (_INSIDE, _INSIDE, _WHOLE, _WHOLE)
"""For each level: lanes, and those that are added to them."""


def sum_everywhere(code: Emitter, x: Value) -> Value:
    """Return the sum over the lanes of a vector, in each of them."""
    half = LANES
    while half > 1:
        half //= 2
        x = x + code.shuffle(x, x, [(lane + half) % LANES for lane in range(LANES)])
    return x


class LaneSums:
    """Sums the lanes of vectors, given one by one, and adds each sum to a number in memory.

    Pairs of vectors are folded into one until a single vector holds ``LANES`` sums.

    Args:
        code: The kernel.
        address: Of the number for the first vector; those of the others follow it.
    """

    def __init__(self, code: Emitter, address: Value) -> None:
        self._code, self._address = code, address
        self._folded: list[tuple[int, Value]] = []  # with their levels, which decrease
        self._count = 0

    def append(self, x: Value) -> None:
        """Take one more vector."""
        self._count += 1
        self._folded.append((0, x))
        while len(self._folded) > 1 and self._folded[-2][0] == self._folded[-1][0]:
            self._fold(2)
        if self._count == LANES:
            self.finish()

    def finish(self) -> None:
        """Add what has not been added yet."""
        if self._count == 0:
            return
        while self._folded[0][0] < len(_NEIGHBOURS):
            paired = len(self._folded) > 1 and self._folded[-2][0] == self._folded[-1][0]
            self._fold(2 if paired else 1)
        self._code.add_numbers(self._address, self._folded.pop()[1], self._count)
        self._address, self._count = self._address + 4 * self._count, 0

    def _fold(self, count: int) -> None:
        """Fold the last two, or, with nothing to go with it, the last one with itself."""
        level, x = self._folded[-count]
        y = self._folded[-1][1]
        left, right = (self._code.shuffle(x, y, lanes) for lanes in _NEIGHBOURS[level])
        self._folded[-count:] = [(level + 1, left + right)]
