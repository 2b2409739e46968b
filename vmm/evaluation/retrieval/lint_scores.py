"""Mistakes in score matrices. Each check yields what it finds, nothing for sound scores."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vmm.evaluation.common.findings import Finding
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import (
    TiedRanks,
    hit_probability,
    retrieval_metrics,
    text_to_video_ranks,
    video_to_text_ranks,
)
from vmm.text_output import number_of


def direction(subject: Subject) -> Iterator[Finding]:
    """Scores, or reported numbers, of the other direction."""
    similarity, scores = subject.similarity, subject.scores
    if similarity is None or scores is None:
        return
    r1 = {
        "t2v": 100 * hit_probability(text_to_video_ranks(scores, subject.relevant), 1).mean(),
        "v2t": 100 * hit_probability(video_to_text_ranks(scores, subject.relevant), 1).mean(),
    }
    both = f"text-to-video R@1 is {r1['t2v']:.1f}, video-to-text {r1['v2t']:.1f}"
    if similarity.shape != scores.shape:
        yield Finding(
            "direction-swapped", "the scores are videos by texts, not texts by videos", both
        )
    said = subject.reported or {}
    other = {"t2v": "v2t", "v2t": "t2v"}
    near = {d: [k for k in r1 if abs(float(r1[k]) - value) < 0.06] for d, value in said.items()}
    if said and all(near[d] == [other[d]] for d in said):
        yield Finding(
            "direction-swapped",
            f"what is reported as {' and '.join(said)} is the other direction "
            "(txt_r1 is video-to-text, img_r1 text-to-video)",
            both,
        )


def precision(subject: Subject) -> Iterator[Finding]:
    """Scores that were computed or stored in half precision."""
    similarity, scores = subject.similarity, subject.scores
    if similarity is None or scores is None:
        return
    finite = scores[scores.isfinite()]
    kinds = (torch.bfloat16, torch.float16)
    half = next((k for k in kinds if similarity.dtype == k), None) or next(
        (k for k in kinds if len(finite) and bool((finite.to(k).float() == finite).all())), None
    )
    if half is not None and bool((finite != finite[0]).any()):
        metrics = retrieval_metrics(scores, subject.relevant)
        yield Finding(
            "half-precision",
            f"the scores have the precision of {str(half).removeprefix('torch.')}, which ties "
            f"{number_of(int(metrics['ties']), 'query', 'queries')}",
            _tie_effect(scores, subject.relevant),
        )


def ties(subject: Subject) -> Iterator[Finding]:
    """Equal scores, which any order can be made of."""
    scores = subject.scores
    if scores is None:
        return
    finite = scores[scores.isfinite()]
    if len(finite) > 1 and bool((finite == finite[0]).all()):
        yield Finding(
            "constant-scores",
            f"all scores are {finite[0].item():.4g}: the model has collapsed",
            _tie_effect(scores, subject.relevant),
        )
        return
    ties = retrieval_metrics(scores, subject.relevant)["ties"]
    if ties:
        yield Finding(
            "tied-scores",
            f"{number_of(int(ties), 'query has', 'queries have')}"
            " a wrong candidate with exactly the right one's score",
            _tie_effect(scores, subject.relevant),
        )


def _tie_effect(scores: Tensor, relevant: Tensor) -> str:
    """Say what the order of equal scores changes, for each direction that has some."""
    directions = {
        "text-to-video": text_to_video_ranks(scores, relevant),
        "video-to-text": video_to_text_ranks(scores, relevant),
    }
    said = (
        f"{name} {_recall_of_ties(ranks)}"
        for name, ranks in directions.items()
        if bool((ranks.tied > ranks.targets).any())
    )
    return "; ".join(said) or "no query's right candidate is tied with a wrong one"


def _recall_of_ties(ranks: TiedRanks) -> str:
    fair = 100 * hit_probability(ranks, 1).mean()
    first = (ranks.better == 0) & (ranks.targets > 0)
    best = 100 * first.double().mean()
    worst = 100 * (first & (ranks.tied == ranks.targets)).double().mean()
    if best == worst:
        return f"R@1 is {fair:.1f} however ties are broken"
    return (
        f"R@1 is anything from {worst:.1f} to {best:.1f}, as ties are broken; {fair:.1f} expected"
    )
