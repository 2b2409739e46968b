import pytest
import torch

from tests.ops.cpus import CPUS
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.selective_scan import BACKENDS, selective_scan, selective_scan_ref

LIMIT = 5e-6


def make_directions(channels=20, length=37, states=16, batch=2, without=()):
    """Two directions and their gate: float64, as the mixer passes them."""
    g = torch.Generator().manual_seed(channels * length + states)

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    def direction():
        _, b, c = randn(batch, length, 3 + 2 * states).split([3, states, states], dim=-1)
        return Direction(
            randn(batch, length, channels).transpose(1, 2),
            randn(batch, length, channels).transpose(1, 2),
            -torch.rand(channels, states, dtype=torch.float64, generator=g) / 4,
            b.transpose(1, 2),
            c.transpose(1, 2),
            None if "D" in without else randn(channels),
            None if "delta_bias" in without else randn(channels),
        )

    z = randn(batch, length, 2 * channels).transpose(1, 2)[:, channels:]
    return direction(), direction(), None if "z" in without else z


def two_references(forward, reverse, z, delta_softplus):
    one, other = (
        selective_scan_ref(*x[:6], z, x.delta_bias, delta_softplus, flipped)
        for x, flipped in ((forward, False), (reverse, True))
    )
    return one + other


def run(scan, inputs, dtype, device="cpu"):
    """Output and all gradients."""
    forward, reverse, z = inputs
    leaves = [
        None if x is None else x.detach().to(device, dtype).requires_grad_()
        for x in (*forward, *reverse, z)
    ]
    out = scan(Direction(*leaves[:7]), Direction(*leaves[7:14]), leaves[14], delta_softplus=True)
    grad_out = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    wanted = [x for x in leaves if x is not None]
    return [out.detach(), *torch.autograd.grad(out, wanted, grad_out.to(device, dtype))]


def device_for(backend):
    module = BACKENDS[backend].module
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    reasons = []
    for device in devices:
        reason = module.why_not(torch.zeros(1, 2, 3, device=device), torch.zeros(2, 16))
        if reason is None:
            return device
        reasons.append(reason)
    pytest.skip(f"{backend}: {'; '.join(reasons)}")


def assert_close(actual, expected, limit):
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert (a.double().cpu() - e).abs().max() <= limit * e.abs().max().clamp(min=1e-12), i


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, 2, 3, 36, 69])
@pytest.mark.slow_interpreted
def test_equals_two_references(backend, length):
    device = device_for(backend)
    inputs = make_directions(length=length, states=5)
    expected = run(two_references, inputs, torch.float64)
    actual = run(
        lambda *x, **more: bidirectional_scan(*x, backend=backend, **more),
        inputs,
        torch.float32,
        device,
    )
    assert_close(actual, expected, LIMIT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("without", [("z",), ("D", "delta_bias"), ("D", "z", "delta_bias")])
def test_what_is_absent_is_left_out(backend, without):
    device = device_for(backend)
    inputs = make_directions(length=19, without=without)
    expected = run(two_references, inputs, torch.float64)
    actual = run(
        lambda *x, **more: bidirectional_scan(*x, backend=backend, **more),
        inputs,
        torch.float32,
        device,
    )
    assert_close(actual, expected, LIMIT)


@pytest.mark.parametrize("backend", ["triton", "cpu"])
@pytest.mark.slow_interpreted
def test_halves_longer_than_a_chunk(backend):
    device = device_for(backend)
    inputs = make_directions(channels=3, length=135, states=2, batch=1)
    expected = run(two_references, inputs, torch.float64)
    actual = run(
        lambda *x, **more: bidirectional_scan(*x, backend=backend, **more),
        inputs,
        torch.float32,
        device,
    )
    assert_close(actual, expected, LIMIT)


@pytest.mark.parametrize("backend", ["triton", "cpu", "chunked"])
@pytest.mark.slow_interpreted
def test_bfloat16_is_summed_before_it_is_rounded(backend):
    device = device_for(backend)
    forward, reverse, z = make_directions(length=20)
    rows = lambda x: None if x is None else (x.bfloat16() if x.dim() == 3 else x.float())  # noqa: E731
    forward, reverse = (Direction(*(rows(x) for x in one)) for one in (forward, reverse))
    exact = [Direction(*(x.double() for x in one)) for one in (forward, reverse)]
    expected = two_references(*exact, rows(z).double(), True)
    leaves = [x.to(device).requires_grad_() for x in (*forward, *reverse, rows(z))]
    out = bidirectional_scan(
        Direction(*leaves[:7]), Direction(*leaves[7:14]), leaves[14], True, backend
    )
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(x.grad.dtype == x.dtype for x in leaves)
    # Fused, there is one rounding; two calls and a sum have three.
    limit = 2**-7 if backend == "chunked" else 2**-8
    assert_close([out.detach()], [expected], limit)


@pytest.mark.parametrize(("channels", "cpu"), [(32, ""), *[(20, cpu) for cpu in CPUS]])
def test_bfloat16_gradients_are_those_of_float32_rounded_once(channels, cpu, monkeypatch):
    monkeypatch.setenv("VMM_CPU", cpu)
    forward, reverse, z = make_directions(channels, length=135)
    rounded = [None if x is None else x.bfloat16() for x in (*forward, *reverse, z)]

    def evaluate(dtype):
        leaves = [x.to(dtype if x.dim() == 3 else torch.float32) for x in rounded]
        leaves = [x.detach().requires_grad_() for x in leaves]
        out = bidirectional_scan(
            Direction(*leaves[:7]), Direction(*leaves[7:14]), leaves[14], True, "cpu"
        )
        return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    for actual, expected in zip(evaluate(torch.bfloat16), evaluate(torch.float32), strict=True):
        torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=2**-7, atol=1e-6)
        same = (actual == expected.to(actual.dtype)).double().mean()
        assert same > 0.99  # a sum in another order may fall on the other side


