"""What the scan's backends share: their list, and the types they are called with.

A backend is a module with these functions:

    why_not(u, A) -> str | None          the reason why it cannot take these inputs, or None
    starts_shape(u, A) -> tuple          shape of the states that it keeps for the gradient
    forward(inputs, options, starts, last)     the output; ``starts`` and ``last``, the state
                                         after the last step, are filled (None: not wanted)
    backward(inputs, options, starts, d_out, d_last) -> ScanInputs     the gradient of every input

These are called inside an operator, where autograd does not record. A backend that is made of
differentiable functions (RECORDED) has, besides ``why_not``, only

    scan(inputs, options) -> (output, last)
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

BACKENDS: dict[str, str] = {
    "mamba_ssm": "vmm.ops.scan_mamba_ssm",
    "triton": "vmm.ops.scan_triton",
    "cpu": "vmm.ops.scan_cpu",
    "chunked": "vmm.ops.scan_chunked",
    "reference": "vmm.ops.scan_reference",
}
"""Name to module, best first. A new backend is one file and one line here."""

BACKEND_VARIABLE = "VMM_SCAN_BACKEND"

RECORDED = frozenset({"mamba_ssm", "reference"})
"""Backends that autograd differentiates by itself. Outside of compiled graphs they are called
directly: the operator has to repeat the forward pass in the backward pass."""

STATEFUL = frozenset({"triton", "cpu", "chunked", "reference"})
"""Backends that can start from a given state; the others get no ``state`` and no ``last``."""

ADDING = frozenset({"cpu"})
"""Backends that take ``other``; for the others it is added, and the gate applied, in PyTorch."""

FUSED = frozenset({"triton", "cpu"})
"""Backends that do two directions at once. They also have:

    pair_starts_shape(u, A) -> tuple
    pair_forward(inputs, delta_softplus, starts)
    pair_backward(inputs, delta_softplus, starts, d_out) -> PairInputs
"""


class ScanInputs(NamedTuple):
    """The tensors of ``vmm.ops.selective_scan.selective_scan``, or their gradients.

    ``state`` (B, E, N) is the one before the first step, of the type that is computed in; None
    stands for zeros. ``other`` (B, E, L) is added to the output before the gate.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    state: Tensor | None = None
    other: Tensor | None = None


class ScanOptions(NamedTuple):
    """How to scan."""

    delta_softplus: bool
    reverse: bool


class PairInputs(NamedTuple):
    """The tensors of ``vmm.ops.bidirectional.bidirectional_scan``, or their gradients."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    u_reverse: Tensor
    delta_reverse: Tensor
    A_reverse: Tensor
    B_reverse: Tensor
    C_reverse: Tensor
    D_reverse: Tensor | None
    delta_bias_reverse: Tensor | None
    z: Tensor | None

    @classmethod
    def join(cls, first: ScanInputs, second: ScanInputs, z: Tensor | None) -> PairInputs:
        """Put two directions, whose own z are ignored, and the shared z together."""
        both = ((*x[:6], x.delta_bias) for x in (first, second))
        return cls(*next(both), *next(both), z)

    def split(self) -> tuple[ScanInputs, ScanInputs]:
        """Return the directions, each with the shared z."""
        first, second = self[:7], self[7:14]
        return (
            ScanInputs(*first[:6], self.z, first[6]),
            ScanInputs(*second[:6], self.z, second[6]),
        )
