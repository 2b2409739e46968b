"""How alike a clip and a caption are: the one definition that losses, models and evaluation use.

Shape legend: see ``vmm.types``; E is the width of the joint space, Bv and Bt count clips and texts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.op_tools import at_least_float32


def mean_unit(video: Tensor) -> Tensor:
    """Normalise every pooled vector of (B, P, E), then average over P: (B, E) float32."""
    return F.normalize(at_least_float32(video), dim=-1).mean(1)


def frame_similarity(video: Tensor, text: Tensor) -> Tensor:
    """Mean over pooled vectors of their cosine with the text, in float32.

    Not the cosine of the mean: every vector is normalised on its own.

    Args:
        video: (Bv, P, E).
        text: (Bt, E).

    Returns:
        (Bv, Bt) float32 in [-1, 1].
    """
    with torch.autocast(video.device.type, enabled=False):
        return mean_unit(video) @ F.normalize(at_least_float32(text), dim=-1).T
