"""What is special about the Triton convolution: partial sums, compilation. Its numbers are also
checked with those of the other backends, in test_causal_conv.py."""

import pytest
import torch

from tests.ops.gpu_compiler import compiled_kernels
from vmm.ops.conv import triton as conv_triton
from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _runnable(interpreter):
    pytest.importorskip("triton")


@pytest.mark.parametrize("length", [7, 8, 9, 33])
def test_gradients_are_summed_over_programs(monkeypatch, length):
    monkeypatch.setattr(conv_triton, "_SPAN", 8)
    x = torch.randn(2, length, 70, device=DEVICE).transpose(1, 2).requires_grad_()
    parameters = [torch.randn(70, *more, device=DEVICE) for more in ((4,), (), (4,), ())]
    leaves = [x, *(y.requires_grad_() for y in parameters)]
    found = []
    for backend in ("triton", "triton", "torch"):
        outs = bidirectional_conv1d(x, Taps(*leaves[1:3]), Taps(*leaves[3:]), backend=backend)
        d_outs = [torch.linspace(-1, 1, y.numel(), device=DEVICE).view(y.shape) for y in outs]
        found.append(torch.autograd.grad(outs, leaves, d_outs))
    for one, again, expected in zip(*found, strict=True):
        assert torch.equal(one, again)
        assert (one - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("meta", torch.float32, "CUDA device, these are on meta"),
        (DEVICE, torch.float64, "computes in float32"),
    ],
)
def test_reasons_why_not(device, dtype, message):
    x = torch.zeros(1, 2, 3, device=device, dtype=dtype)
    assert message in conv_triton.why_not(x, torch.zeros(2, 4))


COMPILE = """
from vmm.ops.conv import triton as conv_triton
from vmm.ops.conv import triton_kernels as kernels
from vmm.ops.conv.interface import ConvInputs

kernels.forward_kernel = Compiles(kernels.forward_kernel)
kernels.backward_kernel = Compiles(kernels.backward_kernel)
rows = lambda: torch.zeros(2, 64, 256, dtype=torch.DTYPE).transpose(1, 2)
taps = torch.zeros(256, 4), torch.zeros(256)
inputs = ConvInputs(rows(), *taps, *taps)
conv_triton.forward(inputs, True)
conv_triton.backward(inputs, True, (rows(), rows()))
for _, kernel in compiled:
    assert kernel.asm["cubin"]
    assert "ld.global.v" in kernel.asm["ptx"], "single numbers are loaded"
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiles_for_a_gpu_with_wide_loads(dtype):
    assert compiled_kernels(COMPILE.replace("DTYPE", dtype)) == 2
