"""Loss of an answer decoder under teacher forcing.

Shape legend: see ``vmm.types``; M answers, A words of an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def weigh_answers(answers: Sequence[Sequence[str]]) -> tuple[list[str], Tensor, Tensor]:
    """List what people answered to each question once, by how many of them did.

    Args:
        answers: Of each question, repeated ones included, at least one.

    Returns:
        M different answers, (M,) int64 rows of their questions, and (M,) float32 weights that are
        1 in sum for each question.
    """
    texts, rows, weights = [], [], []
    for row, given in enumerate(answers):
        for text, count in Counter(given).items():
            texts.append(text)
            rows.append(row)
            weights.append(count / len(given))
    return (
        texts,
        torch.tensor(rows, dtype=torch.int64, device="cpu"),
        torch.tensor(weights, dtype=torch.float32, device="cpu"),
    )


def answer_loss(log_likelihood: Tensor, weights: Tensor, num_questions: int) -> Tensor:
    """Negative log-likelihood of the answers, by weight, mean over the questions.

    Args:
        log_likelihood: (M,) float32, of whole answers: the sum over their words.
        weights: (M,), from ``weigh_answers``.
        num_questions: Questions of the batch.

    Returns:
        Scalar.
    """
    return -(log_likelihood * weights).sum() / num_questions
