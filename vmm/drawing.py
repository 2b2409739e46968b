"""Random numbers that belong to a sample, in whichever process and row of a batch it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Uniform = Callable[[int], Tensor]
"""Of a width: (B, width) float32 in [0, 1) on the CPU. A row begins alike whatever the width."""


def uniform_rows(seeds: Sequence[int], width: int) -> Tensor:
    """Draw a row of numbers for each seed, by a counter-based generator (Philox).

    Args:
        seeds: B of them, 0 or more.
        width: Numbers in a row.

    Returns:
        (B, width) float32 in [0, 1).
    """
    rows = np.empty((len(seeds), width), np.float32)
    for row, seed in zip(rows, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed)).random(dtype=np.float32, out=row)
    return torch.from_numpy(rows)


def choose(weights: Tensor, number: int, numbers: Tensor) -> Tensor:
    """Choose columns in proportion to their weights, without putting back.

    A race: column i arrives after a time that is exponential with rate ``weights[:, i]``, and the
    first ones win (Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir").

    Args:
        weights: (R, C) float, non-negative, at least ``number`` of a row above 0.
        number: Columns to choose of each row.
        numbers: (R, C) float32 in [0, 1), what chance says.

    Returns:
        (R, number) int64, on the device of ``weights``.
    """
    times = (-torch.log1p(-numbers)).clamp_min(2.0**-26)  # 0 is a number, but no time
    return (weights / times.to(weights.device)).topk(number).indices
