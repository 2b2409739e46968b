"""Scores from anywhere: what they are worth, and what is off with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vmm.evaluation.common.features import Clip
from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.retrieval.lint import lint
from vmm.evaluation.retrieval.protocols import protocol_of, read_protocol, read_training_ids
from vmm.evaluation.retrieval.results import metrics_table
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import retrieval_metrics


def lint_file(
    file: Path,
    dataset: str,
    annotations: Path,
    ids: Path | None = None,
    train_ids: Path | None = None,
    reported: dict[str, float] | None = None,
) -> str:
    """Measure scores and list what is off with them, for the terminal.

    Args:
        file: See ``read_scores``; texts by videos in the order of the annotations.
        dataset: Of ``PROTOCOLS``, what they are called.
        annotations: Its official file.
        ids: List of the ids to keep of it.
        train_ids: Ids or annotations of what the model was trained on.
        reported: Somebody's R@1 of these scores, by "t2v" and "v2t".

    Raises:
        ValueError: If a file cannot be read or the shapes differ.
    """
    items = read_protocol(dataset, annotations, ids)
    training = read_training_ids(train_ids) if train_ids else frozenset()
    clips = [Clip(item.key, item.captions, None, None) for item in items]
    similarity = read_scores(file)
    subject = Subject(clips, protocol_of(dataset), training, similarity, reported)
    if subject.scores is None:
        texts, videos = subject.relevant.shape
        raise ValueError(
            f"{file} is {tuple(similarity.shape)}; the annotations hold {texts} captions of "
            f"{videos} videos, so it must be ({texts}, {videos})"
        )
    metrics = retrieval_metrics(subject.scores, subject.relevant)
    return metrics_table(metrics) + "\n" + findings_text(lint(subject))


def read_scores(path: Path) -> Tensor:
    """Read a score matrix (num_texts, num_videos), or its transpose, of any precision.

    Args:
        path: ``.npy``, or ``.safetensors`` with one tensor.

    Raises:
        ValueError: If there is no such file, or it is no matrix of numbers.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = list(load_file(path).values())
            scores = tensors[0] if len(tensors) == 1 else torch.empty(0)
        else:
            scores = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no .npy or .safetensors of one matrix: {error}") from error
    if scores.dim() != 2 or not scores.numel() or not scores.is_floating_point():
        raise ValueError(f"{path} holds {tuple(scores.shape)} {scores.dtype}, no matrix of scores")
    if bool((scores.isnan() | (scores == torch.inf)).any()):
        raise ValueError(
            f"{path} holds NaN or infinity: the model's weights or its input are broken"
        )
    return scores
