import pytest
import torch
import torch.nn.functional as F

from vmm.export.standard_ops import standard_decompositions
from vmm.ops.conv.causal_conv import causal_conv1d
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.interface import ScanInputs
from vmm.ops.scan.selective_scan import selective_scan_ref

OPS = torch.ops.vmm


def inputs(length, batch=2, channels=6, states=3):
    shapes = [(batch, channels, length)] * 2 + [(channels, states)]
    shapes += [(batch, states, length)] * 2 + [(channels,), (batch, channels, length), (channels,)]
    u, delta, a, b, c, d, z, bias = map(torch.randn, shapes)
    return u, delta, -a.exp(), b, c, d, z, bias


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_scan(length, reverse):
    tensors, other = inputs(length), torch.randn(2, 6, length)
    got = standard_decompositions()[OPS.selective_scan.default](
        *ScanInputs(*tensors, other=other), True, reverse, False, "cpu"
    )[0]
    ungated = selective_scan_ref(
        *tensors[:6], None, tensors[7], delta_softplus=True, reverse=reverse
    )
    want = (ungated + other) * F.silu(tensors[6])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert got.transpose(1, 2).is_contiguous()


def test_scan_without_the_optional_parts():
    u, delta, a, b, c, *_ = inputs(20)
    scan = standard_decompositions()[OPS.selective_scan.default]
    step = F.softplus(delta)
    given = ScanInputs(u, step, a, b, c, None, None, None)
    got = scan(*given, False, False, False, "cpu")[0]
    torch.testing.assert_close(got, selective_scan_ref(u, step, a, b, c), rtol=1e-5, atol=1e-5)


def test_steps_of_all_sizes():
    """Of one step from zeros the output is the step's size times what all steps share."""
    steps = torch.linspace(-30, 120, 301)
    u, _, a, b, c, *_ = inputs(1, channels=len(steps))
    delta = steps.repeat(2, 1).unsqueeze(-1)
    scan = standard_decompositions()[OPS.selective_scan.default]
    got = scan(*ScanInputs(u, delta, a, b, c, None, None, None), True, False, False, "cpu")[0]
    want = F.softplus(delta) * u * (b * c).sum(1, keepdim=True)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


def test_a_long_scan_of_small_and_large_steps():
    tensors = list(inputs(700))
    tensors[1] *= 10
    got = standard_decompositions()[OPS.selective_scan.default](
        *ScanInputs(*tensors), True, False, False, "cpu"
    )[0]
    want = selective_scan_ref(*(x.double() for x in tensors), delta_softplus=True)
    assert want.isfinite().all()
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


@pytest.mark.parametrize("gated", [False, True])
def test_both_directions(gated):
    one, two = inputs(21), inputs(21)
    z = one[6] if gated else None
    first, second = (Direction(*x[:6], x[7]) for x in (one, two))
    got = standard_decompositions()[OPS.bidirectional_scan.default](
        *first, *second, z, True, False, "cpu"
    )[0]
    want = bidirectional_scan(first, second, z, True, backend="reference")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolution(reverse):
    x, weight, bias = torch.randn(2, 6, 11), torch.randn(6, 4), torch.randn(6)
    ways = (None, None, weight, bias) if reverse else (weight, bias, None, None)
    got = standard_decompositions()[OPS.causal_conv1d.default](x, *ways, True, "cpu")
    want = causal_conv1d(x, weight, bias, reverse=reverse, backend="torch")
    torch.testing.assert_close(got[reverse], want)
    assert got[not reverse].numel() == 0
