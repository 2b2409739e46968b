"""What the scan's backends share: their list, what each can, and the types they are called with.

Their functions are called inside an operator, where autograd does not record, but for those of
``RecordedScan``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from vmm.ops.backends import Backend


@dataclass(frozen=True)
class ScanBackend(Backend):
    """One implementation of the scan: a module with the functions of ``ScanModule``.

    Attributes:
        stateful: It can start from a given state; others get no ``state`` and no ``last``.
        adding: It takes ``other``; for others it is added, and the gate applied, in PyTorch.
        fused: It does two directions at once: a ``PairModule``.
        recorded: It is a ``RecordedScan`` instead.
    """

    stateful: bool = True
    adding: bool = False
    fused: bool = False


BACKENDS = {
    "mamba_ssm": ScanBackend("vmm.ops.scan.mamba_ssm", recorded=True, stateful=False),
    "triton": ScanBackend("vmm.ops.scan.triton", fused=True),
    "cpu": ScanBackend("vmm.ops.scan.cpu", fused=True, adding=True),
    "chunked": ScanBackend("vmm.ops.scan.chunked"),
    "reference": ScanBackend("vmm.ops.scan.reference", recorded=True),
}
"""By name, best first. A new backend is one file and one line here."""

BACKEND_VARIABLE = "VMM_SCAN_BACKEND"


class ScanInputs(NamedTuple):
    """The tensors of ``vmm.ops.scan.selective_scan.selective_scan``, or their gradients.

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
    """The tensors of ``vmm.ops.scan.bidirectional.bidirectional_scan``, or their gradients."""

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
        """Put two directions, whose own z are ignored, and the shared z (B, E, L) together."""
        both = ((*x[:6], x.delta_bias) for x in (first, second))
        return cls(*next(both), *next(both), z)

    def split(self) -> tuple[ScanInputs, ScanInputs]:
        """Return the directions, each with the shared z."""
        first, second = self[:7], self[7:14]
        return (
            ScanInputs(*first[:6], self.z, first[6]),
            ScanInputs(*second[:6], self.z, second[6]),
        )


class ScanModule(Protocol):
    """What a backend's module offers."""

    def why_not(self, u: Tensor, A: Tensor) -> str | None:
        """Say why it cannot take u (B, E, L) and A (E, N), or return None."""

    def starts_shape(self, u: Tensor, A: Tensor) -> tuple[int, ...]:
        """Return the shape of the states that it keeps of u (B, E, L) and A (E, N)."""

    def forward(
        self, inputs: ScanInputs, options: ScanOptions, starts: Tensor | None, last: Tensor | None
    ) -> Tensor:
        """Return the output (B, E, L).

        Fills ``starts`` and ``last``, the state (B, E, N) after the last step; None: not wanted.
        """

    def backward(
        self,
        inputs: ScanInputs,
        options: ScanOptions,
        starts: Tensor,
        d_out: Tensor | None,
        d_last: Tensor | None,
    ) -> ScanInputs:
        """Return the gradient of every input, of its shape.

        From those of the output (B, E, L) and of the last state (B, E, N); None: there is none.
        """


class PairModule(Protocol):
    """What the module of a backend that is ``fused`` offers besides."""

    def pair_starts_shape(self, u: Tensor, A: Tensor) -> tuple[int, ...]:
        """Return the shape of the states that it keeps of u (B, E, L) and A (E, N)."""

    def pair_forward(
        self, inputs: PairInputs, delta_softplus: bool, starts: Tensor | None
    ) -> Tensor:
        """Return the sum (B, E, L) of both directions' outputs."""

    def pair_backward(
        self, inputs: PairInputs, delta_softplus: bool, starts: Tensor, d_out: Tensor
    ) -> PairInputs:
        """Return the gradient of every input, of its shape, from that of the output (B, E, L)."""


class RecordedScan(Protocol):
    """What the module of a backend that is ``recorded`` offers besides ``why_not``."""

    def scan(self, inputs: ScanInputs, options: ScanOptions) -> tuple[Tensor, Tensor | None]:
        """Return the output (B, E, L), and the last state (B, E, N), None if it has none."""
