"""Adapter to the CUDA scan of the mamba-ssm package, the only file that imports it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from vmm.ops.scan.interface import ScanInputs, ScanOptions

_MOST_STATES = 256


@functools.cache
def _missing() -> str | None:
    try:
        _kernel()
    except (ImportError, OSError) as error:  # OSError: a library it was built against is gone
        return f'needs mamba-ssm ({error}): pip install "vmm-video[cuda]"'
    return None


def _kernel() -> Callable[..., Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    function: Callable[..., Tensor] = selective_scan_fn
    return function


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Say why mamba-ssm cannot take these inputs, or return None."""
    if u.device.type != "cuda":
        return f"needs tensors on a CUDA device, these are on {u.device.type}"
    if u.dtype == torch.float64:
        return "computes in float32, these are float64"
    if A.shape[1] > _MOST_STATES:
        return f"takes at most {_MOST_STATES} states, A has {A.shape[1]}"
    return _missing()


def scan(inputs: ScanInputs, options: ScanOptions) -> tuple[Tensor, None]:
    """Compute the contract of ``vmm.ops.scan.selective_scan.selective_scan`` with the CUDA kernel.

    The kernel wants time innermost and knows one direction, so memory is rearranged and, for the
    other direction, flipped.
    """

    def sequence(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        x = x.to(inputs.u.dtype)
        return (x.flip(-1) if options.reverse else x).contiguous()

    def parameter(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.float().contiguous()

    out = _kernel()(
        u=sequence(inputs.u),
        delta=sequence(inputs.delta),
        A=parameter(inputs.A),
        B=sequence(inputs.B),
        C=sequence(inputs.C),
        D=parameter(inputs.D),
        z=sequence(inputs.z),
        delta_bias=parameter(inputs.delta_bias),
        delta_softplus=options.delta_softplus,
    )
    if options.reverse:
        out = out.flip(-1)
    return out.transpose(1, 2).contiguous().transpose(1, 2), None
