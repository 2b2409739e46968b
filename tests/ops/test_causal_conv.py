import pytest
import torch
import torch.nn.functional as F

from vmm.ops.conv.causal_conv import (
    BACKENDS,
    Taps,
    bidirectional_conv1d,
    causal_conv1d,
    choose_backend,
)

pytestmark = pytest.mark.slow_interpreted

PORTABLE = ["triton", "cpu", "torch"]
LIMIT = 2e-6


def by_definition(x, weight, bias, activation, reverse):
    """The sum over the taps, written out."""
    taps = weight.shape[1]
    if reverse:
        x = x.flip(-1)
    padded = F.pad(x, (taps - 1, 0))
    out = sum(weight[:, k, None] * padded[..., k : k + x.shape[-1]] for k in range(taps))
    if bias is not None:
        out = out + bias[:, None]
    if activation == "silu":
        out = out * torch.sigmoid(out)
    return out.flip(-1) if reverse else out


def run(conv, tensors, dtype, *options, **more):
    leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in tensors]
    out = conv(*leaves, *options, **more)
    grad_out = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(dtype)
    given = [x for x in leaves if x is not None]
    return [out.detach(), *torch.autograd.grad(out, given, grad_out)]


def make(channels=20, length=19, taps=4, bias=True):
    x = torch.randn(3, length, 2 * channels, dtype=torch.float64).transpose(1, 2)
    weight, offset = torch.randn(channels, taps).double(), torch.randn(channels).double()
    return x.chunk(2, dim=1)[1], weight, offset if bias else None


def assert_all_close(actual, expected, limit):
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).abs().max() <= limit * e.abs().max()


@pytest.mark.parametrize("backend", PORTABLE)
@pytest.mark.parametrize("reverse", [False, True], ids=["causal", "reverse"])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("length", [1, 2, 3, 19, 70])
def test_equals_the_definition(backend, reverse, activation, bias, length):
    tensors = make(length=length, bias=bias)
    expected = run(by_definition, tensors, torch.float64, activation, reverse)
    actual = run(causal_conv1d, tensors, torch.float32, activation, reverse, backend=backend)
    assert_all_close(actual, expected, LIMIT)


@pytest.mark.parametrize("backend", PORTABLE)
@pytest.mark.parametrize("taps", [1, 2, 3, 6])
@pytest.mark.parametrize("channels", [1, 7, 48])
def test_any_width_and_any_number_of_taps(backend, taps, channels):
    tensors = make(channels=channels, taps=taps)
    expected = run(by_definition, tensors, torch.float64, "silu", False)
    actual = run(causal_conv1d, tensors, torch.float32, "silu", False, backend=backend)
    assert_all_close(actual, expected, LIMIT)


@pytest.mark.parametrize("backend", PORTABLE)
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("taps", [1, 2, 4, 6])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 7, 40])
def test_both_directions_at_once_are_the_two_alone(backend, activation, taps, length):
    (x, *back), (_, *ahead) = (make(length=length, taps=taps) for _ in range(2))
    rest = torch.rand(2, 3, 20, length, dtype=torch.float64)

    def weighted_sum(outs):
        return sum((y * r.to(y.dtype)).sum() for y, r in zip(outs, rest, strict=True)).reshape(1)

    def by_definitions(x, *parameters):
        ways = zip((parameters[:2], parameters[2:]), (False, True), strict=True)
        return weighted_sum([by_definition(x, *taps, activation, flip) for taps, flip in ways])

    def at_once(x, *parameters):
        ways = Taps(*parameters[:2]), Taps(*parameters[2:])
        outs = bidirectional_conv1d(x, *ways, activation, backend=backend)
        assert all(y.transpose(1, 2).is_contiguous() for y in outs)
        return weighted_sum(outs)

    tensors = (x, *back, *ahead)
    expected = run(by_definitions, tensors, torch.float64)[1:]
    assert_all_close(run(at_once, tensors, torch.float32)[1:], expected, LIMIT)
    ways = zip((back, ahead), (False, True), strict=True)
    expected = [by_definition(x, *taps, activation, flip) for taps, flip in ways]
    ways = (Taps(*(y.float() for y in taps)) for taps in (back, ahead))
    outs = bidirectional_conv1d(x.float(), *ways, activation, backend=backend)
    assert_all_close(outs, expected, LIMIT)


