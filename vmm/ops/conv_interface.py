"""What the backends of the causal convolution share.

A backend is a module with these functions:

    why_not(x, weight) -> str | None     the reason why it cannot take these inputs, or None
    forward(inputs, silu) -> ConvOutputs     the output of every direction
    backward(inputs, silu, d_outs: ConvOutputs) -> ConvInputs     the gradient of every input

These are called inside an operator, where autograd does not record. A backend that is made of
differentiable functions (RECORDED) needs no ``backward``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

BACKENDS: dict[str, str] = {
    "causal_conv1d": "vmm.ops.conv_cuda",
    "triton": "vmm.ops.conv_triton",
    "cpu": "vmm.ops.conv_cpu",
    "torch": "vmm.ops.conv_torch",
}
"""Name to module, best first. A new backend is one file and one line here."""

BACKEND_VARIABLE = "VMM_CONV_BACKEND"

RECORDED = frozenset({"causal_conv1d", "torch"})
"""Backends that autograd differentiates by itself (see ``vmm.ops.scan_interface.RECORDED``)."""


ConvOutputs = tuple[Tensor | None, Tensor | None]
"""What looked back and what looked ahead, or their gradients; None where there is no direction."""


class Taps(NamedTuple):
    """The parameters of one direction: weight (E, K), and bias (E,) or None."""

    weight: Tensor
    bias: Tensor | None


class ConvInputs(NamedTuple):
    """One sequence and the parameters of two directions, or the gradients of all this.

    A direction without weight is absent.
    """

    x: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    weight_reverse: Tensor | None = None
    bias_reverse: Tensor | None = None

    def directions(self) -> tuple[Taps | None, Taps | None]:
        """Return the parameters of what looks back and of what looks ahead."""
        back, ahead = self.weight, self.weight_reverse
        return (
            None if back is None else Taps(back, self.bias),
            None if ahead is None else Taps(ahead, self.bias_reverse),
        )


def one_by_one(inputs: ConvInputs, one: Callable[[Taps, bool], Tensor]) -> ConvOutputs:
    """Return ``one(parameters, reverse)`` of every direction that is there."""
    back, ahead = inputs.directions()
    return (
        None if back is None else one(back, False),
        None if ahead is None else one(ahead, True),
    )
