"""Blocks over sequences of any length: piece by piece, exactly, in little memory.

A bidirectional block needs the whole sequence only through the state of its scans. So one pass over
the pieces per scan, from the last to the first for the backward branch, keeps the sum of what they
give, and a last pass from the first piece to the last does everything else. Besides the residual
stream and that one sum, memory holds a single piece. Every scan takes its own path through the
tokens (``vmm.models.scan_order``). Shape legend: see ``vmm.models.mamba``; P tokens in a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vmm.models.mamba import BiMambaBlock
from vmm.models.scan_order import IN_MEMORY_ORDER, PathScan, Permutation, scaled

_Call = Callable[..., Any]


class _Scan(NamedTuple):
    """One directed scan along a path; None: along the tokens as they lie."""

    path: Permutation | None
    reverse: bool


def mix_in_pieces(
    block: BiMambaBlock,
    residual: Tensor,
    length: int,
    scans: tuple[PathScan, ...] = IN_MEMORY_ORDER,
) -> Tensor:
    """Return ``block(residual, scans)``; its gradient recomputes one piece at a time.

    Activation checkpointing of pieces instead of blocks: the backward pass never holds more than
    one piece of a block's inner tensors, however long the sequence is.

    Args:
        block: The block.
        residual: (B, L, D).
        length: Tokens per piece.
        scans: What the block does.
    """

    def recomputed(function: _Call, *inputs: Any) -> Any:
        return checkpoint(function, *inputs, use_reentrant=False)

    *others, last = _directed(scans)
    total: Tensor | None = None
    for scan in others:
        pieces = _in_turn(torch.split(_along(residual, scan.path), length, 1), scan.reverse)
        found = list(_scanned(block, residual, pieces, scan.reverse, recomputed))
        y = torch.cat(_in_turn(found, scan.reverse), 1)
        y = y if scan.path is None else scan.path.undo(y)
        total = y if total is None else total + y
    assert total is not None
    parts = (torch.split(_along(x, last.path), length, 1) for x in (residual, total))
    mixed = torch.cat(list(_mixed(block, residual, zip(*parts, strict=True), recomputed)), 1)
    return scaled(mixed if last.path is None else last.path.undo(mixed), scans)


@torch.no_grad()
def add_in_pieces(
    block: BiMambaBlock,
    residual: Tensor,
    others: Tensor,
    length: int,
    report: Callable[[int], object] | None = None,
    scans: tuple[PathScan, ...] = IN_MEMORY_ORDER,
) -> None:
    """Compute ``residual += block(residual, scans)`` in place, without a gradient.

    Args:
        block: The block.
        residual: (B, L, D) of any floating type; computed in float32 at least.
        others: (B, L, E), memory for the sum of all scans but the last.
        length: Tokens per piece.
        report: Called with the number of tokens done; B L per scan.
        scans: What the block does, along paths that are the same for the whole batch.
    """

    def called(function: _Call, piece: Tensor, *inputs: Any) -> Any:
        if report is not None:
            report(piece.shape[0] * piece.shape[1])
        return function(piece, *inputs)

    *first, last = _directed(scans)
    for number, scan in enumerate(first):
        places = _in_turn(_places(residual, scan.path, length), scan.reverse)
        pieces = (residual[:, at] for at in places)
        found = _scanned(block, residual, pieces, scan.reverse, called)
        for at, y in zip(places, found, strict=True):
            others[:, at] = y if number == 0 else others[:, at] + y
    places = _places(residual, last.path, length)
    pairs = ((residual[:, at], others[:, at]) for at in places)
    for at, mixed in zip(places, _mixed(block, residual, pairs, called), strict=True):
        residual[:, at] += scaled(mixed, scans)


def _directed(scans: tuple[PathScan, ...]) -> list[_Scan]:
    """List the scans one by one; the last goes from the first token to the last."""
    ways = [_Scan(scan.path, True) for scan in scans if scan.backward]
    return ways + [_Scan(scan.path, False) for scan in reversed(scans) if scan.forward]


def _along(x: Tensor, path: Permutation | None) -> Tensor:
    return x if path is None else path.apply(x)


def _in_turn(pieces: Iterable[Any], reverse: bool) -> list[Any]:
    """Put pieces into the order in which they are scanned, or back."""
    return list(pieces)[::-1] if reverse else list(pieces)


def _places(x: Tensor, path: Permutation | None, length: int) -> list[Any]:
    """Say where in (B, L, ...) the tokens of every piece lie: slices, or indices (P,)."""
    if path is not None:
        return list(torch.split(path.rows, length))
    return [slice(i, min(i + length, x.shape[1])) for i in range(0, x.shape[1], length)]


def _scanned(
    block: BiMambaBlock, like: Tensor, pieces: Iterable[Tensor], reverse: bool, call: _Call
) -> Iterator[Tensor]:
    """Scan pieces (B, P, D) in turn: (B, P, E) of each."""
    context, state = block.beginning(like)
    for piece in pieces:
        y, context, state = call(block.scan_piece, piece, context, state, reverse)
        yield y


def _mixed(
    block: BiMambaBlock, like: Tensor, pairs: Iterable[tuple[Tensor, Tensor]], call: _Call
) -> Iterator[Tensor]:
    """Finish pieces (B, P, D), each with the sum (B, P, E) of its other scans: (B, P, D)."""
    context, state = block.beginning(like)
    for piece, others in pairs:
        mixed, context, state = call(block.mix_piece, piece, others, context, state)
        yield mixed
