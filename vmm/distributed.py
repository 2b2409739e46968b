"""Processes of one run: who am I, and gathering with an explicit rule for the gradient.

A single process needs no ``torch.distributed``: every function is then the identity.
Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

GatherGradient = Literal["exact", "local", "none"]


def world_size() -> int:
    """Number of processes, 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 outside distributed training."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_gather(x: Tensor, gradient: GatherGradient) -> Tensor:
    """Concatenate the rows of all processes, in the order of their ranks.

    Data-parallel training averages the parameter gradients of W processes. When each of them
    computes the same loss over all rows, the averaged gradient is

    - ``exact``: the gradient of that loss; backward sums what every process says about a row.
    - ``local``: 1/W of it for everything below ``x``, since backward keeps only what the process
      itself says about its own rows. The published system trained like this.
    - ``none``: zero; for indices and metrics.

    Args:
        x: (B, ...) any dtype; B and the rest are the same on every process.
        gradient: What backward does.

    Returns:
        (W * B, ...).
    """
    if gradient == "none":
        x = x.detach()
    if world_size() == 1:
        return x
    gathered: Tensor = _AllGather.apply(x, gradient)
    return gathered


def gather_objects(item: Any) -> list[Any]:
    """Collect one picklable object from every process, in the order of their ranks."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gradient: GatherGradient) -> Tensor:
        ctx.sum_over_ranks = gradient == "exact"  # type: ignore[attr-defined]
        gathered = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
        dist.all_gather_into_tensor(gathered, x.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0]
        if ctx.sum_over_ranks:  # type: ignore[attr-defined]
            grad = grad.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()], None
