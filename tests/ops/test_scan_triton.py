"""What is special about the Triton scan: chunks, blocks, memory, compilation. Its numbers are also
checked with those of the other backends, in test_selective_scan.py and test_bidirectional.py."""

import functools
import subprocess
import sys

import pytest
import torch

from tests.ops.gpu_compiler import compiled_kernels
from vmm.ops import backends
from vmm.ops.scan import triton as scan_triton
from vmm.ops.scan.interface import ScanInputs, ScanOptions
from vmm.ops.scan.selective_scan import selective_scan, selective_scan_ref

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LIMIT = 5e-6
triton_scan = functools.partial(selective_scan, backend="triton")
ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


@pytest.fixture(autouse=True)
def _runnable(interpreter):
    reason = scan_triton.why_not(torch.zeros(1, 2, 3, device=DEVICE), torch.zeros(2, 4))
    if reason is not None:
        pytest.skip(reason)


def make_inputs(channels=5, length=9, states=4, batch=2):
    """Float64 inputs as the mixer passes them: transposed views of channels-last memory."""
    g = torch.Generator().manual_seed(channels * length + states)

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    u, z = randn(batch, length, 2 * channels).transpose(1, 2).chunk(2, dim=1)
    _, b, c = randn(batch, length, 4 + 2 * states).split([4, states, states], dim=-1)
    return {
        "u": u,
        "delta": randn(batch, length, channels).transpose(1, 2),
        "A": -torch.rand(channels, states, dtype=torch.float64, generator=g) * 4,
        "B": b.transpose(1, 2),
        "C": c.transpose(1, 2),
        "D": randn(channels),
        "z": z,
        "delta_bias": randn(channels),
    }


def run(scan, inputs, dtype=torch.float32, device=DEVICE, **options):
    leaves = {name: x.detach().to(device, dtype).requires_grad_() for name, x in inputs.items()}
    out = scan(**leaves, delta_softplus=True, **options)
    grad_out = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    grads = torch.autograd.grad(out, list(leaves.values()), grad_out.to(device, dtype))
    return {"out": out.detach()} | dict(zip(leaves, grads, strict=True))


def assert_close(actual, expected, limit=LIMIT):
    for name, e in expected.items():
        a = actual[name].double().cpu()
        assert (a - e).abs().max() <= limit * e.abs().max().clamp(min=1e-12), name


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(
    ("channels", "length", "states"),
    [(5, 64, 4), (5, 65, 4), (5, 130, 4), (133, 10, 3), (40, 11, 16), (3, 9, 1), (3, 9, 5)],
)
@pytest.mark.slow
def test_equals_the_reference_across_chunks_and_blocks(channels, length, states, reverse):
    inputs = make_inputs(channels, length, states)
    inputs["A"] /= 20  # so that states last for longer than a chunk
    expected = run(selective_scan_ref, inputs, torch.float64, "cpu", reverse=reverse)
    assert_close(run(triton_scan, inputs, reverse=reverse), expected)


def test_warps_of_64_threads_get_as_many_channels(monkeypatch):
    inputs = make_inputs(133, 10)
    expected = run(selective_scan_ref, inputs, torch.float64, "cpu")
    monkeypatch.setattr(scan_triton, "lanes", lambda device: 64)
    assert scan_triton._Launch([ScanInputs(**inputs)], None, ScanOptions(True, False)).width == 256
    assert_close(run(triton_scan, inputs), expected)


