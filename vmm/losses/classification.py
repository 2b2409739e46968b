"""Losses of classes and of numbers to predict.

Shape legend: see ``vmm.types``; here K is the number of classes.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

ProblemType = Literal["single_label", "multi_label", "regression"]
"""One class of each clip, any number of classes, or numbers to predict."""


def classification_loss(outputs: Tensor, targets: Tensor, problem_type: ProblemType) -> Tensor:
    """Cross-entropy, binary cross-entropy of each class, or squared error; mean over the batch.

    Args:
        outputs: (B, K) float, what the model says: logits, or the numbers themselves.
        targets: (B, K) float32: probabilities of the classes, which may be mixed; 1 for each class
            that there is; or the numbers.
        problem_type: Which of the three.

    Returns:
        A scalar, float32.
    """
    outputs = outputs.float()
    if problem_type == "single_label":
        return F.cross_entropy(outputs, targets)
    if problem_type == "multi_label":
        return F.binary_cross_entropy_with_logits(outputs, targets)
    return F.mse_loss(outputs, targets)


def smooth(targets: Tensor, smoothing: float) -> Tensor:
    """Give every class a share of the target (label smoothing, Szegedy et al. 2015).

    Args:
        targets: (B, K) float32 probabilities.
        smoothing: What is taken off and spread evenly over all K classes.

    Returns:
        (B, K) float32 probabilities.
    """
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def merge_views(outputs: Tensor, problem_type: ProblemType) -> Tensor:
    """Merge what a model says of several views of a sample, as published.

    That is the mean of the probabilities, not of the logits.

    Args:
        outputs: (B, V, K) float, of V views; logits, or numbers.
        problem_type: As for ``classification_loss``.

    Returns:
        (B, K) probabilities, or numbers, of the same type.
    """
    if problem_type == "single_label":
        outputs = outputs.softmax(-1)
    elif problem_type == "multi_label":
        outputs = outputs.sigmoid()
    return outputs.mean(1)
