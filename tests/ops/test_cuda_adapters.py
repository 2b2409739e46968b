"""The adapters to the CUDA packages, on the CPU: fakes record the call and compute the result."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from vmm.ops import backends
from vmm.ops.conv import cuda as conv_cuda
from vmm.ops.conv import torch as conv_torch
from vmm.ops.conv.interface import ConvInputs
from vmm.ops.scan import mamba_ssm as scan_mamba_ssm
from vmm.ops.scan.interface import ScanInputs, ScanOptions
from vmm.ops.scan.selective_scan import selective_scan_ref


def on_cuda(dtype):
    """What is asked of a tensor, for one that could not be made here."""
    return types.SimpleNamespace(device=torch.device("cuda"), dtype=dtype)


def fake_package(monkeypatch, name, **functions):
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    for key, function in functions.items():
        setattr(sys.modules[name], key, function)


@pytest.fixture
def scan_calls(monkeypatch):
    calls = []

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
        return_last_state=False,
    ):  # fmt: skip
        calls.append({"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z})
        return selective_scan_ref(u, delta, A, B, C, D, z, delta_bias, delta_softplus)

    name = "mamba_ssm.ops.selective_scan_interface"
    fake_package(monkeypatch, name, selective_scan_fn=selective_scan_fn)
    return calls


def scan_inputs(without=()):
    sequences = {"u": 6, "delta": 6, "B": 3, "C": 3, "z": 6}
    inputs = {k: torch.randn(2, 9, width).transpose(1, 2) for k, width in sequences.items()}
    inputs |= {"A": -torch.rand(6, 3), "D": torch.randn(6), "delta_bias": torch.randn(6)}
    return {name: None if name in without else x for name, x in inputs.items()}


def adapted(inputs, softplus, reverse):
    return scan_mamba_ssm.scan(ScanInputs(**inputs), ScanOptions(softplus, reverse))[0]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("without", [(), ("z", "D", "delta_bias")], ids=["all", "plain"])
def test_scan_adapter_gives_the_contract(scan_calls, reverse, without):
    inputs = scan_inputs(without)
    expected = selective_scan_ref(**inputs, delta_softplus=True, reverse=reverse)
    out = adapted(inputs, True, reverse)
    torch.testing.assert_close(out, expected)
    assert out.transpose(1, 2).is_contiguous()
    (call,) = scan_calls
    for name in ("u", "delta", "B", "C", "z"):
        assert call[name] is None or call[name].stride(-1) == 1, name  # what the kernel wants


def test_scan_adapter_passes_gradients(scan_calls):
    inputs = {name: x.requires_grad_() for name, x in scan_inputs().items()}
    leaves = list(inputs.values())
    expected = torch.autograd.grad(selective_scan_ref(**inputs, reverse=True).sum(), leaves)
    out = adapted(inputs, False, True)
    for a, b in zip(torch.autograd.grad(out.sum(), leaves), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_scan_adapter_gives_the_kernel_one_type_for_sequences_and_float32_for_parameters(
    scan_calls,
):
    inputs = scan_inputs() | {"u": torch.randn(2, 6, 9).bfloat16(), "D": torch.ones(6).bfloat16()}
    assert adapted(inputs, False, False).dtype == torch.bfloat16
    (call,) = scan_calls
    assert {call[name].dtype for name in ("u", "delta", "B", "C", "z")} == {torch.bfloat16}
    assert {call[name].dtype for name in ("A", "D")} == {torch.float32}


@pytest.fixture
def conv_calls(monkeypatch):
    calls = []

    def causal_conv1d_fn(x, weight, bias=None, seq_idx=None, *, activation=None):
        calls.append((x, weight, bias, activation))
        out, _ = conv_torch.forward(ConvInputs(x, weight, bias), silu=False)
        return F.silu(out) if activation == "silu" else out

    fake_package(monkeypatch, "causal_conv1d", causal_conv1d_fn=causal_conv1d_fn)
    return calls


@pytest.mark.parametrize("ways", ["back", "ahead", "both"])
@pytest.mark.parametrize("silu", [True, False])
def test_conv_adapter_gives_the_contract(conv_calls, ways, silu):
    x, taps = torch.randn(2, 9, 6).transpose(1, 2), [torch.randn(6, 4), torch.randn(6)]
    other = [torch.randn(6, 4), None]
    absent = [None, None]
    parameters = {"back": taps + absent, "ahead": absent + taps, "both": taps + other}[ways]
    expected = conv_torch.forward(ConvInputs(x, *parameters), silu)
    outs = conv_cuda.forward(ConvInputs(x, *parameters), silu)
    assert [y is None for y in outs] == [ways == "ahead", ways == "back"]
    for out, want in zip(outs, expected, strict=True):
        torch.testing.assert_close(out, want)
        assert out is None or out.transpose(1, 2).is_contiguous()
    assert all(call[0].is_contiguous() for call in conv_calls)


@pytest.mark.parametrize(
    ("adapter", "package", "project"),
    [(scan_mamba_ssm, "mamba_ssm", "mamba-ssm"), (conv_cuda, "causal_conv1d", "causal-conv1d")],
)
def test_a_missing_package_names_the_extra(adapter, package, project, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    backends.why_no_package.cache_clear()
    try:
        reason = adapter.why_not(on_cuda(torch.float32), torch.zeros(2, 4))
        assert reason.startswith(f"needs {project} (")
        assert reason.endswith('pip install "vmm-video[cuda]"')
    finally:
        backends.why_no_package.cache_clear()


@pytest.mark.parametrize(
    ("adapter", "width", "message"),
    [
        (scan_mamba_ssm, 257, "takes at most 256 states, A has 257"),
        (conv_cuda, 5, "takes 2 to 4 taps, weight has 5"),
    ],
)
def test_what_the_kernels_do_not_take_is_named(adapter, width, message):
    assert adapter.why_not(on_cuda(torch.float32), torch.zeros(2, width)) == message
    reason = adapter.why_not(on_cuda(torch.float64), torch.zeros(2, width))
    assert reason == "computes in float32, these are float64"


@pytest.mark.parametrize("adapter", [scan_mamba_ssm, conv_cuda])
def test_tensors_elsewhere_are_refused(adapter):
    reason = adapter.why_not(torch.zeros(1, 2, 3), torch.zeros(2, 4))
    assert reason == "needs tensors on a CUDA device, these are on cpu"


@pytest.mark.gpu
def test_installed_kernels_take_what_the_adapter_passes():
    interface = pytest.importorskip(
        "mamba_ssm.ops.selective_scan_interface", reason="mamba-ssm is not installed"
    )
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert interface.selective_scan_fn is scan_mamba_ssm._kernel()
    inputs = {name: x.cuda() for name, x in scan_inputs().items()}
    out = adapted(inputs, True, True)
    expected = selective_scan_ref(**inputs, delta_softplus=True, reverse=True)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-4)
