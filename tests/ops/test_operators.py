"""The registered operators: torch.library.opcheck, torch.compile, torch.export, checkpointing."""

import warnings

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from vmm.models.mamba import BiMambaMixer
from vmm.ops import op_tools
from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d, causal_conv1d
from vmm.ops.conv.op import conv_op
from vmm.ops.scan.bidirectional import bidirectional_op
from vmm.ops.scan.interface import BACKENDS
from vmm.ops.scan.op import scan_op
from vmm.ops.scan.selective_scan import selective_scan

SCANS = ["triton", "cpu", "chunked", "reference"]
ABSENT = [pytest.param(False, id="all"), pytest.param(True, id="plain")]

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="runs Triton's kernels on the CPU"
)


def rows(width, length=5):
    return torch.randn(2, length, width).transpose(1, 2).requires_grad_()


def direction(plain, channels=4, states=3):
    per_channel = [None if plain else torch.randn(channels, requires_grad=True) for _ in range(2)]
    a = (-torch.rand(channels, states)).requires_grad_()
    return [rows(channels), rows(channels), a, rows(states + 2)[:, 2:], rows(states), *per_channel]


def skip_without(backend):
    if backend == "triton":
        pytest.importorskip("triton")


@pytest.mark.parametrize("plain", ABSENT)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", SCANS)
def test_scan_is_a_sound_operator(backend, reverse, plain):
    skip_without(backend)
    *tensors, bias = direction(plain)
    z = None if plain else rows(4)
    state = None if plain else torch.randn(2, 4, 3, requires_grad=True)
    other = rows(4) if BACKENDS[backend].adding and not plain else None
    torch.library.opcheck(scan_op, (*tensors, z, bias, state, other, True, reverse, True, backend))
    with torch.no_grad():
        out, starts, _ = scan_op(*tensors, z, bias, state, None, True, reverse, False, backend)
    assert starts.numel() == 0 and out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("plain", ABSENT)
@pytest.mark.parametrize("backend", ["triton", "cpu"])
@pytest.mark.slow_interpreted
def test_bidirectional_scan_is_a_sound_operator(backend, plain):
    skip_without(backend)
    z = None if plain else rows(4)
    arguments = (*direction(plain), *direction(plain), z, True, True, backend)
    torch.library.opcheck(bidirectional_op, arguments)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("backend", ["triton", "cpu", "torch"])
def test_convolution_is_a_sound_operator(backend, bias):
    skip_without(backend)
    weight = torch.randn(4, 3, requires_grad=True)
    offset = torch.randn(4, requires_grad=True) if bias else None
    taps, absent = (weight, offset), (None, None)
    other = [None if x is None else x.detach().flip(0).requires_grad_() for x in taps]
    for ways, silu in (
        ((*taps, *absent), True),
        ((*absent, *taps), False),
        ((*taps, *other), True),
    ):
        torch.library.opcheck(conv_op, (rows(4), *ways, silu, backend))


@pytest.mark.parametrize("backend", SCANS)
def test_the_operator_gives_what_the_function_gives(backend):
    skip_without(backend)
    *tensors, bias = direction(plain=False)
    leaves = [*tensors, rows(4), bias]
    expected = selective_scan(*leaves, True, True, backend="reference")
    given = [x for x in leaves if x is not None]
    gradients = torch.autograd.grad(expected.square().sum(), given)
    out, _, _ = scan_op(*leaves, None, None, True, True, True, backend)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), given), gradients)


def test_a_gradient_of_the_gradient_is_refused():
    *tensors, bias = direction(plain=False)
    out = selective_scan(*tensors, rows(4), bias, backend="cpu")
    (d_u,) = torch.autograd.grad(out.square().sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"vmm.*selective_scan_backward"):
        d_u.sum().backward()


@pytest.fixture
def mixer(monkeypatch):
    def make(backend):
        skip_without(backend)
        monkeypatch.setenv("VMM_SCAN_BACKEND", backend)
        mixer = BiMambaMixer(8, d_state=3)
        mixer.reset_parameters("mamba", residual_branches=1)
        return mixer

    yield make
    torch._dynamo.reset()


