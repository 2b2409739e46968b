"""A faster route for float32 matrix products on CPUs, taken only if it is exact."""

from __future__ import annotations

import torch

_FLOAT32_ERROR = 3e-6
"""Largest relative error of a true float32 product of length 256; bfloat16 errs by about 4e-3."""


def enable_fast_cpu_matmul() -> str:
    """Send float32 linear layers to oneDNN if that keeps float32 accuracy.

    PyTorch's default, MKL, runs at half speed on AMD CPUs; precision "medium" selects oneDNN. On
    CPUs with bfloat16 matrix units the same setting may round the inputs to bfloat16, so a small
    product is compared with float64 and the setting is kept only if the error is that of float32.

    Returns:
        A sentence that says what was chosen and why.
    """
    if torch.cuda.is_available():
        return "float32 matrix products are left alone: the setting would allow TF32 on the GPU"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "float32 matrix products use PyTorch's default: this build has no oneDNN"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    error = _relative_error()
    if error <= _FLOAT32_ERROR:
        return f"float32 matrix products use oneDNN (checked: relative error {error:.1e})"
    torch.set_float32_matmul_precision(before)
    return (
        "float32 matrix products use PyTorch's default: "
        f"oneDNN would round to bfloat16 on this CPU (relative error {error:.1e})"
    )


def _relative_error() -> float:
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(64, 256, dtype=torch.float32, generator=generator, device="cpu") for _ in "xw"
    )
    exact = x.double() @ weight.double().t()
    errors = [torch.nn.functional.linear(x, weight) - exact, x @ weight.t() - exact]
    return (torch.stack(errors).abs().max() / exact.abs().max()).item()
