"""Losses over more clips than encoders can hold: the rows of a batch, some at a time.

Gradient caching (Gao et al. 2021, arXiv 2101.06983): forward keeps what the encoders say about
each part of a batch and forgets how they came to it, the losses look at all of it at once, and
backward lets one part after the other through the encoders again, with the same dropout. Losses
and gradients are those of the whole batch. Each part is a checkpoint of PyTorch, in one graph, so
nothing that looks at a backward (DDP, FSDP, gradient clipping) sees a difference.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vmm.ops.tuning.cpu_memory import keep_freed_memory, return_freed_memory

logger = logging.getLogger(__name__)

_R = TypeVar("_R")

_LARGEST_OF_A_PART = 2**25
"""Bytes; larger tensors are those of a whole batch, of which a step needs each once."""


class Parts:
    """Consecutive rows of a batch.

    Args:
        rows: B, of the whole batch.
        size: Rows of a part; the last one may have fewer. None: there is one part.
    """

    def __init__(self, rows: int, size: int | None) -> None:
        self.size = max(rows, 1) if size is None else size
        self.number = max(1, math.ceil(rows / self.size))

    @property
    def whole(self) -> bool:
        """Whether the batch is in one part, for which nothing is done twice."""
        return self.number == 1

    def __call__(self, function: Callable[..., _R], *batch: Any) -> list[_R]:
        """Apply a function to every part; of several, backward does each anew.

        Args:
            function: Of the arguments below; it may draw random numbers, and draws the same ones
                again.
            batch: Tensors (B, ...), tuples of such, None, or lists of what is in parts already.
        """
        if self.whole:
            return [function(*batch)]

        def apart(*rows: Any) -> _R:
            with _weights_cast_anew():
                return function(*rows)

        def recomputed(*rows: Any) -> _R:
            if not torch.is_grad_enabled():
                return function(*rows)
            result: _R = checkpoint(apart, *rows, use_reentrant=False)
            return result

        results = [recomputed(*rows) for rows in zip(*map(self.split, batch), strict=True)]
        return_freed_memory()  # holes between the results, too small for the next part
        return results

    def split(self, x: Any) -> list[Any]:
        """Return the rows of each part."""
        if isinstance(x, list):
            return x
        if isinstance(x, tuple):
            return [type(x)(*fields) for fields in zip(*map(self.split, x), strict=True)]
        # The gradient of a slice would be as large as the whole, for each part.
        return [None] * self.number if x is None else list(torch.split(x, self.size))

    def counts(self, rows: Tensor) -> Tensor:
        """Sum what every row (B,) counts, for each part: (parts,)."""
        return torch.stack([part.sum() for part in self.split(rows)])


def joined(parts: Sequence[_R]) -> _R:
    """Put the rows of named tuples of tensors together again."""
    first: Any = parts[0]
    if len(parts) == 1:
        return parts[0]
    columns: Any = zip(*(cast(Any, parts)), strict=True)
    result: _R = type(first)(*(None if x[0] is None else torch.cat(x) for x in columns))
    return result


def mean_of_means(means: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over all of what parts give the means of.

    Args:
        means: (parts,).
        counts: (parts,) int64, how many each is the mean of.
    """
    if len(means) == 1:
        return means[0]
    weights = counts.to(means)
    return (means * weights).sum() / weights.sum().clamp(min=1)


def keep_little() -> None:
    """Let the tensors of a whole batch go back to the system when they are freed."""
    keep_freed_memory(_LARGEST_OF_A_PART)


def say_of_accumulation(batches: int) -> None:
    """Say, if gradients are accumulated over batches, what that does not do.

    Args:
        batches: As ``trainer.accumulate_grad_batches``.
    """
    if batches > 1:
        logger.warning(
            "accumulate_grad_batches %d adds no negatives, since each batch is contrasted with "
            "itself alone; for more of them raise data.init_args.batch_size, and set "
            "model.init_args.micro_batch to the clips that memory has room for",
            batches,
        )


@contextmanager
def _weights_cast_anew() -> Iterator[None]:
    """Let autocast cast the weights for each part.

    If it kept them, the gradients of all parts would be summed in bfloat16.
    """
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
