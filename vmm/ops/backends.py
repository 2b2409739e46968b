"""Choice among the implementations of one operator.

An operator keeps an ordered dict ``name -> module path``. Each module offers a function named like
the operator and ``why_not(*inputs) -> str | None``: the reason why it cannot take these inputs on
this machine, or None. Modules are imported when first looked at, so an optional dependency costs
nothing until then.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType

import torch
from torch import Tensor

_INTERPRETER = "TRITON_INTERPRET"


def choose(backends: dict[str, str], variable: str, *inputs: Tensor) -> tuple[str, dict[str, str]]:
    """Find the first backend, in order of preference, that can take the inputs.

    Args:
        backends: Name to module path, best first.
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
        load(backends, forced, *inputs)
        reason = f"{variable}={forced}"
        return forced, {name: reason for name in backends if name != forced}
    reasons: dict[str, str] = {}
    for name, path in backends.items():
        why = importlib.import_module(path).why_not(*inputs)
        if why is None:
            return name, reasons
        reasons[name] = why
    raise ValueError(f"no backend can take these inputs: {reasons}")


def load(backends: dict[str, str], name: str, *inputs: Tensor) -> ModuleType:
    """Import the backend called ``name`` and make sure that it can take the inputs.

    Raises:
        ValueError: If the name is unknown, or with the backend's reason.
    """
    if name not in backends:
        raise ValueError(f"unknown backend {name!r}; choose one of {', '.join(backends)} or 'auto'")
    module = importlib.import_module(backends[name])
    why = module.why_not(*inputs)
    if why is not None:
        raise ValueError(f"backend {name!r} cannot run here: {why}; backend='auto' takes another")
    return module


def resolve(backends: dict[str, str], variable: str, backend: str, *inputs: Tensor) -> str:
    """Return the name of ``backend``, where "auto" means the best one that can run."""
    if backend == "auto":
        return choose(backends, variable, *inputs)[0]
    load(backends, backend, *inputs)
    return backend


def why_no_triton(device: torch.device) -> str | None:
    """Say why Triton kernels cannot work on this device, or return None."""
    if device.type == "cpu":
        if os.environ.get(_INTERPRETER) != "1":
            return f"needs tensors on a CUDA device, or {_INTERPRETER}=1 for tests on the CPU"
    elif device.type != "cuda":
        return f"needs tensors on a CUDA device, these are on {device.type}"
    return None if _has_triton() else "needs the package triton: pip install triton"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def gradient_wanted(*inputs: Tensor | None) -> bool:
    """Say whether autograd is recording for any of the inputs.

    To be asked before ``Function.apply``: inside, inputs that require a gradient look the same
    under ``torch.no_grad()``.
    """
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
