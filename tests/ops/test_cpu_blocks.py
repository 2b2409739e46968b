"""In which order kernels walk over blocks and rows, and what they ask the memory for."""

import pytest
import torch

from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d
from vmm.ops.kernels import cpu_kernel
from vmm.ops.kernels.cpu_blocks import SPAN, Block, each_span, row_arguments, size_arguments
from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_values import LANES

pytestmark = pytest.mark.skipif(
    cpu_kernel.target() is None, reason="kernels cannot be compiled here"
)


def walk(x, one_row, length, batch=1):
    """Run ``one_row(code, block, t)`` for all rows of all blocks."""

    def write(code):
        def some_rows(block, first, rows):
            code.loop(rows, lambda k: one_row(code, block, first + k))

        rows = code.arguments["length"]
        code.each_item(lambda item: each_span(code, item, rows * 0, rows, some_rows))

    blocks = -(-x.shape[1] // LANES)
    arguments = size_arguments(x[..., :length]) | row_arguments("x", x, False)
    arguments |= {"groups": 1, "group_blocks": blocks}  # however many threads there are
    arguments["count"] = (count := torch.zeros(LANES)).data_ptr()
    cpu_kernel.compile_kernel(write, arguments).run(arguments, batch, 1)
    return count


@pytest.mark.parametrize(("batch", "channels", "length"), [(1, 40, 21), (2, 16, 8), (3, 33, 3)])
def test_all_blocks_of_some_rows_come_before_the_next_rows(batch, channels, length):
    blocks = -(-channels // LANES)
    x = torch.zeros(batch, length, channels).transpose(1, 2)

    def one_row(code, block, t):
        code.add_to(code.arguments["count"], code.number(1.0))
        block.write("x", t, block.read("x", t) + code.load(code.arguments["count"]))

    cpu_kernel._compiled.cache_clear()
    count = walk(x, one_row, length, batch)
    assert count[0] == batch * blocks * length
    firsts = x[:, ::LANES]  # of every block
    order = sorted(
        ((sample, t // SPAN, block, t), firsts[sample, block, t].item())
        for sample in range(batch)
        for block in range(blocks)
        for t in range(length)
    )
    assert [number for _, number in order] == list(range(1, 1 + len(order)))
    assert all(torch.equal(x[:, n], x[:, n // LANES * LANES]) for n in range(channels))


@pytest.mark.parametrize(("channels", "length", "later"), [(40, 21, SPAN), (16, 9, 2)])
def test_what_comes_next_is_asked_for(channels, length, later, monkeypatch):
    """The next block of the row, and after the last block the first one of later rows."""
    x = torch.zeros(1, length + later, channels).transpose(1, 2)  # with room behind the last row

    def mark(code, address):
        code.store_number(code.number(1.0), address)

    monkeypatch.setattr(Emitter, "prefetch", mark)
    cpu_kernel._compiled.cache_clear()
    walk(x, lambda code, block, t: block.expect_next_block(t, later, "x", "absent"), length)
    cpu_kernel._compiled.cache_clear()
    expected = torch.zeros_like(x)
    expected[0, ::LANES] = 1
    expected[0, 0, :later] = 0  # what the first rows begin with
    expected[0, LANES:, length:] = 0  # rows that do not exist are not walked over
    assert torch.equal(x, expected)


def test_a_convolution_asks_for_every_row_that_the_next_block_reads_or_writes(monkeypatch):
    asked, used = set(), set()
    expect, read, write = Block.expect_next_block, Block.read, Block.write

    def place(name, t):  # what LLVM computes t from, without the number of the instruction
        return name, str(t.raw).partition("=")[2]

    def expecting(block, t, later, *names):
        assert later == SPAN
        asked.update(place(name, t) for name in names if name in block.code.arguments)
        expect(block, t, later, *names)

    def reading(block, name, t):
        used.add(place(name, t))
        return read(block, name, t)

    def writing(block, name, t, x):
        used.add(place(name, t))
        write(block, name, t, x)

    for name, spy in (("expect_next_block", expecting), ("read", reading), ("write", writing)):
        monkeypatch.setattr(Block, name, spy)
    cpu_kernel._compiled.cache_clear()
    x = torch.randn(1, 9, 32).transpose(1, 2).requires_grad_()
    taps = [Taps(torch.randn(32, 4), torch.randn(32)) for _ in range(2)]
    sum(bidirectional_conv1d(x, *taps, backend="cpu")).sum().backward()
    names = {"x", "out", "out_reverse", "d_out", "d_out_reverse", "d_x"}
    assert {name for name, _ in used} == names and used <= asked
