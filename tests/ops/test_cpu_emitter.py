import pytest
import torch
import torch.nn.functional as F

from tests.ops.cpus import CPUS
from vmm.ops.kernels.cpu_blocks import (
    by_block,
    each_block,
    from_blocks,
    row_arguments,
    size_arguments,
)
from vmm.ops.kernels.cpu_kernel import compile_kernel
from vmm.ops.kernels.cpu_lane_sums import LaneSums
from vmm.ops.op_tools import channels_last, empty_packed


@pytest.fixture(params=CPUS)
def cpu(request, monkeypatch):
    monkeypatch.setenv("VMM_CPU", request.param)
    return request.param


def write_map(code, function):
    """A kernel that applies one of the emitter's functions to every number."""

    def one_block(at):
        def one_row(t):
            at.write("out", t, getattr(code, function)(at.read("x", t)))

        code.loop(code.arguments["length"], one_row)

    code.each_item(lambda item: each_block(code, item, one_block))


def apply(function, x, reverse=False):
    x = channels_last(x)
    out = empty_packed(x).fill_(7)
    arguments = size_arguments(x)
    arguments |= row_arguments("x", x, reverse) | row_arguments("out", out, reverse)
    kernel = compile_kernel(write_map, arguments, function)
    kernel.run(arguments, len(x) * arguments["groups"], x.numel())
    return out


def write_copy(code):
    """A kernel that copies rows, whatever their types."""

    def one_block(at):
        code.loop(code.arguments["length"], lambda t: at.write("out", t, at.read("x", t)))

    code.each_item(lambda item: each_block(code, item, one_block))


