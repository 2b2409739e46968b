"""Compiled code gets addresses: what the process has set for tensors without a stated type or
device must not reach it, and what it cannot read is refused, never read as something else."""

import re
import threading

import pytest
import torch

from tests.global_state import STATES
from vmm.models.mamba import BiMambaMixer
from vmm.ops.conv import cpu as conv_cpu
from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d
from vmm.ops.conv.interface import ConvInputs
from vmm.ops.kernels import cpu_kernel
from vmm.ops.kernels.cpu_blocks import row_arguments
from vmm.ops.kernels.cpu_kernel import packed_address
from vmm.ops.scan import cpu as scan_cpu
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.interface import ScanInputs, ScanOptions
from vmm.ops.scan.selective_scan import continue_scan, selective_scan

E, N, LENGTH = 40, 16, 70  # channels that do not fill the last vector, states, steps
RUNS = [("cpu", kind) for kind in (torch.float32, torch.bfloat16, torch.float16)]
RUNS += [("chunked", torch.float32)]


@pytest.fixture
def inputs():
    """What two directions need; no skip and no bias: kernels get zeros that are made on the way."""
    generator = torch.Generator().manual_seed(0)

    def rows(width):
        return torch.randn(2, LENGTH, width, generator=generator).transpose(1, 2)

    made = {name: rows(width) for name, width in (("u", E), ("delta", E), ("B", N), ("C", N))}
    made["A"] = -torch.rand(E, N, generator=generator)
    made["back"], made["ahead"] = torch.randn(2, E, 4, generator=generator)
    return made | {"z": rows(E), "state": torch.randn(2, E, N, generator=generator)}


def one_way(x, backend):
    names = ("u", "delta", "A", "B", "C")
    return [selective_scan(*(x[n] for n in names), delta_softplus=True, backend=backend)]


def a_piece(x, backend):
    state = x["state"].to(torch.promote_types(x["u"].dtype, torch.float32))
    names = ("u", "delta", "A", "B", "C")
    return continue_scan(state, *(x[n] for n in names), delta_softplus=True, backend=backend)


def both_ways(x, backend):
    ways = [Direction(*(x[n] for n in ("u", "delta", "A", "B", "C")))] * 2
    return [bidirectional_scan(*ways, x["z"], delta_softplus=True, backend=backend)]


def convolution(x, backend):
    taps = Taps(x["back"], None), Taps(x["ahead"], None)
    return bidirectional_conv1d(x["u"], *taps, backend=backend.replace("chunked", "torch"))


@pytest.mark.parametrize("state", STATES)
def test_the_private_memory_of_a_thread_is_float32_on_the_cpu(state, monkeypatch):
    monkeypatch.setattr(cpu_kernel, "_private", threading.local())
    with STATES[state]():
        memory = cpu_kernel._scratch(100)
    assert memory.dtype == torch.float32 and memory.device.type == "cpu"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("backend", "dtype"), RUNS, ids=str)
@pytest.mark.parametrize("work", [one_way, a_piece, both_ways, convolution])
def test_settings_of_the_process_change_nothing(work, backend, dtype, state, inputs, monkeypatch):
    record = state != "inference mode"
    leaves = {name: x.to(dtype).requires_grad_(record) for name, x in inputs.items()}

    def run():
        outs = work(leaves, backend)
        if not record:
            return outs
        used = [x for x in leaves.values() if x.requires_grad]
        grads = torch.autograd.grad(
            outs, used, [y.detach().sign() for y in outs], allow_unused=True
        )
        return [*outs, *(grad for grad in grads if grad is not None)]

    expected = run()
    monkeypatch.setattr(cpu_kernel, "_private", threading.local())  # to be made anew
    for _ in range(2):  # damaged memory shows later
        with STATES[state]():
            got = run()
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.dtype and a.device == b.device
            # Threads share the samples, and each sums its own part of the gradients.
            near = 2e-6 if a.dtype == torch.float32 else 1e-2
            assert (a - b).abs().max() <= (near if state == "three threads" else 0) * b.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_mixer_runs_under_autocast(dtype):
    mixer, x = BiMambaMixer(E), torch.randn(2, LENGTH, E)
    expected = mixer(x)
    with torch.autocast("cpu", dtype):
        got = mixer(x)
    got.float().square().sum().backward()
    assert got.dtype == dtype
    assert (got - expected).abs().max() < 0.03 * expected.abs().max()
    assert all(p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in mixer.parameters())


def test_a_view_with_its_sign_in_the_dispatcher_is_read_as_its_numbers(inputs):
    plain = one_way(inputs, "cpu")[0]
    negated = dict(inputs, u=torch._neg_view(-inputs["u"]))
    assert negated["u"].is_neg() and torch.equal(one_way(negated, "cpu")[0], plain)


def of_another_kind(x):
    return {
        "float64": x.double(),
        "float16": x.half(),
        "int32": x.int(),
        "another device": x.to("meta"),
        "sparse": x.to_sparse(),
    }


@pytest.mark.parametrize("kind", of_another_kind(torch.ones(1)))
def test_addresses_of_what_kernels_cannot_read_are_refused(kind):
    wrong = of_another_kind(torch.ones(16, 16))[kind]
    if wrong.layout == torch.strided:
        with pytest.raises(ValueError, match=r"want d_B as torch\.float32 or torch\.bfloat16"):
            row_arguments("d_B", wrong[None].transpose(1, 2), reverse=False)
        with pytest.raises(ValueError, match=r"want A as torch\.float32 in the memory of the CPU"):
            packed_address("A", wrong)
    else:
        with pytest.raises(ValueError, match=r"want A as torch\.float32 .*torch\.sparse_coo"):
            packed_address("A", wrong)


def test_addresses_of_scattered_numbers_are_refused():
    scattered = torch.ones(2, 16, 9)
    with pytest.raises(ValueError, match=re.escape("want u channels-last, got (2, 16, 9)")):
        row_arguments("u", scattered, reverse=False)
    with pytest.raises(ValueError, match="want state without gaps"):
        packed_address("state", scattered.transpose(0, 2))
    assert packed_address("starts", None) == 0
    assert row_arguments("u", torch.ones(2, 1, 9), reverse=False)["u_row"] == 4  # one channel


@pytest.mark.parametrize("name", ["delta", "B", "A", "D", "z"])
def test_one_tensor_on_another_device_is_an_error(name, inputs):
    x = dict(inputs, D=torch.ones(E))
    x[name] = x[name].to("meta")
    scan_inputs = ScanInputs(*(x[n] for n in ("u", "delta", "A", "B", "C", "D", "z")), None)
    with pytest.raises(ValueError, match=r"in the memory of the CPU, got .* on meta"):
        scan_cpu.forward(scan_inputs, ScanOptions(True, False), None, None)
    with pytest.raises(ValueError, match=r"in the memory of the CPU, got .* on meta"):
        conv_cpu.forward(ConvInputs(inputs["u"], inputs["back"].to("meta")), silu=True)
