"""Choice among the implementations of one operator.

An operator keeps an ordered dict ``name -> Backend``: the module, and what it can. What functions a
module offers, the operator's interface says; all of them offer ``why_not(*inputs) -> str | None``:
the reason why it cannot take these inputs on this machine, or None.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_INTERPRETER = "TRITON_INTERPRET"


@dataclass(frozen=True)
class Backend:
    """One implementation of an operator.

    Attributes:
        path: Of its module.
        recorded: It is made of differentiable functions, so that autograd finds its gradient.
            Outside of compiled graphs it is called directly: as an operator, it has to repeat the
            forward pass in the backward pass.
    """

    path: str
    recorded: bool = False

    @property
    def module(self) -> Any:
        """The module, imported when first looked at: until then a dependency costs nothing."""
        return importlib.import_module(self.path)


def choose(
    backends: Mapping[str, Backend], variable: str, *inputs: Tensor
) -> tuple[str, dict[str, str]]:
    """Find the first backend, in order of preference, that can take the inputs.

    Args:
        backends: By name, best first.
        variable: Environment variable that may force one name.
        inputs: Tensors handed to ``why_not``; only type, device and shape matter.

    Returns:
        The name, and for every backend before it the reason why it was not taken.

    Raises:
        ValueError: If the variable names an unknown backend or one that cannot run here, or if
            none can.
    """
    forced = os.environ.get(variable)
    if forced:
        _check(backends, forced, *inputs)
        reason = f"{variable}={forced}"
        return forced, {name: reason for name in backends if name != forced}
    reasons: dict[str, str] = {}
    for name, backend in backends.items():
        why = backend.module.why_not(*inputs)
        if why is None:
            return name, reasons
        reasons[name] = why
    raise ValueError(f"no backend can take these inputs: {reasons}")


def _check(backends: Mapping[str, Backend], name: str, *inputs: Tensor) -> None:
    if name not in backends:
        raise ValueError(f"unknown backend {name!r}; choose one of {', '.join(backends)} or 'auto'")
    why = backends[name].module.why_not(*inputs)
    if why is not None:
        raise ValueError(f"backend {name!r} cannot run here: {why}; backend='auto' takes another")


def resolve(backends: Mapping[str, Backend], variable: str, backend: str, *inputs: Tensor) -> str:
    """Return the name of ``backend``, where "auto" means the best one that can run.

    Raises:
        ValueError: If the name is unknown, or with the backend's reason.
    """
    if backend == "auto":
        return choose(backends, variable, *inputs)[0]
    _check(backends, backend, *inputs)
    return backend


def why_no_triton(device: torch.device) -> str | None:
    """Say why Triton kernels cannot work on this device, or return None."""
    if device.type == "cpu":
        if os.environ.get(_INTERPRETER) != "1":
            return f"needs tensors on a CUDA device, or {_INTERPRETER}=1 for tests on the CPU"
    elif device.type != "cuda":
        return f"needs tensors on a CUDA device, these are on {device.type}"
    return None if _has_triton() else "needs the package triton: pip install triton"


def why_no_cuda_kernel(x: Tensor) -> str | None:
    """Say why the CUDA kernels of other packages cannot take x, of any shape, or return None."""
    if x.device.type != "cuda":
        return f"needs tensors on a CUDA device, these are on {x.device.type}"
    return "computes in float32, these are float64" if x.dtype == torch.float64 else None


@functools.cache
def why_no_package(name: str, load: Callable[[], object]) -> str | None:
    """Say why ``load`` cannot import a package of the extra ``cuda``, or return None."""
    try:
        load()
    except (ImportError, OSError) as error:  # OSError: a library it was built against is gone
        return f'needs {name} ({error}): pip install "vmm-video[cuda]"'
    return None


def why_no_compiled_code(x: Tensor, parameter: Tensor) -> str | None:
    """Say why the kernels that llvmlite compiles cannot take these inputs, or return None.

    They may have any shape.
    """
    if x.device.type != "cpu":
        return f"needs tensors on the CPU, these are on {x.device.type}"
    if torch.float64 in (x.dtype, parameter.dtype):
        return "computes in float32, these are float64"
    return None if importlib.util.find_spec("llvmlite") else "needs the package llvmlite"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def gradient_wanted(*inputs: Tensor | None) -> bool:
    """Say whether autograd is recording for any of the inputs.

    To be asked before ``Function.apply``: inside, inputs that require a gradient look the same
    under ``torch.no_grad()``.
    """
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