def test_inference_gives_what_training_gives():
    forward, reverse, z = make_directions(length=50)
    forward, reverse = (Direction(*(x.float() for x in one)) for one in (forward, reverse))
    z = z.float()
    inference = bidirectional_scan(forward, reverse, z, True)
    z.requires_grad_()
    assert torch.equal(bidirectional_scan(forward, reverse, z, True), inference)


def test_keeps_little_besides_its_inputs():
    channels, length = 32, 320
    forward, reverse, z = make_directions(channels, length)
    leaves = [x.float().requires_grad_() for x in (*forward, *reverse, z)]
    known = {x.untyped_storage().data_ptr() for x in leaves}
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = bidirectional_scan(Direction(*leaves[:7]), Direction(*leaves[7:14]), leaves[14])
    extra = sum(size for pointer, size in kept.items() if pointer not in known)
    assert 0 < extra <= 0.4 * out.numel() * 4


def test_directions_that_do_not_fit_are_named():
    forward, reverse, z = make_directions()
    longer, _, _ = make_directions(length=38)
    with pytest.raises(ValueError, match=r"z must be \(2, 20, 38\)"):
        bidirectional_scan(longer, reverse, z)
    with pytest.raises(ValueError, match=r"same shapes.*\(2, 20, 38\)"):
        bidirectional_scan(longer, reverse)
    with pytest.raises(ValueError, match=r"one type.*float32"):
        bidirectional_scan(forward, Direction(*(x.float() for x in reverse)), z)


def test_the_variable_forces_a_backend(monkeypatch):
    forward, reverse, z = make_directions(length=5)
    expected = [selective_scan(*x[:6], z, x.delta_bias, backend="reference") for x in (forward,)]
    monkeypatch.setenv("VMM_SCAN_BACKEND", "cpu")
    with pytest.raises(ValueError, match="'cpu' cannot run here: computes in float32"):
        bidirectional_scan(forward, reverse, z)
    monkeypatch.setenv("VMM_SCAN_BACKEND", "reference")
    out = bidirectional_scan(forward, reverse, z)
    other = selective_scan(*reverse[:6], z, reverse.delta_bias, reverse=True, backend="reference")
    assert torch.equal(out, expected[0] + other)
