"""Help for operators: types, layouts, absent tensors, autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

_F = TypeVar("_F", bound=Callable[..., object])


def evaluated_when_traced(function: _F) -> _F:
    """Let ``torch.compile`` call a function while tracing and take its result as a constant.

    ``torch.compiler.assume_constant_result`` without the seconds that its import of the compiler
    takes.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off for a while; where it is off already, that costs nothing."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """Return x, of any shape, in float32, or in float64 if it is so already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def empty_packed(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Allocate memory of the shape of x (B, K, L), K innermost and rows packed."""
    batch, channels, length = x.shape
    return x.new_empty(batch, length, channels, dtype=dtype).transpose(1, 2)


def packed(x: Tensor) -> Tensor:
    """Return (B, K, L) x with K innermost and rows packed: itself if it is so already."""
    rows = x.transpose(1, 2)
    return x if rows.is_contiguous() else rows.contiguous().transpose(1, 2)


def channels_last(x: Tensor) -> Tensor:
    """Return (B, K, L) x with K innermost in memory: itself if it is so already."""
    return x if x.stride(1) == 1 else x.transpose(1, 2).contiguous().transpose(1, 2)


def gradients_like(
    gradients: Sequence[Tensor | None], inputs: Sequence[Tensor | None]
) -> list[Tensor]:
    """Give gradients the types of the inputs and the layouts that ``empty_gradients`` promises.

    Each has the shape of its input; an absent one is (0,).
    """
    first = inputs[0]
    assert first is not None
    results = []
    for gradient, x in zip(gradients, inputs, strict=True):
        if x is None or gradient is None:
            results.append(first.new_empty(0))
            continue
        if gradient.dtype != x.dtype:
            gradient = gradient.to(x.dtype)
        results.append(packed(gradient) if x.dim() == 3 else gradient.contiguous())
    return results


def empty_gradients(inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Allocate a gradient of its shape per input, (0,) for an absent one.

    Tensors (B, K, L) are packed channels-last.
    """
    first = inputs[0]
    assert first is not None

    def one(x: Tensor | None) -> Tensor:
        if x is None:
            return first.new_empty(0)
        return empty_packed(x) if x.dim() == 3 else x.new_empty(x.shape)

    return [one(x) for x in inputs]


def given(gradients: Sequence[Tensor], inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients of the given inputs, and None for the absent ones; any shape goes."""
    return [None if x is None else y for x, y in zip(inputs, gradients, strict=True)]


def recomputed_gradients(
    function: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Tensor | None],
    d_outs: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Differentiate ``function(*inputs)`` by running it again under autograd.

    Outputs whose gradient is None do not count. All may have any shape; a gradient has its input's.

    Inside of an operator autograd is switched off below ``torch.enable_grad``, by dispatch keys
    that are excluded for this thread; for the duration of the call they are let in again.
    """
    keys = torch._C.DispatchKey
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.AutogradFunctionality, keys.AutogradOther, keys.ADInplaceOrView):
        excluded = excluded.remove(key)
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        outs = function(*leaves)
        counted = [(y, d_y) for y, d_y in zip(outs, d_outs, strict=True) if d_y is not None]
        ys, d_ys = zip(*counted, strict=True)
        wanted = [x for x in leaves if x is not None]
        gradients = iter(torch.autograd.grad(ys, wanted, d_ys))
        return [None if x is None else next(gradients) for x in leaves]
