"""Adapter to the CUDA scan of the mamba-ssm package, the only file that imports it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vmm.ops.backends import why_no_cuda_kernel, why_no_package
from vmm.ops.scan.interface import ScanInputs, ScanOptions

_MOST_STATES = 256


def _kernel() -> Callable[..., Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    function: Callable[..., Tensor] = selective_scan_fn
    return function


def why_not(u: Tensor, A: Tensor) -> str | None:
    """Say why mamba-ssm cannot take u (B, E, L) and A (E, N), or return None."""
    if why := why_no_cuda_kernel(u):
        return why
    if A.shape[1] > _MOST_STATES:
        return f"takes at most {_MOST_STATES} states, A has {A.shape[1]}"
    return why_no_package("mamba-ssm", _kernel)


def scan(inputs: ScanInputs, options: ScanOptions) -> tuple[Tensor, None]:
    """Compute the contract of ``vmm.ops.scan.selective_scan.selective_scan`` with the CUDA kernel.

    The kernel wants time innermost and knows one direction, so memory is rearranged and, for the
    other direction, flipped. The output is (B, E, L); there is no last state.
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
