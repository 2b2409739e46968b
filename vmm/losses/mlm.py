"""Masked language modelling loss (MLM).

Shape legend: see ``vmm.types``; V is the size of the vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vmm.masking import IGNORED
from vmm.ops.op_tools import at_least_float32


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the hidden words, mean over all of them in the batch.

    The output layer is the dearest of the text encoder: pass the logits of the hidden positions
    only (``states[labels != IGNORED]``), the result is the same.

    Args:
        logits: (..., V).
        labels: (...) int64; ``IGNORED`` where nothing is to be guessed.

    Returns:
        Scalar, at least float32; 0, still part of the graph, when nothing is to be guessed.
    """
    logits, labels = at_least_float32(logits).flatten(0, -2), labels.flatten()
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
