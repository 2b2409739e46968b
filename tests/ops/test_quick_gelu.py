"""The activation of OpenAI's CLIP: compiled where no gradient is wanted, else PyTorch's own."""

import pytest
import torch
from torch import nn

from tests.ops.cpus import CPUS
from vmm.ops import quick_gelu as module
from vmm.ops.kernels.cpu_kernel import CPU_VARIABLE
from vmm.ops.quick_gelu import QuickGELU, quick_gelu, with_quick_gelu


def in_float64(x):
    return x.double() * torch.sigmoid(1.702 * x.double())


@pytest.fixture
def compiled(monkeypatch):
    """Count the calls that a kernel answers."""
    calls = []
    real = module._compiled
    monkeypatch.setattr(module, "_compiled", lambda x: calls.append(x.shape) or real(x))
    monkeypatch.setattr(module, "_PIECE", 64)
    return calls


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("shape", [(0,), (1,), (15,), (3, 16), (5, 7, 9), (64,), (65,), (2, 1000)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_computes_the_formula(shape, cpu, threads, compiled, monkeypatch):
    monkeypatch.setenv(CPU_VARIABLE, cpu)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x = 8 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    actual = quick_gelu(x)
    assert compiled == [x.shape] and actual.shape == x.shape and actual.dtype == x.dtype
    torch.testing.assert_close(actual.double(), in_float64(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cpu", CPUS)
def test_numbers_at_the_ends_stay_what_they_are(cpu, compiled, monkeypatch):
    monkeypatch.setenv(CPU_VARIABLE, cpu)
    x = torch.tensor([torch.nan, torch.inf, 1e30, 0.0, -1e3, -1e30])
    actual = quick_gelu(x)
    assert compiled and actual[0].isnan()
    assert torch.equal(actual[1:4], x[1:4])
    assert actual[4:].abs().max() < 1e-8


def test_a_gradient_is_that_of_the_formula(compiled):
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quick_gelu, x)
    single = torch.randn(40, requires_grad=True)
    quick_gelu(single).sum().backward()
    assert single.grad is not None and not compiled
    with torch.no_grad():
        quick_gelu(single.detach())
        assert len(compiled) == 1


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(40, dtype=torch.bfloat16),
        torch.randn(40, dtype=torch.float64),
        torch.randn(8, 8).t(),
        torch.randn(40, device="meta"),
    ],
    ids=["bfloat16", "float64", "turned", "meta"],
)
def test_what_no_kernel_reads_is_left_to_pytorch(x, compiled):
    actual = quick_gelu(x)
    assert not compiled and (actual.shape, actual.dtype) == (x.shape, x.dtype)


def test_graphs_know_the_formula_alone(compiled):
    exported = torch.export.export(QuickGELU(), (torch.randn(4),))
    assert not compiled
    x = torch.randn(4)
    torch.testing.assert_close(exported.module()(x).double(), in_float64(x))


def test_a_compiled_graph_has_no_hole(compiled):
    x = torch.randn(4)
    traced = torch.compile(quick_gelu, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(x).double(), in_float64(x))
    assert not compiled


def test_it_takes_the_place_of_another_of_its_name():
    class QuickGELU(nn.Module):
        """As open_clip's."""

    tower = nn.Sequential(nn.Linear(2, 2), nn.Sequential(QuickGELU(), nn.GELU()))
    found = [type(part) for part in with_quick_gelu(tower)[1]]
    assert found == [module.QuickGELU, nn.GELU]
