"""What the convolution's backends share: their list, and the types they are called with.

Their functions are called inside an operator, where autograd does not record, unless the backend is
``recorded``: made of differentiable functions, it needs no ``backward``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from vmm.ops.backends import Backend

BACKENDS = {
    "causal_conv1d": Backend("vmm.ops.conv.cuda", recorded=True),
    "triton": Backend("vmm.ops.conv.triton"),
    "cpu": Backend("vmm.ops.conv.cpu"),
    "torch": Backend("vmm.ops.conv.torch", recorded=True),
}
"""By name, best first. A new backend is one file and one line here."""

BACKEND_VARIABLE = "VMM_CONV_BACKEND"

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


class ConvModule(Protocol):
    """What a backend's module offers."""

    def why_not(self, x: Tensor, weight: Tensor) -> str | None:
        """Say why it cannot take x (B, E, L) and weight (E, K), or return None."""

    def forward(self, inputs: ConvInputs, silu: bool) -> ConvOutputs:
        """Return the output (B, E, L) of every direction."""

    def backward(self, inputs: ConvInputs, silu: bool, d_outs: ConvOutputs) -> ConvInputs:
        """Return the gradient of every input."""


def one_by_one(inputs: ConvInputs, one: Callable[[Taps, bool], Tensor]) -> ConvOutputs:
    """Return ``one(parameters, reverse)`` of every direction that is there."""
    back, ahead = inputs.directions()
    return (
        None if back is None else one(back, False),
        None if ahead is None else one(ahead, True),
    )
