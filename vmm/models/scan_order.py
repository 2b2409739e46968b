"""Scan orders: the sequences in which the blocks of an encoder scan the tokens of a clip.

VideoMamba (arXiv 2403.06977), section 4.3 and figure 7a, names seven. The published code has the
first alone; what the others are is read off the paper. There are two paths through a clip of T
frames of N patches, both behind the class token: the spatial one takes patch p of frame t as token
1 + t * N + p, the temporal one as token 1 + p * T + t. Positions were added before, so only the
order of mixing changes. Shape legend: see ``vmm.types``; V visible tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from vmm.masking import gather_visible

ScanPath = Literal["spatial", "temporal"]
ScanOrder = Literal[
    "spatial",
    "temporal",
    "st_v1",
    "st_v2",
    "half_spatial_then_temporal",
    "half_temporal_then_spatial",
    "alternating",
]


class Permutation(NamedTuple):
    """A path through tokens that lie in memory in another order."""

    rows: Tensor
    """(L,) int64, the token of every place of the path; or (B, L), counted over the whole batch."""
    inverse: Tensor
    """The same for the way back."""

    def apply(self, x: Tensor) -> Tensor:
        """Put (B, L, ...) in the order of the path."""
        return _take(x, self.rows, self.inverse)

    def undo(self, x: Tensor) -> Tensor:
        """Put (B, L, ...) back in the order of memory."""
        return _take(x, self.inverse, self.rows)

    def reversed(self) -> Permutation:
        """Return the way back."""
        return Permutation(self.inverse, self.rows)


class PathScan(NamedTuple):
    """What a block does along one path."""

    path: Permutation | None
    """None: as the tokens lie in memory."""
    forward: bool
    """Scan from the first token to the last with the block's forward branch."""
    backward: bool
    """Scan from the last token to the first with its backward branch."""


IN_MEMORY_ORDER = (PathScan(None, True, True),)
"""Both directions along the tokens as they lie."""


def num_scans(scans: tuple[PathScan, ...]) -> int:
    """Count the directed scans."""
    return sum(scan.forward + scan.backward for scan in scans)


def scaled(mixed: Tensor, scans: tuple[PathScan, ...]) -> Tensor:
    """Scale the sum of a block's scans, of any shape, to the size of the usual two."""
    count = num_scans(scans)
    return mixed if count == 2 else mixed * (2 / count)


class BlockOrder(NamedTuple):
    """The directed scans of a block.

    Their outputs are summed; where they are more than the usual two, the sum is scaled to the size
    of two.
    """

    forward: tuple[ScanPath, ...]
    """Paths that the forward branch takes."""
    backward: tuple[ScanPath, ...]
    """Paths that the backward branch takes."""

    @property
    def home(self) -> ScanPath:
        """The path in whose order the block wants its tokens to lie."""
        return self.forward[0]

    def scans(self, temporal: Permutation | None, memory: ScanPath) -> tuple[PathScan, ...]:
        """Say what a block does with its tokens.

        Args:
            temporal: The temporal path, from the spatial one; None where both are one.
            memory: The path in whose order the tokens lie.
        """
        if temporal is None:
            return IN_MEMORY_ORDER
        away = temporal if memory == "spatial" else temporal.reversed()
        return tuple(
            PathScan(None if path == memory else away, path in self.forward, path in self.backward)
            for path in dict.fromkeys((*self.forward, *self.backward))
        )


SPATIAL = BlockOrder(("spatial",), ("spatial",))
TEMPORAL = BlockOrder(("temporal",), ("temporal",))
ST_V1 = BlockOrder(("spatial",), ("temporal",))
ST_V2 = BlockOrder(("spatial", "temporal"), ("spatial", "temporal"))


def _alike(order: BlockOrder) -> Callable[[int], list[BlockOrder]]:
    return lambda depth: [order] * depth


def _halves(first: BlockOrder, second: BlockOrder) -> Callable[[int], list[BlockOrder]]:
    return lambda depth: [first] * (depth // 2) + [second] * (depth - depth // 2)


def _in_turns(*orders: BlockOrder) -> Callable[[int], list[BlockOrder]]:
    return lambda depth: [orders[i % len(orders)] for i in range(depth)]


SCAN_ORDERS: dict[ScanOrder, Callable[[int], list[BlockOrder]]] = {
    "spatial": _alike(SPATIAL),
    "temporal": _alike(TEMPORAL),
    "st_v1": _alike(ST_V1),
    "st_v2": _alike(ST_V2),
    "half_spatial_then_temporal": _halves(SPATIAL, TEMPORAL),
    "half_temporal_then_spatial": _halves(TEMPORAL, SPATIAL),
    "alternating": _in_turns(SPATIAL, TEMPORAL),
}
"""The orders of the layers of an encoder, by its number of layers."""


def block_orders(scan_order: ScanOrder, depth: int) -> list[BlockOrder]:
    """Return the order of every layer.

    Raises:
        ValueError: If there is no scan order of that name.
    """
    if scan_order not in SCAN_ORDERS:
        raise ValueError(
            f"scan_order {scan_order!r} is not known; choose one of {', '.join(SCAN_ORDERS)}"
        )
    return SCAN_ORDERS[scan_order](depth)


def temporal_path(
    steps: int, patches: int, device: torch.device, dropped: Tensor | None = None
) -> Permutation | None:
    """Return the temporal path through a clip whose tokens lie along the spatial one.

    Args:
        steps: Steps T of time.
        patches: Patches N of one step.
        device: Where the tokens are.
        dropped: (B, 1 + T * N) bool, True = hidden; the path leads through what is visible.

    Returns:
        None where both paths are one: images, and frames of a single patch.
    """
    if 1 in (steps, patches):
        return None
    # A graph computes its own; what modes such as fake tensors make must not be kept.
    traced = torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
    whole = (_whole_path if traced else _kept_path)(steps, patches, device)
    if dropped is None:
        return whole
    places = gather_visible(whole.inverse.expand(len(dropped), -1), dropped)
    rows = places.argsort(1)
    first = rows.shape[1] * torch.arange(len(rows), device=device).unsqueeze(1)
    return Permutation(rows + first, rows.argsort(1) + first)


def _whole_path(steps: int, patches: int, device: torch.device) -> Permutation:
    cls = torch.zeros(1, dtype=torch.int64, device=device)
    tokens = torch.arange(1, 1 + steps * patches, device=device)
    rows, inverse = (
        tokens.view(grid).t().flatten() for grid in ((steps, patches), (patches, steps))
    )
    return Permutation(torch.cat([cls, rows]), torch.cat([cls, inverse]))


@functools.lru_cache(maxsize=32)
def _kept_path(steps: int, patches: int, device: torch.device) -> Permutation:
    with torch.inference_mode(False):  # training may be the next to use it
        return _whole_path(steps, patches, device)


def _take(x: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        taken: Tensor = _Take.apply(x, rows, inverse)
        return taken
    return _rows_of(x, rows)


class _Take(torch.autograd.Function):
    """The gradient is a permutation, too: PyTorch's own would add rows to zeros, which is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(rows, inverse)
        return _rows_of(x, rows)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        rows, inverse = ctx.saved_tensors
        return _take(d_out, inverse, rows), None, None


def _rows_of(x: Tensor, rows: Tensor) -> Tensor:
    if rows.dim() == 1:
        return x.index_select(1, rows)
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(x.shape)
