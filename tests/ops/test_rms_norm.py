"""RMSNorm: compiled on the CPU, forward and backward, and PyTorch's own elsewhere."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from tests.ops.cpus import CPUS
from vmm.ops import rms_norm as module
from vmm.ops.kernels.cpu_kernel import CPU_VARIABLE
from vmm.ops.rms_norm import rms_norm

EPS = 1e-5


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def formula(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def in_float64(x, weight, d_out, eps=EPS):
    """Return output and gradients of the formula."""
    x, weight = (y.detach().double().requires_grad_() for y in (x, weight))
    out = formula(x, weight, eps)
    return out.detach(), *torch.autograd.grad(out, (x, weight), d_out.double())


@pytest.fixture
def compiled(monkeypatch):
    """Name the kernels that ran."""
    calls = []
    real = module._run
    monkeypatch.setattr(module, "_run", lambda w, *rest: calls.append(w.__name__) or real(w, *rest))
    monkeypatch.setattr(module, "_PIECE", 4)
    return calls


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (2, 5, 48), (4, 50), (5, 7), (2, 2, 3, 192)])
@pytest.mark.parametrize("threads", [1, 3])
def test_kernels_compute_the_formula_and_its_gradient(shape, cpu, threads, compiled, monkeypatch):
    monkeypatch.setenv(CPU_VARIABLE, cpu)
    monkeypatch.setattr("vmm.ops.kernels.cpu_kernel._SMALL", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, weight, d_out = 3 * draw(*shape), draw(shape[-1]), draw(*shape)
    x.requires_grad_()
    weight.requires_grad_()
    out = rms_norm(x, weight, EPS)
    gradients = torch.autograd.grad(out, (x, weight), d_out)
    assert compiled == ["_write_forward", "_write_backward"]
    for actual, wanted in zip((out, *gradients), in_float64(x, weight, d_out), strict=True):
        assert actual.shape == wanted.shape and actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), wanted, rtol=2e-6, atol=2e-6)


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr("vmm.ops.kernels.cpu_kernel._SMALL", 0)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        x, weight = draw(700, 48).requires_grad_(), draw(48).requires_grad_()
        out = rms_norm(x, weight, EPS)
        found.append((out.detach(), *torch.autograd.grad(out, (x, weight), draw(700, 48))))
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], others, strict=True))


@pytest.mark.parametrize("eps", [1e-5, 1.0])
def test_epsilon_keeps_rows_of_zeros_finite(eps, compiled):
    x, weight, d_out = torch.zeros(2, 16, requires_grad=True), draw(16), draw(2, 16)
    x.data[1] = 1e-3
    out = rms_norm(x, weight, eps)
    (d_x,) = torch.autograd.grad(out, x, d_out)
    wanted, d_wanted, _ = in_float64(x, weight, d_out, eps)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d_x.double(), d_wanted, rtol=1e-6, atol=1e-6)
    assert compiled


def test_nan_stays_in_its_row(compiled):
    x = draw(3, 40)
    x[1, 7] = torch.nan
    out = rms_norm(x, torch.ones(40), EPS)
    assert out[1].isnan().all() and out[[0, 2]].isfinite().all() and compiled


def test_no_graph_without_a_gradient(compiled):
    x, weight = draw(3, 16), draw(16).requires_grad_()
    with torch.no_grad():
        assert not rms_norm(x, weight, EPS).requires_grad
    assert rms_norm(x, weight, EPS).requires_grad
    assert not rms_norm(x, weight.detach(), EPS).requires_grad
    assert compiled == ["_write_forward"] * 3


def test_a_gradient_that_is_not_packed_or_one_number(compiled):
    weight = draw(16)
    x = draw(3, 16).requires_grad_()
    (d_x,) = torch.autograd.grad(rms_norm(x, weight, EPS).sum(), x)  # expanded from one number
    _, wanted, _ = in_float64(x, weight, torch.ones(3, 16))
    torch.testing.assert_close(d_x.double(), wanted, rtol=1e-5, atol=1e-6)
    assert "_write_backward" in compiled


def test_a_checkpointed_one_has_the_same_gradient(compiled):
    weight = draw(16)
    x = draw(3, 16).requires_grad_()
    plain = torch.autograd.grad(rms_norm(x, weight, EPS), x, draw(3, 16))
    again = checkpoint(rms_norm, x, weight, EPS, use_reentrant=False)
    assert torch.equal(*plain, *torch.autograd.grad(again, x, draw(3, 16)))
    assert compiled.count("_write_forward") == 3


@pytest.mark.parametrize("trained", [(0,), (1,), (0, 1)], ids=["x", "weight", "both"])
def test_the_second_derivative_is_that_of_the_formula(trained, compiled):
    found = []
    for kind, norm in ((torch.float32, rms_norm), (torch.float64, formula)):
        inputs = draw(2, 16).to(kind), draw(16).to(kind)
        wanted = [inputs[i].requires_grad_() for i in trained]
        total = norm(*inputs, EPS).pow(3).sum()
        gradients = torch.autograd.grad(total, wanted, create_graph=True)
        assert "_write_backward" not in compiled
        squares = sum(gradient.square().sum() for gradient in gradients)
        second = torch.autograd.grad(squares, wanted)
        found.append([gradient.double() for gradient in second])
        compiled.clear()
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "x",
    [
        draw(4, 16, dtype=torch.float64),
        draw(4, 16).bfloat16(),
        draw(16, 4).t(),
        torch.empty(0, 16),
        torch.empty(4, 16, device="meta"),
    ],
    ids=["float64", "bfloat16", "turned", "empty", "meta"],
)
def test_what_no_kernel_reads_is_left_to_pytorch(x, compiled):
    weight = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
    actual = rms_norm(x, weight, EPS)
    assert not compiled and (actual.shape, actual.dtype) == (x.shape, x.dtype)
    if x.device.type != "meta":
        torch.testing.assert_close(actual, F.rms_norm(x, weight.shape, weight, EPS))


class _Norm(torch.nn.Module):
    def forward(self, x, weight):
        return rms_norm(x, weight, EPS)


def test_graphs_know_pytorchs_own_alone(compiled):
    x, weight = draw(3, 16), draw(16)
    exported = torch.export.export(_Norm(), (x, weight))
    traced = torch.compile(_Norm(), backend="eager", fullgraph=True)
    outs = exported.module()(x, weight), traced(x, weight)
    assert not compiled
    for out in outs:
        torch.testing.assert_close(out, rms_norm(x, weight, EPS))
