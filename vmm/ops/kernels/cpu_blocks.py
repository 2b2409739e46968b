"""How tensors (batch, channels, length) reach a CPU kernel: as rows in time and blocks of channels.

A row is all channels at one position, contiguous in memory. A block is ``LANES`` channels, one
vector; what belongs to a channel (a weight, a bias) is laid out by block. An item, the unit that
threads share, is one sample and a group of blocks. The first half of this file prepares tensors;
the second half is what kernels write to get at them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_kernel import address_of
from vmm.ops.kernels.cpu_values import LANES, Value
from vmm.ops.op_tools import channels_last


def by_block(x: Tensor) -> Tensor:
    """Cut (E, ...) into blocks, padded with zeros, lanes innermost: (blocks, ..., lanes)."""
    padding = -x.shape[0] % LANES
    if padding:
        x = torch.cat([x, x.new_zeros(padding, *x.shape[1:])])
    if x.dim() == 1:
        return x.contiguous().view(-1, LANES)
    return x.reshape(-1, LANES, *x.shape[1:]).movedim(1, -1).contiguous()


def from_blocks(x: Tensor, channels: int) -> Tensor:
    """Undo ``by_block``: (blocks, ..., lanes) to (channels, ...)."""
    return x.movedim(-1, 1).flatten(0, 1)[:channels]


def row_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which kernels take what is like x: float32 or bfloat16; any shape."""
    return x.dtype if x.dtype == torch.bfloat16 else torch.float32


def as_rows(x: Tensor) -> Tensor:
    """Return (B, K, L) x as kernels read it, K innermost: itself, or a copy to be kept alive."""
    dtype = row_dtype(x)
    return channels_last(x if x.dtype == dtype else x.to(dtype))


def row_arguments(name: str, x: Tensor, reverse: bool) -> dict[str, int]:
    """Describe a channels-last tensor (B, K, L): first row, and strides in bytes.

    A reversed tensor starts at its last row and has a negative stride, so that kernels need not
    know about direction. Of a bfloat16 tensor there is one argument more; that its name is there is
    what kernels, which are compiled for names, go by.

    Raises:
        ValueError: If x is not channels-last, or of a type that kernels cannot read.
    """
    batch, channel, row = x.stride()
    if channel != 1 and x.shape[1] > 1:
        raise ValueError(
            f"CPU kernels want {name} channels-last, got {tuple(x.shape)}, strides {x.stride()}"
        )
    size, start = x.element_size(), address_of(name, x, torch.float32, torch.bfloat16)
    row *= size
    if reverse:
        start, row = start + (x.shape[-1] - 1) * row, -row
    found = {name: start, f"{name}_batch": batch * size, f"{name}_row": row}
    return found | {f"{name}_bfloat16": 1} if x.dtype == torch.bfloat16 else found


def size_arguments(x: Tensor) -> dict[str, int]:
    """Return the sizes of (B, E, L) x and a division into items with work for every thread."""
    batch, channels, length = x.shape
    blocks = -(-channels // LANES)
    groups = -(-torch.get_num_threads() // max(batch, 1))
    group_blocks = -(-blocks // min(groups, blocks))
    return {
        "length": length,
        "channels": channels,
        "blocks": blocks,
        "groups": -(-blocks // group_blocks),
        "group_blocks": group_blocks,
    }


SPAN = 8
"""Rows of all blocks that ``each_span`` takes before the rows behind them.

Rows are often a multiple of 512 bytes long, and large tensors begin at the same place of a page:
then the rows of all of them use eight of the 64 sets of a CPU's first cache, and more than eight
rows would push each other out between the moment they are asked for and their use.
"""


class Block:
    """One sample and one block of channels, inside a kernel being written.

    Args:
        code: The kernel.
        item: The item that it is part of.
        place: Which block of the item.
        count: Blocks of the item.
    """

    def __init__(self, code: Emitter, item: Value, place: Value, count: Value) -> None:
        arg = code.arguments
        self.code, self.batch, self.group = code, item // arg["groups"], item % arg["groups"]
        self.index = self.group * arg["group_blocks"] + place
        self._offset = self.index * code.bytes
        self.place, self._count = place, count

    def row(self, name: str, t: Value) -> Value:
        """Return the address of row t of this sample."""
        arg = self.code.arguments
        return arg[name] + self.batch * arg[f"{name}_batch"] + t * arg[f"{name}_row"]

    def read(self, name: str, t: Value) -> Value:
        """Load this block of row t."""
        load = self.code.load_bfloat16 if self._is_bfloat16(name) else self.code.load_row
        return load(self._address(name, t, self.index))

    def write(self, name: str, t: Value, x: Value) -> None:
        """Store this block of row t."""
        store = self.code.store_bfloat16 if self._is_bfloat16(name) else self.code.store_row
        store(x, self._address(name, t, self.index))

    def expect_next_block(self, t: Value, later: int, *names: str) -> None:
        """Bring the next block of row t closer, of what is there of the names.

        After the last block of an item it is the first one of row t + ``later``. Blocks of a row
        are taken with other rows in between, so no CPU does this by itself.
        """
        more = self.code.least(self._count - 1 - self.place, 1)
        row, block = t + (1 - more) * later, self.index - self.place + (self.place + 1) * more
        for name in names:
            if name in self.code.arguments:
                self.code.prefetch(self._address(name, row, block))

    def _address(self, name: str, t: Value, block: Value) -> Value:
        return self.row(name, t) + block * (LANES * self._size(name))

    def _size(self, name: str) -> int:
        """Bytes of a lane."""
        return 2 if self._is_bfloat16(name) else 4

    def _is_bfloat16(self, name: str) -> bool:
        return f"{name}_bfloat16" in self.code.arguments

    def per_channel(self, name: str, size: int = 1) -> Value:
        """Return the address of this block of a tensor (blocks, size, lanes)."""
        return self.code.arguments[name] + self._offset * size

    def per_sample(self, name: str, size: int = 1) -> Value:
        """Return the address of this block of a tensor (batch, blocks, size, lanes)."""
        all_blocks = self.code.arguments["blocks"] * (size * self.code.bytes)
        return self.per_channel(name, size) + self.batch * all_blocks


def each_block(code: Emitter, item: Value, body: Callable[[Block], None]) -> None:
    """Write ``body(block)`` for every block of an item."""
    arg = code.arguments
    first = item % arg["groups"] * arg["group_blocks"]
    count = code.least(arg["group_blocks"], arg["blocks"] - first)

    def one(place: Value) -> None:
        block = Block(code, item, place, count)
        code.keep_lanes(arg["channels"] - block.index * LANES)
        body(block)

    code.loop(count, one)


def each_span(
    code: Emitter,
    item: Value,
    start: Value,
    count: Value,
    body: Callable[[Block, Value, Value], None],
) -> None:
    """Write ``body(block, first, rows)`` for every block of an item and up to ``SPAN`` of its rows.

    All blocks come before the next rows: what a block carries from row to row waits in memory.

    Args:
        code: The kernel.
        item: The item.
        start: The first row.
        count: Rows in all.
        body: Writes what is done with some rows of a block.
    """

    def one(number: Value) -> None:
        done = number * SPAN
        rows = code.least(count - done, SPAN)
        each_block(code, item, lambda block: body(block, start + done, rows))

    code.loop((count + (SPAN - 1)) // SPAN, one)
