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


def all_gather(x: Tensor, gradient: GatherGradient, rows: list[int] | None = None) -> Tensor:
    """Concatenate the rows of all processes, in the order of their ranks.

    Data-parallel training averages the parameter gradients of W processes. When each of them
    computes the same loss over all rows, the averaged gradient is

    - ``exact``: the gradient of that loss; backward sums what every process says about a row.
    - ``local``: 1/W of it for everything below ``x``, since backward keeps only what the process
      itself says about its own rows. The published system trained like this.
    - ``none``: zero; for indices and metrics.

    Args:
        x: (B, ...) any dtype; all but B is the same on every process.
        gradient: What backward does.
        rows: B of every process, as from ``rows_of_all``; None = all the same.

    Returns:
        (sum of B, ...).
    """
    if gradient == "none":
        x = x.detach()
    if world_size() == 1:
        return x
    gathered: Tensor = _AllGather.apply(x, gradient, rows or [len(x)] * world_size())
    return gathered


def rows_of_all(x: Tensor) -> list[int]:
    """Say how many rows x (rows, ...) has in each process: fewer where samples were left out."""
    if world_size() == 1:
        return [len(x)]
    own = torch.tensor([len(x)], device=x.device)
    return [int(rows) for rows in all_gather(own, "none").tolist()]


def share(count: Tensor | int, device: torch.device) -> Tensor | float:
    """Weigh a mean over ``count`` things of this process.

    Training averages gradients over processes, so with this weight they are those of the mean over
    all things of all processes, however many each of them has.

    Args:
        count: How many this process has; a scalar.
        device: Of this process.

    Returns:
        ``count`` over the mean count of all processes; 1 for a single process.
    """
    if world_size() == 1:
        return 1.0
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)  # float64 in such a run
    own = torch.as_tensor(count, dtype=dtype, device=device)
    total = own.clone()
    dist.all_reduce(total)
    return own * world_size() / total.clamp(min=1)


def gather_objects(item: Any) -> list[Any]:
    """Collect one picklable object from every process, in the order of their ranks."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gradient: GatherGradient, rows: list[int]) -> Tensor:
        ctx.sum_over_ranks = gradient == "exact"  # type: ignore[attr-defined]
        ctx.rows = rows  # type: ignore[attr-defined]
        most = max(rows)
        filled = x.new_zeros((most, *x.shape[1:]))
        filled[: len(x)] = x
        gathered = x.new_empty((world_size() * most, *x.shape[1:]))
        dist.all_gather_into_tensor(gathered, filled)
        if min(rows) == most:
            return gathered
        return torch.cat(
            [part[:own] for part, own in zip(gathered.chunk(len(rows)), rows, strict=True)]
        )

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0]
        if ctx.sum_over_ranks:  # type: ignore[attr-defined]
            grad = grad.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(grad)
        rows = ctx.rows  # type: ignore[attr-defined]
        return grad.narrow(0, sum(rows[: rank()]), rows[rank()]), None, None
