"""The CPU kernels of Apple silicon and Graviton, on a machine that is neither."""

import re
import shutil
from functools import partial

import pytest
import torch

from tests.ops.arm import COMPILER, QEMU, Arm
from tests.ops.test_bidirectional import assert_close, make_directions, run, two_references
from vmm.ops.conv.causal_conv import causal_conv1d
from vmm.ops.scan.bidirectional import bidirectional_scan
from vmm.ops.scan.selective_scan import selective_scan, selective_scan_ref

missing = [name for name in (COMPILER, QEMU) if not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing),
        reason="apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    ),
]
on = partial(pytest.mark.parametrize, "arm", indirect=True)


@pytest.fixture
def arm(request, tmp_path, monkeypatch):
    return Arm(request.param, tmp_path, monkeypatch)


@on(argvalues=["neoverse-n1", "apple-m1"])
def test_both_directions_and_their_gradients(arm):
    channels = {"neoverse-n1": 20, "apple-m1": 32}[arm.cpu]  # a last vector of few lanes, and none
    inputs = make_directions(channels, length=70)

    expected = run(two_references, inputs, torch.float64)
    actual = run(partial(bidirectional_scan, backend="cpu"), inputs, torch.float32)
    assert_close(actual, expected, 5e-6)
    assert arm.runs == 3 and all(re.search(r"fmla\s+v\d+\.4s", x) for x in arm.assemblies)


@on(argvalues=["neoverse-n1"])
def test_one_direction_of_bfloat16(arm):
    forward, _, z = make_directions(20, length=70)
    rounded = [x.bfloat16() for x in (forward.u, forward.delta, forward.B, forward.C, z)]
    others = [x.float() for x in (forward.A, forward.D, forward.delta_bias)]

    def scan(function, dtype, **options):
        u, delta, b, c, gate = (x.to(dtype) for x in rounded)
        a, d, bias = others
        return function(u, delta, a, b, c, d, gate, bias, delta_softplus=True, **options)

    actual = scan(selective_scan, torch.bfloat16, backend="cpu")
    expected = scan(selective_scan_ref, torch.float32)
    assert actual.dtype == torch.bfloat16 and arm.runs
    assert_close([actual.float()], [expected], 2**-8)


@on(argvalues=["apple-m1"])
def test_convolution_and_its_gradients(arm):
    x = torch.randn(2, 19, 20).transpose(1, 2)
    leaves = [x, torch.randn(20, 4), torch.randn(20)]

    def evaluate(backend):
        tensors = [leaf.detach().requires_grad_() for leaf in leaves]
        out = causal_conv1d(*tensors, "silu", True, backend)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), tensors)]

    expected = evaluate("torch")
    assert not arm.runs
    assert_close(evaluate("cpu"), expected, 5e-6)
    assert arm.runs == 2
