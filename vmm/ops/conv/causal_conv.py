"""Depthwise causal convolution over time, one way or both: contract, choice of a backend.

Shape legend: B batch, E channels, L length, K taps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vmm.ops import backends, op_tools
from vmm.ops.conv.interface import BACKEND_VARIABLE, BACKENDS, ConvInputs, Taps
from vmm.ops.conv.op import conv_op

__all__ = [
    "BACKENDS",
    "Activation",
    "Taps",
    "bidirectional_conv1d",
    "causal_conv1d",
    "choose_backend",
]

Activation = Literal["silu"] | None


def choose_backend(x: Tensor, weight: Tensor) -> tuple[str, dict[str, str]]:
    """Say which backend "auto" takes, and why not the better ones (see ``selective_scan``).

    For x (B, E, L) and weight (E, K).
    """
    return backends.choose(BACKENDS, BACKEND_VARIABLE, x, weight)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "silu",
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Convolve every channel with its own K taps, looking back only.

    y_t = act(bias + sum_k weight[k] x[t - K + 1 + k]) with zeros before the first position, as
    Mamba does before the scan (arXiv 2312.00752, section 3.4).

    Args:
        x: (B, E, L) in any strides; channels-last memory is used in place.
        weight: (E, K).
        bias: (E,).
        activation: "silu" or None.
        reverse: Look ahead instead: equals flip(conv(flip(x))).
        backend: A name in ``BACKENDS``, or "auto" for the best that can run.

    Returns:
        (B, E, L) in the type of ``x``; ``out.transpose(1, 2)`` is contiguous.

    Raises:
        ValueError: If shapes do not fit, the activation is unknown or the backend cannot run.
    """
    parameters = (None, None, weight, bias) if reverse else (weight, bias)
    back, ahead = _convolve(ConvInputs(x, *parameters), activation, backend)
    return ahead if reverse else back


def bidirectional_conv1d(
    x: Tensor,
    forward: Taps,
    reverse: Taps,
    activation: Activation = "silu",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Do two convolutions of one x, the second one looking ahead; see ``causal_conv1d``.

    Backends that can do both at once read x once.

    Args:
        x: As there.
        forward: Weight (E, K) and bias (E,) or None of what looks back.
        reverse: Those of what looks ahead, of the same shapes.
        activation: As there, of both.
        backend: As there.

    Returns:
        Both outputs, each as there.

    Raises:
        ValueError: As there.
    """
    if forward.weight.shape != reverse.weight.shape:
        raise ValueError(
            "both directions must have the same shapes, weight "
            f"{tuple(forward.weight.shape)} and {tuple(reverse.weight.shape)}"
        )
    return _convolve(ConvInputs(x, *forward, *reverse), activation, backend)


def _convolve(inputs: ConvInputs, activation: Activation, backend: str) -> tuple[Tensor, Tensor]:
    for taps in inputs.directions():
        if taps is not None:
            _check(inputs.x, *taps, activation)
            weight = taps.weight
    name = _resolve(backend, inputs.x, weight)
    if BACKENDS[name].recorded and not torch.compiler.is_compiling():
        module = BACKENDS[name].module
        with torch.autocast(inputs.x.device.type, enabled=False):
            recorded: tuple[Tensor, Tensor] = module.forward(inputs, activation == "silu")
        return recorded
    outs: tuple[Tensor, Tensor] = conv_op(*inputs, activation == "silu", name)
    return outs


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
    if x.dim() != 3 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (batch, d_inner > 0, length > 0), got {tuple(x.shape)}")
    if weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] == 0:
        raise ValueError(
            f"weight must be (d_inner={x.shape[1]}, taps > 0), got {tuple(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (x.shape[1],):
        raise ValueError(f"bias must be ({x.shape[1]},), got {tuple(bias.shape)}")
    if activation not in ("silu", None):
        raise ValueError(f"activation must be 'silu' or None, got {activation!r}")


@op_tools.evaluated_when_traced  # tracing cannot look into imports
def _resolve(backend: str, x: Tensor, weight: Tensor) -> str:
    return backends.resolve(BACKENDS, BACKEND_VARIABLE, backend, x, weight)
