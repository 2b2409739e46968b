import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.ops.cpus import CPUS
from vmm.ops.scan.selective_scan import (
    BACKENDS,
    choose_backend,
    continue_scan,
    selective_scan,
    selective_scan_ref,
)

FLOAT64, FLOAT32 = 1e-10, 5e-6
DTYPES = [
    pytest.param(name, dtype, id=f"{name}-{dtype}".replace("torch.", ""))
    for name in BACKENDS
    for dtype in (torch.float64, torch.float32)
    if dtype == torch.float32 or name in ("chunked", "reference")
]
FAST = [name for name in BACKENDS if name != "reference"]
ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# An LLVM CPU that every machine of this kind can run, and that has neither AVX-512 nor FMA.


def make_inputs(channels=20, length=37, states=16, batch=2, without=()):
    """Float64 inputs as the mixer passes them: transposed views of channels-last memory."""
    g = torch.Generator().manual_seed(channels * length + states)

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    u, z = randn(batch, length, 2 * channels).transpose(1, 2).chunk(2, dim=1)
    selected = randn(batch, length, 3 + 2 * states)
    _, b, c = selected.split([3, states, states], dim=-1)
    inputs = {
        "u": u,
        "delta": randn(batch, length, channels).transpose(1, 2),
        "A": -torch.rand(channels, states, dtype=torch.float64, generator=g) * 4,
        "B": b.transpose(1, 2),
        "C": c.transpose(1, 2),
        "D": randn(channels),
        "z": z,
        "delta_bias": randn(channels),
    }
    return {name: None if name in without else x for name, x in inputs.items()}


def leave_out_slow(backend, device, length):
    """The interpreter takes seconds for long sequences; test_scan_triton.py crosses chunks."""
    if backend == "triton" and device == "cpu" and length > 100:
        pytest.skip("no CUDA device, and the interpreter is too slow for this length")


def run(scan, inputs, dtype=torch.float64, device="cpu", **options):
    """Output and the gradient of every given input, in the layout of the inputs."""
    options.setdefault("delta_softplus", True)  # else negative steps would blow up
    leaves = {
        name: None if x is None else x.detach().to(device, dtype).requires_grad_()
        for name, x in inputs.items()
    }
    out = scan(**leaves, **options)
    g = torch.Generator().manual_seed(1)
    grad_out = torch.randn(out.shape, dtype=torch.float64, generator=g).to(device, dtype)
    given = {name: x for name, x in leaves.items() if x is not None}
    grads = torch.autograd.grad(out, list(given.values()), grad_out)
    return {"out": out.detach()} | dict(zip(given, grads, strict=True))


def device_for(backend, dtype=torch.float32, states=16):
    """Where the backend can run; skips with its own reason if it cannot."""
    module = BACKENDS[backend].module
    reasons = []
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            reasons.append("no CUDA device")
            continue
        u, a = torch.zeros(1, 2, 3), torch.zeros(2, states)
        reason = module.why_not(u.to(device, dtype), a.to(device, dtype))
        if reason is None:
            return device
        reasons.append(reason)
    pytest.skip(f"{backend}: {'; '.join(reasons)}")


def assert_close(actual, expected, limit):
    for name, recorded in expected.items():
        difference = (actual[name].cpu().double() - recorded.double()).abs().max()
        scale = recorded.double().abs().max().clamp(min=1e-12)
        assert difference <= limit * scale, f"{name}: {difference / scale:.1e}"


@pytest.mark.parametrize(("backend", "dtype"), DTYPES)
@pytest.mark.parametrize("case", ["len1", "len37", "len257", "plain", "threshold"])
def test_matches_the_published_scan(golden, backend, case, dtype):
    device = device_for(backend, dtype)
    leave_out_slow(backend, device, int(case.removeprefix("len")) if "len" in case else 0)
    recorded = {
        name.removeprefix(f"{case}."): x
        for name, x in golden("a_selective_scan").items()
        if name.startswith(f"{case}.")
    }
    leaves = {name: recorded[name].to(device, dtype) for name in ORDER if name in recorded}
    for leaf in leaves.values():
        leaf.requires_grad_()
    out = selective_scan(**leaves, delta_softplus=case != "plain", backend=backend)
    out.backward(recorded["dout"].to(device, dtype))
    exact = 1e-12 if backend == "reference" else FLOAT64
    limit = exact if dtype == torch.float64 else FLOAT32
    expected = {"out": recorded["out"]} | {name: recorded[f"grad.{name}"] for name in leaves}
    assert_close({"out": out} | {name: x.grad for name, x in leaves.items()}, expected, limit)