@pytest.mark.parametrize("backend", PORTABLE)
def test_any_strides(backend):
    tensors = make()
    assert tensors[0].stride(1) == 1
    expected = run(by_definition, tensors, torch.float64, "silu", False)

    def from_strided(x, *more, **options):
        out = causal_conv1d(x.contiguous(), *more, **options)
        return out.contiguous()  # whose gradient is not channels-last either

    actual = run(from_strided, tensors, torch.float32, "silu", False, backend=backend)
    assert_all_close(actual, expected, LIMIT)


def test_directions_of_different_shapes_are_named():
    x, weight, bias = (tensor.float() for tensor in make())
    with pytest.raises(ValueError, match=r"same shapes, weight \(20, 4\) and \(20, 3\)"):
        bidirectional_conv1d(x, Taps(weight, bias), Taps(weight[:, 1:], bias))


@pytest.mark.parametrize("backend", PORTABLE)
@pytest.mark.parametrize("reverse", [False, True], ids=["causal", "reverse"])
def test_no_output_sees_what_comes_after_it(backend, reverse):
    x, weight, bias = (tensor.float() for tensor in make())
    changed = x.clone()
    changed[..., 9] += 1
    before, after = (
        causal_conv1d(y, weight, bias, reverse=reverse, backend=backend) for y in (x, changed)
    )
    touched = (before != after).any(0).any(0).nonzero().flatten().tolist()
    assert touched == ([6, 7, 8, 9] if reverse else [9, 10, 11, 12])


@pytest.mark.parametrize("backend", PORTABLE)
def test_output_keeps_the_type_and_is_a_view_of_channels_last_memory(backend):
    x, weight, bias = (tensor.float() for tensor in make())
    out = causal_conv1d(x.bfloat16(), weight, bias, backend=backend)
    assert out.dtype == torch.bfloat16 and out.transpose(1, 2).is_contiguous()
    expected = causal_conv1d(x.bfloat16().float(), weight, bias, backend=backend)
    assert (out.float() - expected).abs().max() <= 2**-6 * expected.abs().max()


def test_float64_is_computed_in_float64():
    tensors = make()
    expected = run(by_definition, tensors, torch.float64, "silu", True)
    actual = run(causal_conv1d, tensors, torch.float64, "silu", True)
    assert_all_close(actual, expected, 1e-12)


@pytest.mark.parametrize("backend", PORTABLE)
def test_autocast_does_not_lower_the_precision(backend):
    x, weight, bias = (tensor.float() for tensor in make())
    expected = causal_conv1d(x, weight, bias, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(causal_conv1d(x, weight, bias, backend=backend), expected)


def test_nothing_but_the_inputs_is_kept_for_the_gradient():
    x, weight, bias = (tensor.float().requires_grad_() for tensor in make(32, 300))
    sizes = []

    def pack(tensor):
        sizes.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        causal_conv1d(x, weight, bias, backend="cpu")
    # The input itself, and the weight and bias laid out anew.
    assert len(sizes) == 3 and x.untyped_storage().data_ptr() in sizes


def test_best_backend_that_can_run_is_taken(monkeypatch):
    monkeypatch.delenv("VMM_CONV_BACKEND", raising=False)
    x, weight = torch.zeros(1, 4, 3), torch.zeros(4, 4)
    name, reasons = choose_backend(x, weight)
    assert name == "cpu" and list(reasons) == ["causal_conv1d", "triton"]
    assert choose_backend(x.double(), weight)[0] == "torch"
    assert list(BACKENDS) == ["causal_conv1d", "triton", "cpu", "torch"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 20)}, r"x must be .*got \(2, 20\)"),
        ({"x": torch.zeros(2, 20, 0)}, r"length > 0.*got \(2, 20, 0\)"),
        ({"x": torch.zeros(2, 0, 3)}, r"d_inner > 0.*got \(2, 0, 3\)"),
        ({"weight": torch.zeros(19, 4)}, r"weight must be \(d_inner=20, taps > 0\), got \(19, 4\)"),
        ({"weight": torch.zeros(20, 0)}, r"taps > 0\), got \(20, 0\)"),
        ({"bias": torch.zeros(2)}, r"bias must be \(20,\), got \(2,\)"),
        ({"activation": "relu"}, "activation must be .*'relu'"),
        ({"backend": "cudnn"}, "unknown backend 'cudnn'"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    x, weight, bias = (tensor.float() for tensor in make())
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{"x": x, "weight": weight, "bias": bias} | change)