class Recorded:
    """In place of a kernel: keeps the grid of every launch."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        return lambda *args, **options: self.grids.append(grid)


def test_a_launch_takes_both_directions_and_there_are_two_for_their_halves(monkeypatch):
    from vmm.ops.scan import triton_backward, triton_forward

    kernels = Recorded(), Recorded()
    monkeypatch.setattr(triton_forward, "forward_kernel", kernels[0])
    monkeypatch.setattr(triton_backward, "backward_kernel", kernels[1])
    inputs = {name: x.float().to(DEVICE) for name, x in make_inputs(133).items()}
    one = ScanInputs(**inputs)
    for scans, launches in (([one], [(2, 2, 1)]), ([one] * 2, [(2, 2, 2)] * 2)):
        launch = scan_triton._Launch(scans, one.z, ScanOptions(True, False))
        launch.width = 128  # of warps of 32 threads
        launch.forward(one.u)
        launch.backward(one.u, one.u)
        assert [kernel.grids for kernel in kernels] == [launches] * 2
        for kernel in kernels:
            kernel.grids.clear()


def test_the_same_numbers_every_time():
    inputs = make_inputs(133, 10)
    first, second = run(triton_scan, inputs), run(triton_scan, inputs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_strides_do_not_matter_and_views_are_used_in_place(monkeypatch):
    inputs = {name: x.float().to(DEVICE) for name, x in make_inputs().items()}
    used = set()
    original = scan_triton._Launch._strided

    def record(x, unit=1):
        used.add(x.data_ptr())
        return original(x, unit)

    monkeypatch.setattr(scan_triton._Launch, "_strided", staticmethod(record))
    out = triton_scan(**inputs, delta_softplus=True)
    for name in ("u", "delta", "B", "C", "z"):
        assert inputs[name].data_ptr() in used, name
    packed = {name: x.clone(memory_format=torch.contiguous_format) for name, x in inputs.items()}
    assert packed["u"].stride() != inputs["u"].stride()
    torch.testing.assert_close(triton_scan(**packed, delta_softplus=True), out)
    assert out.transpose(1, 2).is_contiguous()


def test_rows_that_are_not_aligned_are_read_too():
    inputs = make_inputs(states=4)
    expected = run(selective_scan_ref, inputs, torch.float64, "cpu")
    shifted = {}
    for name in ("B", "C"):
        wide = torch.zeros(2, 9, 7, dtype=torch.float64)
        wide[..., 1:5] = inputs[name].transpose(1, 2)
        shifted[name] = wide[..., 1:5].transpose(1, 2)
    leaves = {n: x.float().to(DEVICE) for n, x in (inputs | shifted).items()}
    out = triton_scan(**leaves, delta_softplus=True)
    assert_close({"out": out}, {"out": expected["out"]})


def test_an_expanded_gradient_is_accepted():
    inputs = {n: x.float().to(DEVICE).requires_grad_() for n, x in make_inputs().items()}
    out = triton_scan(**inputs)
    (of_sum,) = torch.autograd.grad(out.sum(), inputs["u"], retain_graph=True)
    (of_ones,) = torch.autograd.grad(out, inputs["u"], torch.ones_like(out))
    assert torch.equal(of_sum, of_ones)


@pytest.mark.slow
def test_inference_gives_what_training_gives():
    inputs = make_inputs(length=70)
    leaves = {name: x.float().to(DEVICE) for name, x in inputs.items()}
    inference = triton_scan(**leaves, delta_softplus=True)
    assert torch.equal(inference, run(triton_scan, inputs)["out"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter reports infinities
def test_extreme_steps_and_gates_stay_finite():
    inputs = make_inputs(length=12)
    inputs["delta"] = torch.tensor([-1e4, -90.0, -30.0, 0.0, 19.0, 21.0]).double().repeat(2, 5, 2)
    inputs["z"] = torch.tensor([-1e4, -95.0, 0.0, 1e4]).double().repeat(2, 5, 3)
    expected = run(selective_scan_ref, inputs, torch.float64, "cpu")
    actual = run(triton_scan, inputs)
    assert all(x.isfinite().all() for x in actual.values())
    assert_close(actual, expected)


def test_small_steps_keep_their_precision():
    inputs = make_inputs() | {"delta_bias": torch.full((5,), -9.0, dtype=torch.float64)}
    inputs["D"] = torch.zeros_like(inputs["D"])
    expected = run(selective_scan_ref, inputs, torch.float64, "cpu")
    assert_close(run(triton_scan, inputs), expected, 2e-6)


def test_nan_reaches_every_later_output_of_its_channel_only():
    inputs = {name: x.float().to(DEVICE) for name, x in make_inputs().items()}
    inputs["u"][1, 3, 4] = float("nan")
    out = triton_scan(**inputs, delta_softplus=True)
    expected = torch.zeros_like(out, dtype=torch.bool)
    expected[1, 3, 4:] = True
    assert torch.equal(out.isnan(), expected)


def test_training_keeps_one_state_per_chunk():
    u, a = torch.zeros(2, 32, 640), torch.zeros(32, 16)
    for shape in (scan_triton.starts_shape(u, a), scan_triton.pair_starts_shape(u, a)):
        assert torch.Size(shape).numel() == shape[0] * u.numel() * 16 / scan_triton.CHUNK


@pytest.mark.parametrize(
    ("device", "dtype", "states", "message"),
    [
        ("meta", torch.float32, 16, "CUDA device, these are on meta"),
        (DEVICE, torch.float64, 16, "computes in float32"),
        (DEVICE, torch.float32, 257, "at most 256 states, A has 257"),
    ],
)
def test_reasons_why_not(device, dtype, states, message):
    reason = scan_triton.why_not(
        torch.zeros(1, 2, 3, device=device, dtype=dtype), torch.zeros(2, states)
    )
    assert message in reason


def test_on_the_cpu_it_is_for_tests_only(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reason = scan_triton.why_not(torch.zeros(1, 2, 3), torch.zeros(2, 4))
    assert "CUDA" in reason and "TRITON_INTERPRET=1" in reason


def test_a_missing_package_is_a_reason(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    backends._has_triton.cache_clear()
    try:
        u = torch.zeros(1, 2, 3, device=DEVICE)
        assert "pip install triton" in scan_triton.why_not(u, torch.zeros(2, 4))
    finally:
        backends._has_triton.cache_clear()


def test_triton_is_not_imported_before_it_is_needed():
    code = (
        "import sys, vmm.ops.scan.bidirectional, vmm.ops.scan.triton\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


COMPILE = """
import vmm.ops.scan.triton_forward as f, vmm.ops.scan.triton_backward as b
from vmm.ops.scan import triton as scan_triton
from vmm.ops.scan.interface import ScanInputs, ScanOptions

f.forward_kernel, b.backward_kernel = Compiles(f.forward_kernel), Compiles(b.backward_kernel)
row = lambda n: torch.zeros(2, 9, n, dtype=torch.DTYPE).transpose(1, 2)
one = ScanInputs(row(256), row(256), torch.zeros(256, 16), row(16), row(16), None, row(256), None)
launch = scan_triton._Launch([one] * SCANS, one.z, ScanOptions(True, False))
launch.forward(torch.zeros(2, 2, 2, 16, 256))
launch.backward(torch.zeros(2, 2, 2, 16, 256), row(256))
for _, kernel in compiled:
    ir = kernel.asm["ttgir"]
    assert kernel.asm["cubin"]
    assert "warpsPerCTA = [4, 1]" not in ir, "states are spread over warps"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "scans"), [("float32", 1), ("bfloat16", 2)])
def test_compiles_for_a_gpu_with_the_states_of_a_channel_in_one_thread(dtype, scans):
    code = COMPILE.replace("DTYPE", dtype).replace("SCANS", str(scans))
    assert compiled_kernels(code) == 2 * scans
