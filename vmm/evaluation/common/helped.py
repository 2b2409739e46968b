"""Whether a video helped a model: its answers against those of controls that see none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vmm.evaluation.common.clustered import Estimate


class Readable(NamedTuple):
    """What was answered where the video could be read: elsewhere it neither helps nor harms."""

    values: dict[str, Tensor]
    """Model or control -> (n,) percent."""
    clusters: Tensor
    """(n,) the video of each."""
    where: str
    """Words that say so; empty if all could be read."""


def of_readable(values: Mapping[str, Tensor], clusters: Tensor, read: Sequence[bool]) -> Readable:
    """Leave out what was asked about videos that could not be read.

    Args:
        values: Model or control -> (Q,) percent.
        clusters: (Q,) the video of each question.
        read: Of each question, whether its video could be read; at least one.
    """
    rows = torch.tensor(read)
    where = "" if rows.all() else " where the video could be read"
    return Readable({name: x[rows] for name, x in values.items()}, clusters[rows], where)


def said_of(gain: Estimate, harms: str = "The video harms") -> str:
    """Say what the video did, where it is beyond three errors.

    Args:
        gain: What a model is above the best control.
        harms: What is said where it is below.
    """
    if gain.errors_above_zero > 3:
        return "The video helps"
    return harms if gain.errors_above_zero < -3 else "No sign that the video helps"