def output_and_gradients(function, mixer, hidden):
    leaf = hidden.detach().requires_grad_()
    out = function(leaf)
    return [out.detach(), *torch.autograd.grad(out.sum(), [leaf, *mixer.parameters()])]


@pytest.mark.parametrize("backend", SCANS)
@pytest.mark.slow_interpreted
def test_compiles_without_a_graph_break(mixer, backend):
    model = mixer(backend)
    hidden = torch.randn(2, 6, 8)
    expected = output_and_gradients(model, model, hidden)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        actual = output_and_gradients(compiled, model, hidden)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("backend", SCANS)
@pytest.mark.parametrize("keeps", [True, False], ids=["training", "inference"])
def test_exports_for_any_length(mixer, backend, keeps):
    model = mixer(backend)
    length = torch.export.Dim("length", min=2, max=100_000)
    with torch.set_grad_enabled(keeps):
        program = torch.export.export(model, (torch.randn(2, 7, 8),), dynamic_shapes=({1: length},))
        hidden = torch.randn(2, 11, 8)
        torch.testing.assert_close(program.module()(hidden), model(hidden))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    scan = "bidirectional_scan" if backend in ("triton", "cpu") else "selective_scan"
    assert {f"vmm.{scan}.default", "vmm.causal_conv1d.default"} <= names


@pytest.mark.parametrize("backend", ["triton", "cpu", "chunked"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.slow_interpreted
def test_checkpointing_repeats_the_same_numbers(mixer, backend, reentrant):
    model = mixer(backend)
    hidden = torch.randn(2, 6, 8)
    expected = output_and_gradients(model, model, hidden)
    leaf = hidden.requires_grad_()
    out = checkpoint(model, leaf, use_reentrant=reentrant)
    out.sum().backward()
    actual = [out.detach(), leaf.grad, *(x.grad for x in model.parameters())]
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("backend", ["triton", "cpu", "chunked"])
def test_autocast_lowers_projections_only(mixer, backend, monkeypatch):
    model = mixer(backend)
    monkeypatch.setenv("VMM_CONV_BACKEND", "torch")
    hidden = torch.randn(2, 6, 8)
    expected = model(hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(hidden)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().max() <= 0.03 * expected.abs().max()


@pytest.mark.parametrize("backend", SCANS)
def test_autocast_stays_outside_of_the_operators(backend):
    skip_without(backend)
    *tensors, bias = direction(plain=False)
    leaves = [*tensors, rows(4), bias]

    def run():
        out, _, _ = scan_op(*leaves, None, None, True, False, True, backend)
        return [out, *torch.autograd.grad(out.sum(), leaves)]

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = run()
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


def test_compiled_convolution_and_eager_agree():
    x, weight = rows(4), torch.randn(4, 3, requires_grad=True)
    ways = Taps(weight, None), Taps(torch.randn(4, 3), torch.randn(4))
    for function, arguments in ((causal_conv1d, (x, weight)), (bidirectional_conv1d, (x, *ways))):
        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        for backend in ("cpu", "torch"):
            expected = function(*arguments, backend=backend)
            torch.testing.assert_close(compiled(*arguments, backend=backend), expected)
        torch._dynamo.reset()


def test_recomputed_gradients_reach_every_given_input():
    @torch.library.custom_op("vmm_test::gradients", mutates_args=())
    def inside(x: torch.Tensor, y: torch.Tensor, d_out: torch.Tensor) -> list[torch.Tensor]:
        gradients = op_tools.recomputed_gradients(lambda a, _, b: a * b.exp(), (x, None, y), d_out)
        assert gradients[1] is None
        return [gradients[0], gradients[2]]

    x, y, d_out = torch.randn(3, 4)
    torch.testing.assert_close(inside(x, y, d_out), [d_out * y.exp(), d_out * x * y.exp()])