@pytest.mark.parametrize(("backend", "dtype"), DTYPES)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("length", [1, 2, 37, 257])
@pytest.mark.parametrize(
    "without", [(), ("z",), ("D", "delta_bias"), ("D", "z", "delta_bias")], ids="no {}".format
)
def test_backend_equals_the_reference(backend, dtype, reverse, length, without):
    device = device_for(backend, dtype)
    leave_out_slow(backend, device, length)
    inputs = make_inputs(length=length, without=without)
    expected = run(selective_scan_ref, inputs, reverse=reverse)
    actual = run(selective_scan, inputs, dtype, device, backend=backend, reverse=reverse)
    assert_close(actual, expected, FLOAT64 if dtype == torch.float64 else FLOAT32)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("states", [1, 5, 40])
@pytest.mark.parametrize("channels", [1, 7, 48])
def test_any_width_and_any_number_of_states(backend, states, channels):
    device = device_for(backend, states=states)
    inputs = make_inputs(channels=channels, states=states, length=35)
    expected = run(selective_scan_ref, inputs)
    actual = run(selective_scan, inputs, torch.float32, device, backend=backend)
    assert_close(actual, expected, 4 * FLOAT32)  # the few sums of one channel may nearly cancel


@pytest.mark.parametrize("backend", FAST)
def test_without_softplus_steps_are_used_as_they_are(backend):
    device = device_for(backend)
    inputs = make_inputs(length=20) | {"delta": torch.rand(2, 20, 20, dtype=torch.float64) / 2}
    inputs["delta_bias"] = inputs["delta_bias"].abs() / 4
    options = {"delta_softplus": False}
    expected = run(selective_scan_ref, inputs, **options)
    actual = run(selective_scan, inputs, torch.float32, device, backend=backend, **options)
    assert_close(actual, expected, FLOAT32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_the_scan_of_the_flipped_sequence(backend):
    device = device_for(backend)
    inputs = {name: x.float().to(device) for name, x in make_inputs().items()}
    flipped = {name: x.flip(-1) if x.dim() == 3 else x for name, x in inputs.items()}
    options = {"delta_softplus": True, "backend": backend}
    expected = selective_scan(**flipped, **options).flip(-1)
    torch.testing.assert_close(selective_scan(**inputs, reverse=True, **options), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_memory_the_scan_is_a_product_at_each_position(backend):
    device = device_for(backend)
    inputs = {name: x.float().to(device) for name, x in make_inputs().items()}
    inputs["A"] = torch.full_like(inputs["A"], -1e9)  # every decay is zero
    out = selective_scan(**inputs | {"z": None}, delta_softplus=True, backend=backend)
    step = F.softplus(inputs["delta"] + inputs["delta_bias"][:, None])
    c_dot_b = (inputs["C"] * inputs["B"]).sum(1, keepdim=True)
    expected = (c_dot_b * step + inputs["D"][:, None]) * inputs["u"]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_decay_the_scan_is_a_running_sum(backend):
    device = device_for(backend)
    u = torch.randn(1, 3, 500, device=device)
    ones = torch.ones(1, 1, 500, device=device)
    a = torch.zeros(3, 1, device=device)
    out = selective_scan(u, torch.ones_like(u), a, ones, ones, backend=backend)
    torch.testing.assert_close(out, u.cumsum(-1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", FAST)
def test_bfloat16_is_computed_in_float32(backend):
    device = device_for(backend, torch.bfloat16)
    rounded = {
        name: x.bfloat16() if x.dim() == 3 else x.float() for name, x in make_inputs().items()
    }
    expected = run(selective_scan_ref, {name: x.double() for name, x in rounded.items()})
    leaves = {name: x.detach().to(device).requires_grad_() for name, x in rounded.items()}
    out = selective_scan(**leaves, delta_softplus=True, backend=backend)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == rounded[name].dtype, name
    # One rounding to bfloat16 at the end, nothing lost on the way.
    assert_close({"out": out.detach()}, {"out": expected["out"]}, 2**-8)


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_autocast_does_not_lower_the_precision(backend):
    inputs = {name: x.float().requires_grad_() for name, x in make_inputs().items()}
    expected = selective_scan(**inputs, delta_softplus=True, backend=backend)
    gradients = torch.autograd.grad(expected.sum(), list(inputs.values()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = selective_scan(**inputs, delta_softplus=True, backend=backend)
        inside = torch.autograd.grad(out.sum(), list(inputs.values()))
    assert torch.equal(out, expected)
    for a, b in zip(inside, gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["cpu", "chunked", "reference"])
def test_output_is_a_view_of_channels_last_memory(backend):
    inputs = {name: x.float() for name, x in make_inputs().items()}
    out = selective_scan(**inputs, backend=backend)
    assert out.shape == inputs["u"].shape
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_strides_do_not_matter(backend):
    inputs = {name: x.float() for name, x in make_inputs().items()}
    packed = {name: x.clone(memory_format=torch.contiguous_format) for name, x in inputs.items()}
    assert packed["u"].stride() != inputs["u"].stride()
    expected = run(selective_scan, inputs, torch.float32, backend=backend)
    assert_close(run(selective_scan, packed, torch.float32, backend=backend), expected, 1e-7)


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_an_expanded_gradient_is_accepted(backend):
    inputs = {name: x.float().requires_grad_() for name, x in make_inputs(length=5).items()}
    out = selective_scan(**inputs, backend=backend)
    (of_sum,) = torch.autograd.grad(out.sum(), inputs["u"], retain_graph=True)
    (of_ones,) = torch.autograd.grad(out, inputs["u"], torch.ones_like(out))
    assert torch.equal(of_sum, of_ones)


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_inference_gives_what_training_gives(backend):
    inputs = {name: x.float() for name, x in make_inputs(length=100).items()}
    training = run(selective_scan, inputs, torch.float32, backend=backend)["out"]
    inference = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert torch.equal(inference, training)


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_extreme_steps_and_gates_stay_finite(backend):
    inputs = make_inputs(length=12)
    inputs["delta"] = torch.tensor([-1e4, -90.0, -30.0, 0.0, 19.0, 21.0]).double().repeat(2, 20, 2)
    inputs["z"] = torch.tensor([-1e4, -95.0, 0.0, 1e4]).double().repeat(2, 20, 3)
    expected = run(selective_scan_ref, inputs)
    actual = run(selective_scan, inputs, torch.float32, backend=backend)
    assert all(x.isfinite().all() for x in actual.values())
    assert_close(actual, expected, FLOAT32)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_nan_reaches_every_later_output_of_its_channel(backend, cpu, monkeypatch):
    monkeypatch.setenv("VMM_CPU", cpu)
    for name in ("u", "delta"):
        inputs = {name: x.float() for name, x in make_inputs().items()}
        inputs[name][1, 3, 10] = float("nan")
        out = selective_scan(**inputs, delta_softplus=True, backend=backend)
        expected = torch.zeros_like(out, dtype=torch.bool)
        expected[1, 3, 10:] = True
        assert torch.equal(out.isnan(), expected), name


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_gradients_by_finite_differences(backend, reverse):
    inputs = make_inputs(channels=3, length=18, states=2, batch=1)  # more than one chunk

    def scan(*tensors):
        return selective_scan(*tensors, delta_softplus=True, reverse=reverse, backend=backend)

    leaves = tuple(inputs[name].clone().requires_grad_() for name in ORDER)
    assert torch.autograd.gradcheck(scan, leaves)


@pytest.mark.parametrize(("backend", "share"), [("chunked", 1.0), ("cpu", 0.2)])
def test_training_keeps_little_besides_its_inputs(backend, share):
    channels, length = 32, 320
    inputs = make_inputs(channels=channels, length=length)
    inputs = {name: x.float().requires_grad_() for name, x in inputs.items()}
    known = {x.untyped_storage().data_ptr() for x in inputs.values()}
    kept = {}

    def pack(x):
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = selective_scan(**inputs, delta_softplus=True, backend=backend)
    extra = sum(size for pointer, size in kept.items() if pointer not in known)
    activation = out.numel() * 4
    per_channel = 20 * channels * 16 * 4  # A, D and the bias, laid out anew
    assert 0 < extra <= share * activation + per_channel


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("u", (2, 20)),
        ("u", (2, 20, 0)),
        ("u", (2, 0, 37)),
        ("delta", (2, 20, 36)),
        ("A", (19, 16)),
        ("A", (20,)),
        ("A", (20, 0)),
        ("B", (2, 15, 37)),
        ("C", (1, 16, 37)),
        ("D", (20, 1)),
        ("z", (2, 19, 37)),
        ("delta_bias", (1,)),
    ],
)
def test_shapes_that_do_not_fit_are_named(name, shape):
    inputs = make_inputs() | {name: torch.zeros(shape, dtype=torch.float64)}
    with pytest.raises(ValueError, match=rf"^{name} must be .*got \({shape[0]}, ?"):
        selective_scan(**inputs)


def test_integers_are_refused():
    inputs = make_inputs() | {"u": torch.zeros(2, 20, 37, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"floating.*int64"):
        selective_scan(**inputs)


def test_the_best_backend_that_can_run_is_taken(monkeypatch):
    monkeypatch.delenv("VMM_SCAN_BACKEND", raising=False)
    u, a = torch.zeros(1, 4, 3), torch.zeros(4, 2)
    name, reasons = choose_backend(u, a)
    assert name == "cpu" and list(reasons) == ["mamba_ssm", "triton"]
    assert "CUDA" in reasons["triton"] and "CUDA" in reasons["mamba_ssm"]
    name, reasons = choose_backend(u.double(), a.double())
    assert name == "chunked" and "float64" in reasons["cpu"]


def test_a_tensor_on_another_device_goes_to_the_portable_backend(monkeypatch):
    monkeypatch.delenv("VMM_SCAN_BACKEND", raising=False)
    name, reasons = choose_backend(torch.zeros(1, 4, 3, device="meta"), torch.zeros(4, 2))
    assert name == "chunked" and "meta" in reasons["cpu"]


def in_pieces(cuts, u, delta, A, B, C, D, z, delta_bias, state, other, reverse, backend):
    """Scan piece by piece; the output and the last state."""
    edges = [0, *cuts, u.shape[-1]]
    pieces = [slice(*edge) for edge in itertools.pairwise(edges)]
    outs = []
    for at in reversed(pieces) if reverse else pieces:
        piece = [None if x is None else x[..., at] for x in (u, delta, B, C, z, other)]
        out, state = continue_scan(
            state,
            *piece[:2],
            A,
            *piece[2:4],
            D,
            piece[4],
            delta_bias,
            True,
            reverse,
            *piece[5:],
            backend,
        )
        outs.append(out)
    return torch.cat(outs[::-1] if reverse else outs, -1), state


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("without", [(), ("z",), ("other",)], ids="no {}".format)
@pytest.mark.parametrize("backend", [name for name, one in BACKENDS.items() if one.stateful])
@pytest.mark.slow_interpreted
def test_pieces_with_their_states_are_the_whole_scan_also_in_gradients(backend, without, reverse):
    device = device_for(backend)
    dtype = torch.float64 if backend in ("chunked", "reference") else torch.float32
    length = 150 if backend == "cpu" else 90  # more than a tile of the CPU kernel
    inputs = make_inputs(length=length)
    inputs |= {"state": torch.randn(2, 20, 16, dtype=torch.float64), "other": inputs["u"].cos()}
    d_last = torch.randn(2, 20, 16, dtype=torch.float64)

    def evaluate(cuts, dtype, device, backend):
        leaves = {k: x.detach().to(device, dtype).requires_grad_() for k, x in inputs.items()}
        leaves = {k: x for k, x in leaves.items() if k not in without}
        given = leaves | dict.fromkeys(without)
        out, last = in_pieces(cuts, **given, reverse=reverse, backend=backend)
        value = out.sin().sum() + (last * d_last.to(device, dtype)).sum()
        grads = torch.autograd.grad(value, list(leaves.values()))
        return {"out": out, "last": last} | dict(zip(leaves, grads, strict=True))

    expected = evaluate([], torch.float64, "cpu", "reference")
    actual = evaluate([1, length - 10], dtype, device, backend)
    assert_close(actual, expected, FLOAT64 if dtype == torch.float64 else 4 * FLOAT32)


def test_a_given_state_is_left_alone():
    x = torch.randn(1, 1, 4)
    state = torch.ones(1, 1, 1)
    continue_scan(state, x, x, -torch.ones(1, 1), x, x, backend="cpu")
    assert state.item() == 1


def test_a_state_that_does_not_fit_or_a_backend_that_takes_none_is_refused():
    inputs = {name: x.float() for name, x in make_inputs().items()}
    with pytest.raises(ValueError, match=r"state must be \(2, 20, 16\).* got \(20, 16\)"):
        continue_scan(torch.zeros(20, 16), **inputs)
    with pytest.raises(ValueError, match=r"other must be \(2, 20, 37\) like u"):
        continue_scan(torch.zeros(2, 20, 16), **inputs, other=torch.zeros(2, 20, 1))
    with pytest.raises(ValueError, match=r"state must be .*float32.*float64"):
        continue_scan(torch.zeros(2, 20, 16, dtype=torch.float64), **inputs)
    with pytest.raises(ValueError, match="unknown backend 'mamba_ssm'; choose one of triton"):
        continue_scan(torch.zeros(2, 20, 16), **inputs, backend="mamba_ssm")
