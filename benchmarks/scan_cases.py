"""Inputs of the selective scan as the model makes them, and all ways to scan them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import ggml
from benchmarks.common import device, versions
from benchmarks.peers import Scan
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.selective_scan import selective_scan

STATES = 16
ONE_CALL, TWO_CALLS = "vmm, one call", "two calls with flips"
LINEAR, COPY = "linear layers", "copying as many bytes"
YARDSTICKS = (LINEAR, COPY)
"""Timed beside the scans, but no scans."""
ONE, BOTH = "one direction", "both directions"
FORWARD, TRAINING = "forward", "forward+backward"


class Case(NamedTuple):
    """What is the same along one line of a plot over lengths.

    Args:
        task: One direction or both.
        what: Forward, or forward and backward.
        width: Channels E (d_inner).
        batch: Samples.
        dtype: Of the inputs that have a length.
        kept: Freed memory stays with the process (``vmm.ops.tuning.cpu_memory``).
    """

    task: str
    what: str
    width: int
    batch: int
    dtype: str = "float32"
    kept: bool = False


def our_scans() -> dict[str, Scan]:
    """Return our backends that run here, best first, and mamba-ssm where it is installed."""
    names = {"vmm cpu": "cpu", "vmm chunked": "chunked", "vmm reference": "reference"}
    if device().type == "cuda":
        names = {"vmm triton": "triton", "vmm chunked": "chunked"}
        if "mamba_ssm" in versions():
            names["mamba-ssm"] = "mamba_ssm"
    return {
        shown: lambda *x, name=name: selective_scan(*x, delta_softplus=True, backend=name)
        for shown, name in names.items()
    }


def make_inputs(
    width: int, length: int, batch: int = 1, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Return u, delta, A, B, C, D, z, delta_bias with the memory that the mixer gives them.

    Args:
        width: Channels E.
        length: Tokens L.
        batch: Samples.
        dtype: Of all that has a length; the parameters are float32.
    """
    torch.manual_seed(0)
    rank = width // 32

    def tokens(channels: int) -> Tensor:
        return torch.randn(batch, length, channels).to(device(), dtype).transpose(1, 2)

    u, z = tokens(2 * width).chunk(2, dim=1)
    delta = 0.5 * tokens(width)
    _, b, c = tokens(rank + 2 * STATES).split([rank, STATES, STATES], dim=1)
    a = -torch.arange(1.0, STATES + 1).repeat(width, 1).to(device())
    bias = torch.empty(width).uniform_(-6.9, -2.3).to(device())  # steps of 0.001 to 0.1
    return [u, delta, a, b, c, torch.ones(width, device=device()), z, bias]


def two_directions(width: int, length: int, batch: int) -> tuple[dict[str, Scan], list[Tensor]]:
    """Return one call for both directions, two calls with flips, and what both take."""
    scans = our_scans()
    best = next(iter(scans.values()))
    one_direction = scans.get("mamba-ssm", best)
    u, delta, a, b, c, skip, z, bias = make_inputs(width, length, batch)
    first = [u, delta, a, b, c, skip, bias]
    second = [x.clone() for x in first]
    count = len(first)
    backend = "triton" if u.is_cuda else "cpu"

    def one_call(*x: Tensor) -> Tensor:
        ways = Direction(*x[:count]), Direction(*x[count:-1])
        return bidirectional_scan(*ways, x[-1], delta_softplus=True, backend=backend)

    def two_calls(*x: Tensor) -> Tensor:
        # As the published block does: its second half computes on flipped tokens, so only what
        # comes in and goes out is flipped.
        (u, *others, bias), gate = x[count:-1], x[-1]
        forward = one_direction(*x[: count - 1], gate, x[count - 1])
        return forward + one_direction(u.flip(-1), *others, gate.flip(-1), bias).flip(-1)

    return {ONE_CALL: one_call, TWO_CALLS: two_calls}, [*first, *second, z]


def why_no_ggml() -> str | None:
    """Say why ggml's scan is not measured here; None if it is."""
    return "ggml's scan runs on CPUs" if device().type != "cpu" else ggml.why_not()


def call_of(scan: Scan, inputs: list[Tensor], backward: bool) -> Callable[[], list[Tensor]]:
    """Return a call that gives the output and, if asked, the gradient of every input."""
    grad_out = torch.ones_like(inputs[0])

    def call() -> list[Tensor]:
        leaves = [x.detach().requires_grad_(backward) for x in inputs]
        out = scan(*leaves)
        gradients = torch.autograd.grad(out, leaves, grad_out) if backward else ()
        return [out.detach(), *gradients]

    return call


def calls(
    case: Case, length: int, scans: dict[str, Scan]
) -> tuple[dict[str, Callable[[], list[Tensor]]], list[Tensor]]:
    """Return what is to be timed at one length, by name, and the inputs."""
    backward = case.what == TRAINING
    shape = case.width, length, case.batch
    if case.task == BOTH:
        scans, inputs = two_directions(*shape)
    else:
        inputs = make_inputs(*shape, dtype=getattr(torch, case.dtype))
    found = {name: call_of(scan, inputs, backward) for name, scan in scans.items()}
    if case.task == ONE and not backward and case.dtype == "float32" and not why_no_ggml():
        found[ggml.NAME] = ggml.prepare(inputs)
    if case.task == ONE:
        found[LINEAR] = linear_layers(*shape, backward)
    found[COPY] = copy_of(least_bytes(case, length, inputs[0].element_size()))
    return found, inputs


def least_bytes(case: Case, length: int, size: int) -> int:
    """Return how many bytes a scan must at least read and write, in numbers of ``size`` bytes.

    Forward reads u, delta, B and C of each direction and z, and writes the output. Backward reads
    them again with the output's gradient, and writes a gradient for each.
    """
    ways = 2 if case.task == BOTH else 1
    inputs = ways * (2 * case.width + 2 * STATES) + case.width
    moved = inputs + case.width
    if case.what == TRAINING:
        moved += inputs + case.width + inputs
    return case.batch * length * moved * size


def state_updates(case: Case, length: int) -> int:
    """Return how often one state is multiplied, increased and read out in a forward pass."""
    return (2 if case.task == BOTH else 1) * case.batch * length * case.width * STATES


def copy_of(size: int) -> Callable[[], list[Tensor]]:
    """Return a copy that reads and writes so many bytes together: the floor that memory sets."""
    source = torch.zeros(size // 2, dtype=torch.uint8, device=device())
    target = torch.zeros_like(source)
    return lambda: [target.copy_(source)]


def linear_layers(
    width: int, length: int, batch: int, backward: bool
) -> Callable[[], list[Tensor]]:
    """Return the matrix products of the block around one scan, a yardstick for its cost."""
    dim, rank = width // 2, width // 32
    shapes = [(dim, 2 * width), (width, rank + 2 * STATES), (rank, width), (width, dim)]
    leaves = [
        torch.randn(*shape, device=device()).requires_grad_(backward)
        for i, o in shapes
        for shape in ((batch * length, i), (o, i))
    ]

    def call() -> list[Tensor]:
        outs = [F.linear(x, weight) for x, weight in zip(leaves[::2], leaves[1::2], strict=True)]
        gradients = torch.autograd.grad(outs, leaves, outs) if backward else ()
        return [*outs, *gradients]

    return call
