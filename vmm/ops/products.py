"""Products of many rows with one vector: what a search compares a query with a collection by.

It waits for memory, and a CPU foresees what is read next only within a page. So the compiled
kernel reads four rows at a time that are far apart: while one of them waits, others arrive. That
takes about 0.7 times as long as row after row. All are summed up in the same order, whatever their
place, so a product depends on its row and the vector alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_kernel import compile_kernel, packed_address
from vmm.ops.kernels.cpu_lane_sums import sum_everywhere
from vmm.ops.kernels.cpu_values import LANES, Value

_STREAMS = 4
"""Rows that are read at a time."""
_PIECE = 2**11
"""Rows that one thread reads before it asks for more: 4 MB, so streams are 1 MB apart."""


def products(tables: Sequence[Tensor], vector: Tensor) -> Tensor:
    """Multiply the rows of tables by a vector, on as many threads as PyTorch uses.

    Args:
        tables: (k, E) each, n rows together: float32 without gaps, in memory or mapped from files.
        vector: (E,) float32.

    Returns:
        (n,) float32, each the same wherever its row is, and however many threads there are.

    Raises:
        ValueError: If they do not fit together, or are of another type.
    """
    width, asked = len(vector), packed_address("the vector", vector)
    found = vector.new_empty(sum(map(len, tables)))
    pieces, out = [], packed_address("products", found)
    for table in tables:
        if table.shape[1:] != vector.shape:
            raise ValueError(f"rows of {tuple(table.shape)} have no product with {width} numbers")
        address = packed_address("rows", table)
        for first in range(0, len(table), _PIECE):
            count = min(_PIECE, len(table) - first)
            pieces.append((address + 4 * width * first, count, out))
            out += 4 * count
    described = torch.tensor(pieces, dtype=torch.int64, device="cpu")
    arguments = {
        "channels": width,
        "blocks": -(-width // LANES),
        "vector": asked,
        "pieces": described.data_ptr(),
    }
    compile_kernel(_write, arguments).run(arguments, len(pieces), found.numel() * width)
    return found


def _write(code: Emitter) -> None:
    """Write the kernel: an item is a piece."""

    def piece(item: Value) -> None:
        about = code.arguments["pieces"] + item * 24
        first, count, out = (code.load_integer(about + 8 * i) for i in range(3))
        apart = (count + (_STREAMS - 1)) // _STREAMS

        def rows(i: Value) -> None:  # one of each stream; past the end it is the last one again
            places = [code.least(i + apart * stream, count - 1) for stream in range(_STREAMS)]
            for place, total in zip(places, _products(code, first, places), strict=True):
                code.store_number(total, out + place * 4)

        code.loop(apart, rows)

    code.each_item(piece)


def _products(code: Emitter, first: Value, places: Sequence[Value]) -> list[Value]:
    """Return the products of some rows, in all lanes."""
    width, vector = code.arguments["channels"], code.arguments["vector"]
    rows = [first + place * width * 4 for place in places]

    def add(block: Value, *totals: Value) -> list[Value]:
        code.keep_lanes(width - block * LANES)
        here = block * code.bytes
        factor = code.load_row(vector + here)
        return [
            total + code.load_row(row + here) * factor
            for total, row in zip(totals, rows, strict=True)
        ]

    totals = code.loop(code.arguments["blocks"], add, *[code.number(0)] * len(rows))
    return [sum_everywhere(code, total) for total in totals]
