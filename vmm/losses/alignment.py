"""Alignment of the student's visible tokens to the frozen teacher (UTA).

UMT (arXiv 2303.16058), section 3.2; VideoMamba (arXiv 2403.06977), section 3.3. Shape legend: see
``vmm.types``; E is the teacher's width, K the number of aligned layers, L counts visible tokens,
class token included.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.op_tools import at_least_float32

AlignmentKind = Literal["l2", "mse", "smooth_l1"]


def alignment_loss(student: Tensor, teacher: Tensor, kind: AlignmentKind = "l2") -> Tensor:
    """Mean distance of student and teacher tokens, both normalised to unit length.

    Args:
        student: (K, B, L, E).
        teacher: (K, B, L, E); layer k of the student is compared with layer k of the teacher.
        kind: ``l2`` is 2 - 2 cos, as published: the squared distance of the unit vectors. ``mse``
            and ``smooth_l1`` average over E too, so they are smaller by about E.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: If the tokens of both do not correspond.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student tokens {tuple(student.shape)} and teacher tokens {tuple(teacher.shape)} "
            "do not correspond; give both the same layers, frames, patch grid, mask and width"
        )
    with torch.autocast(student.device.type, enabled=False):
        s = F.normalize(at_least_float32(student), dim=-1)
        t = F.normalize(at_least_float32(teacher), dim=-1)
        if kind == "l2":
            return (2 - 2 * (s * t).sum(-1)).mean()
        if kind == "mse":
            return F.mse_loss(s, t)
        return F.smooth_l1_loss(s, t)