@pytest.mark.parametrize("channels", [7, 16, 33])
def test_bfloat16_is_read_and_rounded_as_pytorch_does(cpu, channels):
    bits = torch.arange(0, 2**31, 2**31 // 9000 + 1, dtype=torch.int64)  # low halves of all kinds
    ties = torch.arange(0, 2**31, 2**31 // 9000 // 65536 * 65536) + 0x8000
    x = torch.cat([bits, ties]).to(torch.int32).view(torch.float32)
    x = torch.cat([x, -x, torch.tensor([torch.inf, -torch.inf, torch.nan])])
    x = x[: len(x) // channels * channels].view(1, -1, channels).transpose(1, 2)
    rounded = x.bfloat16()
    for source, dtype in ((x, torch.bfloat16), (rounded, torch.float32), (rounded, torch.bfloat16)):
        out = empty_packed(x, dtype).fill_(7)
        arguments = size_arguments(x)
        arguments |= row_arguments("x", source, False) | row_arguments("out", out, False)
        compile_kernel(write_copy, arguments).run(arguments, arguments["groups"], x.numel())
        assert torch.equal(out.isnan(), rounded.isnan())
        kept = ~rounded.isnan()
        assert torch.equal(out[kept], rounded[kept].to(dtype))


RANGE = torch.cat([torch.linspace(-120, 120, 4801), torch.linspace(-1, 1, 2001)])
TINY = torch.tensor([1e-7, -1e-7, 1e-4, -1e-4, 1e-3, -1e-3, 0.0])


@pytest.mark.parametrize(
    ("function", "exact", "limit"),
    [
        ("exp2", torch.exp2, 1.5e-7),
        ("sigmoid", torch.sigmoid, 8e-6),  # of the exponent's rounding at 1e2
        ("silu", F.silu, 8e-6),
        ("softplus", lambda x: F.softplus(x, threshold=50), 8e-6),
    ],
)
def test_functions_are_accurate(cpu, function, exact, limit):
    x = torch.cat([RANGE, TINY])
    x = x[x > -80] if function != "exp2" else x
    x = x[exact(x) != 0]
    out = apply(function, x.view(1, -1, 1)).flatten().double()
    expected = exact(x.double())
    assert ((out - expected).abs() / expected).max() < limit
    near = x.abs() < 1
    assert ((out - expected).abs() / expected)[near].max() < 3e-7


def test_exp2_is_exact_at_zero_and_unbiased_near_it(cpu):
    """A decay of nearly one is multiplied with itself over the whole sequence."""
    x = -torch.logspace(-6, -2, 1000)
    out = apply("exp2", x.view(1, -1, 1)).flatten().double()
    error = out / torch.exp2(x.double()) - 1
    assert error.mean().abs() < 1e-8
    assert apply("exp2", torch.zeros(1, 5, 1)).flatten().tolist() == [1.0] * 5


def test_functions_saturate_and_keep_nan(cpu):
    x = torch.tensor([float("nan"), 1e4, -1e4, float("inf"), -float("inf")]).view(1, -1, 1)
    sigmoid = apply("sigmoid", x).flatten()
    assert sigmoid[0].isnan() and sigmoid[1] == sigmoid[3] == 1
    assert sigmoid[2] < 1e-36 and sigmoid[4] < 1e-36
    silu = apply("silu", x).flatten()
    assert silu[0].isnan() and silu[1] == 1e4 and silu[3] == float("inf") and abs(silu[2]) < 1e-33
    softplus = apply("softplus", x).flatten()
    assert softplus[0].isnan() and softplus[1] == 1e4 and softplus[3] == float("inf")
    assert softplus[2] < 1e-36
    exp2 = apply("exp2", x).flatten()
    assert exp2[0].isnan() and exp2[1] > 1e38 and exp2[2] < 1e-36


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 300])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_number_is_reached_and_nothing_else(cpu, channels, reverse):
    memory = torch.full((2, 3, channels + 5), float("nan"))
    memory[..., 2 : channels + 2] = torch.randn(2, 3, channels)
    x = memory.transpose(1, 2)[:, 2 : channels + 2]
    torch.testing.assert_close(apply("exp2", x, reverse), torch.exp2(x), rtol=1e-6, atol=0)


def test_a_row_tensor_is_used_in_place_and_others_are_copied():
    x = torch.randn(2, 5, 6).transpose(1, 2)
    assert channels_last(x).data_ptr() == x.data_ptr()
    packed = x.contiguous()
    assert channels_last(packed).stride(1) == 1 and torch.equal(channels_last(packed), x)


@pytest.mark.parametrize("shape", [(5,), (16,), (33, 3)])
def test_blocks_are_padded_with_zeros_and_can_be_undone(shape):
    x = torch.randn(shape)
    blocks = by_block(x)
    assert blocks.shape == (-(-shape[0] // 16), *shape[1:], 16)
    assert torch.equal(from_blocks(blocks, shape[0]), x)
    assert blocks.sum() == pytest.approx(x.sum().item(), abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 64])
@pytest.mark.parametrize(("batch", "channels"), [(1, 16), (1, 384), (1, 1152), (64, 256), (3, 700)])
def test_groups_cover_all_blocks_and_give_every_thread_work(batch, channels, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    sizes = size_arguments(torch.empty(batch, channels, 1))
    assert sizes["blocks"] == -(-channels // 16)
    assert (sizes["groups"] - 1) * sizes["group_blocks"] < sizes["blocks"]
    assert sizes["groups"] * sizes["group_blocks"] >= sizes["blocks"]
    if threads == 1:
        assert sizes["groups"] == 1  # each group has sums of its own: memory
    if threads <= 2 and channels > 16:
        assert batch * sizes["groups"] >= threads


def write_lane_sums(code, count):
    """A kernel that adds the sums over the lanes of rows to numbers."""
    sums = LaneSums(code, code.arguments["sums"])
    for row in range(count):
        sums.append(code.load(code.arguments["x"] + row * code.bytes))
    sums.finish()
    sums.finish()  # nothing is left, nothing is added twice


@pytest.mark.parametrize("count", [*range(18), 31, 32, 37])
def test_lanes_of_any_number_of_vectors_are_summed(cpu, count):
    x = torch.randn(count + 1, 16)
    before = torch.randn(count + 2)  # and what lies behind the sums is left alone
    sums = before.clone()
    arguments = {"channels": 16, "x": x.data_ptr(), "sums": sums.data_ptr()}
    compile_kernel(write_lane_sums, arguments, count).run(arguments, 1, 1)
    exact = torch.cat([x[:count].double().sum(1), torch.zeros(2, dtype=torch.float64)])
    torch.testing.assert_close(sums.double(), before + exact, rtol=0, atol=5e-6)
    assert torch.equal(sums[count:], before[count:])
