"""What is off with scores from anywhere, texts by videos in the order of the annotation file.

python -m eval.lint scores.npy --dataset msrvtt-1ka --annotations MSRVTT_JSFUSION_test.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vmm.command_line import CommandParser, percent, run_to_status
from vmm.evaluation.common.features import Clip
from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.retrieval.lint import lint
from vmm.evaluation.retrieval.protocols import (
    PROTOCOLS,
    protocol_of,
    read_protocol,
    read_training_ids,
)
from vmm.evaluation.retrieval.results import metrics_table
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import retrieval_metrics
from vmm.text_output import say


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


def _check(options: argparse.Namespace) -> str:
    protocol = protocol_of(options.dataset)
    items = read_protocol(options.dataset, options.annotations, options.ids)
    training = read_training_ids(options.train_ids) if options.train_ids else frozenset()
    reported = {d: v for d in ("t2v", "v2t") if (v := getattr(options, d)) is not None}
    clips = [Clip(item.key, item.captions, None, None) for item in items]
    similarity = read_scores(options.scores)
    subject = Subject(clips, protocol, training, similarity, reported)
    if subject.scores is None:
        texts, videos = subject.relevant.shape
        raise ValueError(
            f"{options.scores} is {tuple(similarity.shape)}; the annotations hold {texts} captions "
            f"of {videos} videos, so it must be ({texts}, {videos})"
        )
    metrics = retrieval_metrics(subject.scores, subject.relevant)
    return metrics_table(metrics) + "\n" + findings_text(lint(subject))


def main(args: Sequence[str] | None = None) -> int:
    """Print metrics and findings; status 2 for a mistake in what it was given."""
    parser = CommandParser(
        prog="python -m eval.lint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scores", type=Path, help=".npy or .safetensors, texts by videos, higher is better")
    add("--dataset", required=True, help=f"what it is called: {', '.join(PROTOCOLS)}")
    add("--annotations", type=Path, required=True, help="the official annotation file")
    add("--ids", type=Path, help="list of the ids to keep of it")
    add("--train-ids", type=Path, help="ids or annotations of what the model was trained on")
    add("--t2v", type=percent, help="the text-to-video R@1 that was reported")
    add("--v2t", type=percent, help="the video-to-text R@1 that was reported")
    options = parser.parse_args(args)
    return run_to_status("eval.lint", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    say(_check(options), lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
