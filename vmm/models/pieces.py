"""Blocks over sequences of any length: piece by piece, exactly, in little memory.

A bidirectional block needs the whole sequence only through the state of its scan. So one pass from
the last piece to the first does the reversed direction and keeps its output, and a second pass from
the first piece to the last does everything else. Besides the residual stream and that one output,
memory holds a single piece. Shape legend: see ``vmm.models.mamba``; P tokens in a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vmm.models.mamba import BiMambaBlock


def mix_in_pieces(block: BiMambaBlock, residual: Tensor, length: int) -> Tensor:
    """Return ``block(residual)``; its gradient recomputes one piece at a time.

    Activation checkpointing of pieces instead of blocks: the backward pass never holds more than
    one piece of a block's inner tensors, however long the sequence is.

    Args:
        block: The block.
        residual: (B, L, D).
        length: Tokens per piece.
    """

    def recomputed(function: Callable[..., Any], *inputs: Tensor) -> Any:
        return checkpoint(function, *inputs, use_reentrant=False)

    return torch.cat([mixed for _, mixed in _pieces(block, residual, length, recomputed)], 1)


@torch.no_grad()
def add_in_pieces(
    block: BiMambaBlock,
    residual: Tensor,
    back: Tensor,
    length: int,
    report: Callable[[int], object] | None = None,
) -> None:
    """Compute ``residual += block(residual)`` in place, without a gradient.

    Args:
        block: The block.
        residual: (B, L, D) of any floating type; computed in float32 at least.
        back: (B, L, E), memory for the output of the reversed direction.
        length: Tokens per piece.
        report: Called with the number of tokens done; 2 B L in all.
    """

    def called(function: Callable[..., Any], *inputs: Tensor) -> Any:
        if report is not None:
            report(inputs[0].shape[0] * inputs[0].shape[1])
        return function(*inputs)

    for at, mixed in _pieces(block, residual, length, called, back):
        residual[:, at] += mixed


def _pieces(
    block: BiMambaBlock,
    residual: Tensor,
    length: int,
    call: Callable[..., Any],
    back: Tensor | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield every piece and the block's output for it; the caller may then overwrite the piece."""
    total = residual.shape[1]
    spans = [slice(i, min(i + length, total)) for i in range(0, total, length)]
    kept: dict[int, Tensor] = {}
    context, state = block.beginning(residual)
    for at in reversed(spans):
        y, context, state = call(block.scan_back, residual[:, at], context, state)
        if back is None:
            kept[at.start] = y
        else:
            back[:, at] = y
    context, state = block.beginning(residual)
    for at in spans:
        y = kept.pop(at.start) if back is None else back[:, at]
        mixed, context, state = call(block.mix_piece, residual[:, at], y, context, state)
        yield at, mixed
