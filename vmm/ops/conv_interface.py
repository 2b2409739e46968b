"""What the backends of the causal convolution share.

A backend is a module with these functions:

    why_not(x, weight) -> str | None     the reason why it cannot take these inputs, or None
    forward(inputs, silu, reverse)       the output
    backward(inputs, silu, reverse, d_out) -> ConvInputs     the gradient of every input

These are called inside an operator, where autograd does not record. A backend that is made of
differentiable functions (RECORDED) needs no ``backward``.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

BACKENDS: dict[str, str] = {
    "causal_conv1d": "vmm.ops.conv_cuda",
    "cpu": "vmm.ops.conv_cpu",
    "torch": "vmm.ops.conv_torch",
}
"""Name to module, best first. A new backend is one file and one line here."""

BACKEND_VARIABLE = "VMM_CONV_BACKEND"

RECORDED = frozenset({"causal_conv1d", "torch"})
"""Backends that autograd differentiates by itself (see ``vmm.ops.scan_interface.RECORDED``)."""


class ConvInputs(NamedTuple):
    """The tensors of ``vmm.ops.causal_conv.causal_conv1d``, or their gradients."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
