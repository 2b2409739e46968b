"""Retrieval metrics that cannot be flattered by ties, and the small ones beside them.

Pure: tensors in, floats out. All rates are in percent, as in the field's tables.

A model that collapsed to one score for everything reaches a recall of 100 % when ties are broken
in its favour and 0 % when they are not, and half-precision scores are full of ties. Every number
here is therefore the expectation over a random order of equal scores (McSherry and Najork,
"Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores",
ECIR 2008), and half-precision scores are refused.

Shape legend: see ``vmm.types``; here Q is the number of queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class TiedRanks(NamedTuple):
    """Where the best target of each query stands, (Q,) int64 each."""

    better: Tensor
    """Candidates with a strictly higher score."""
    tied: Tensor
    """Candidates with the same score, targets included; 0 where the target has no score."""
    targets: Tensor
    """Targets among the tied ones."""
    candidates: int
    """Size of the gallery."""


def text_to_video_ranks(similarity: Tensor, video_of_text: Tensor) -> TiedRanks:
    """Rank videos for every text.

    Args:
        similarity: (num_texts, num_videos) float32 or float64, higher is better; ``-inf`` marks
            what could not be scored, such as an unreadable clip, and is never found.
        video_of_text: (num_texts,) int64, the column of each text's video; or, where a text is
            about several videos, (num_texts, num_videos) bool. The best-ranked one counts.

    Raises:
        ValueError: If scores are of low precision, NaN or infinite, or shapes or indices differ.
    """
    return _best_target_ranks(similarity, _relevant(similarity, video_of_text))


def video_to_text_ranks(similarity: Tensor, video_of_text: Tensor) -> TiedRanks:
    """Rank texts for every video; with several captions the best-ranked one counts.

    A video without any caption is a distractor for the other direction, not a query here.

    Args:
        similarity: (num_texts, num_videos) as in ``text_to_video_ranks``.
        video_of_text: (num_texts,) or (num_texts, num_videos) as in ``text_to_video_ranks``.

    Raises:
        ValueError: As in ``text_to_video_ranks``.
    """
    relevant = _relevant(similarity, video_of_text)
    queries = relevant.any(0)
    return _best_target_ranks(similarity.T[queries], relevant.T[queries])


def _best_target_ranks(scores: Tensor, relevant: Tensor) -> TiedRanks:
    """Rank the best target of every query: scores (Q, N), relevant (Q, N) bool."""
    own = scores.where(relevant, -torch.inf).amax(1, keepdim=True)
    found = own.squeeze(1) > -torch.inf
    best = scores == own
    return TiedRanks(
        better=(scores > own).sum(1),
        tied=best.sum(1) * found,
        targets=(best & relevant).sum(1) * found,
        candidates=scores.shape[1],
    )


def hit_probability(ranks: TiedRanks, k: int) -> Tensor:
    """Give the probability that a target is among the first k: (Q,) float64.

    With b better candidates, m tied and g targets among those, that is
    ``1 - C(m - g, k - b) / C(m, k - b)``.
    """
    better, tied, targets, _ = ranks
    places = (k - better).clamp(min=0).minimum(tied).double()
    miss = torch.ones_like(places)
    for i in range(int(targets.max()) if targets.numel() else 0):
        step = ((tied - places - i) / (tied - i)).clamp(min=0)
        miss = torch.where(i < targets, miss * step, miss)
    return 1 - miss


def expected_rank(ranks: TiedRanks) -> Tensor:
    """Give the expected rank of the best target, counted from 1: (Q,) float64.

    ``b + (m + 1) / (g + 1)``; a target without a score has the last rank.
    """
    better, tied, targets, candidates = ranks
    rank = better + (tied + 1).double() / (targets + 1)
    return torch.where(targets > 0, rank, float(candidates))


class Metric(NamedTuple):
    """A number of one direction of retrieval."""

    title: str
    """As tables call it."""
    of_ranks: Callable[[TiedRanks], float]
    brief: bool = False
    """Whether tables of several results and model cards show it too."""


def _recall(k: int) -> Callable[[TiedRanks], float]:
    return lambda ranks: 100 * hit_probability(ranks, k).mean().item()


_RECALLS = {f"recall_{k}": Metric(f"R@{k}", _recall(k), brief=True) for k in (1, 5, 10)}


def _recall_mean(ranks: TiedRanks) -> float:
    return sum(metric.of_ranks(ranks) for metric in _RECALLS.values()) / len(_RECALLS)


METRICS: dict[str, Metric] = {
    **_RECALLS,
    "recall_mean": Metric("mean", _recall_mean),
    "median_rank": Metric("median rank", lambda ranks: expected_rank(ranks).quantile(0.5).item()),
    "mean_rank": Metric("mean rank", lambda ranks: expected_rank(ranks).mean().item()),
}
"""Name -> metric, in the order of tables. Result files, tables, pages, cards and logs have them,
each after its direction: ``t2v_recall_1``."""


def metric_names() -> list[str]:
    """Name what ``retrieval_metrics`` gives."""
    return [f"{d}_{name}" for d in ("t2v", "v2t") for name in METRICS] + ["recall_mean", "ties"]


def retrieval_metrics(
    similarity: Tensor, video_of_text: Tensor, similarity_v2t: Tensor | None = None
) -> dict[str, float]:
    """Measure retrieval in both directions.

    Args:
        similarity: (num_texts, num_videos) float32 or float64, higher is better; ``-inf`` marks
            what could not be scored.
        video_of_text: As in ``text_to_video_ranks``.
        similarity_v2t: (num_texts, num_videos) scores for video-to-text where they differ, as they
            do after re-ranking; None = the same.

    Returns:
        For both directions ``d`` in ``t2v``, ``v2t`` every ``d_name`` of ``METRICS``: recalls and
        their mean in percent, median and mean over queries of the expected rank. Also
        ``recall_mean``, the mean of all recalls, and ``ties``, the number of queries of both
        directions whose target shares its score with a wrong candidate.

    Raises:
        ValueError: If scores are of low precision, NaN or infinite, or shapes or indices differ.
    """
    columns = similarity if similarity_v2t is None else similarity_v2t
    directions = {
        "t2v": text_to_video_ranks(similarity, video_of_text),
        "v2t": video_to_text_ranks(columns, video_of_text),
    }
    metrics = {
        f"{direction}_{name}": metric.of_ranks(ranks)
        for direction, ranks in directions.items()
        for name, metric in METRICS.items()
    }
    recalls = [metrics[f"{direction}_{name}"] for direction in directions for name in _RECALLS]
    metrics["recall_mean"] = sum(recalls) / len(recalls)
    metrics["ties"] = float(sum(int((r.tied > r.targets).sum()) for r in directions.values()))
    return metrics


def published_names(metrics: dict[str, float]) -> dict[str, float]:
    """Give recalls the names under which ALBEF, UMT and VideoMamba print them.

    ``txt_`` is retrieval *of texts*, so video-to-text; ``img_`` is text-to-video, the headline.

    Args:
        metrics: From ``retrieval_metrics``.

    Returns:
        ``txt_r1``, ``img_r1`` and so on, ``txt_r_mean``, ``img_r_mean`` and ``r_mean``.
    """
    prefixes = {"v2t_recall_": "txt_r", "t2v_recall_": "img_r", "recall_": "r"}
    return {
        published + ("_mean" if rest == "mean" else rest): value
        for name, value in metrics.items()
        for ours, published in prefixes.items()
        if name.startswith(ours)
        for rest in (name.removeprefix(ours),)
    }


def dual_softmax(similarity: Tensor, dim: int, scale: float = 100.0) -> Tensor:
    """Weight scores by how much a candidate prefers a query among all queries of the test set.

    Cheng et al. 2021 (arXiv 2109.04290). It looks at the other queries, which a search cannot do:
    its recalls are no zero-shot results and go under a name of their own.

    Args:
        similarity: (num_texts, num_videos), finite or ``-inf``.
        dim: 1: texts are the queries; 0: videos.
        scale: Multiplies the similarities in the softmax; 100 suits cosines.

    Returns:
        (num_texts, num_videos) float64; ``-inf`` where ``similarity`` is.
    """
    scores = similarity.double()
    unscored = scores == -torch.inf
    weight = (scale * scores).softmax(1 - dim)  # over the queries
    return (scores * weight).masked_fill(unscored, -torch.inf)


def pair_accuracy(right: Tensor, wrong: Tensor) -> float:
    """Give the percentage of pairs whose right member scores higher; a tie counts half.

    Args:
        right: (n,) scores of the right members.
        wrong: (n,) scores of the wrong ones.

    Raises:
        ValueError: If the shapes differ, there is no pair, or a score is NaN or infinite.
    """
    if right.shape != wrong.shape or right.numel() == 0:
        raise ValueError(
            f"right {tuple(right.shape)} and wrong {tuple(wrong.shape)} must hold the same number "
            "of scores, at least one"
        )
    _refuse_broken(right, wrong)
    return 100 * ((right > wrong).double() + 0.5 * (right == wrong)).mean().item()


def choice_probability(scores: Tensor, answers: Tensor) -> Tensor:
    """Give the probability that the right option is chosen, equal scores at random: (Q,) float64.

    Args:
        scores: (Q, options), higher is better; ``-inf`` fills rows with fewer options.
        answers: (Q,) int64, the right option.

    Raises:
        ValueError: If the shapes do not fit, an answer is no option or a score is NaN or infinite.
    """
    if scores.dim() != 2 or answers.shape != scores.shape[:1] or scores.numel() == 0:
        raise ValueError(
            f"scores {tuple(scores.shape)} must be (questions, options), at least one, and answers "
            f"{tuple(answers.shape)} (questions,)"
        )
    _refuse_broken(scores)
    if answers.min() < 0 or answers.max() >= scores.shape[1]:
        raise ValueError(f"answers must lie in 0..{scores.shape[1] - 1}")
    own = scores.gather(1, answers[:, None])
    if bool((own == -torch.inf).any()):
        raise ValueError("an answer is an option that its question does not have")
    best = scores == scores.amax(1, keepdim=True)
    return best.gather(1, answers[:, None]).squeeze(1) / best.sum(1).double()


def mean_average_precision(scores: Tensor, relevant: Tensor) -> float:
    """Give the mean over classes of the average precision, in percent.

    Of each class: the mean over its samples of the share of right ones among the samples that score
    as high or higher, so that equal scores come together. A class without a sample does not count.

    Args:
        scores: (N, K) float32 or float64, higher is better.
        relevant: (N, K) bool, which samples are of which classes.

    Raises:
        ValueError: If the shapes differ, nothing is relevant or a score is NaN or infinite.
    """
    if scores.shape != relevant.shape or scores.dim() != 2 or not bool(relevant.any()):
        raise ValueError(
            f"scores {tuple(scores.shape)} and relevant {tuple(relevant.shape)} must both be "
            "(samples, classes), with a sample of at least one class"
        )
    _refuse_broken(scores)
    precisions = []
    for column, own in zip(scores.T.contiguous(), relevant.T, strict=True):
        if not bool(own.any()):
            continue
        right = column[own].contiguous()
        as_high = [len(s) - torch.searchsorted(s.sort().values, right) for s in (right, column)]
        precisions.append((as_high[0] / as_high[1].double()).mean())
    return 100 * torch.stack(precisions).mean().item()


def multiple_choice_scores(
    match_logits: Tensor, similarity: Tensor, match_weight: float = 0.7
) -> Tensor:
    """Score the options of multiple-choice questions, as the published MSRVTT-MC evaluation does.

    The probability that clip and option match, and the softmax over the options of the dual
    encoder's similarity, weighted 0.7 to 0.3. The highest score is the answer.

    Args:
        match_logits: (Q, options, 2) logits of the matching head; class 1 = they match.
        similarity: (Q, options) similarities, divided by the model's temperature.
        match_weight: Share of the matching head.

    Returns:
        (Q, options) float32 in [0, 1].

    Raises:
        ValueError: If the shapes do not belong together.
    """
    if match_logits.shape != (*similarity.shape, 2):
        raise ValueError(
            f"match_logits {tuple(match_logits.shape)} must be the shape of similarity "
            f"{tuple(similarity.shape)} and two classes"
        )
    matching = match_logits.float().softmax(-1)[..., 1]
    return match_weight * matching + (1 - match_weight) * similarity.float().softmax(-1)


def bootstrap_interval(
    values: Tensor,
    groups: Tensor | None = None,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Give a percentile bootstrap interval for the mean of ``values``.

    Queries that share a video rise and fall together, so whole groups are drawn.

    Args:
        values: (n,) one number per query, for example ``100 * hit_probability(ranks, 1)``.
        groups: (n,) int64, not negative, for example the video of each query; None = every query
            on its own.
        samples: Number of resamples.
        confidence: Probability mass inside the interval.
        seed: The draws are a function of it.

    Returns:
        Lower and upper end, in the unit of ``values``.

    Raises:
        ValueError: If there is no value or the shapes differ.
    """
    if values.numel() == 0 or (groups is not None and groups.shape != values.shape):
        raise ValueError("values and groups must hold the same number of entries, at least one")
    groups = torch.arange(len(values), device=values.device) if groups is None else groups
    counts = torch.bincount(groups)
    sums = torch.bincount(groups, weights=values.double())[counts > 0]
    counts = counts[counts > 0]
    generator = torch.Generator().manual_seed(seed)
    means = torch.empty(samples, dtype=torch.float64, device="cpu")
    for i in range(samples):
        draw = torch.randint(len(sums), (len(sums),), generator=generator, device="cpu")
        means[i] = sums[draw].sum() / counts[draw].sum()
    tail = (1 - confidence) / 2
    return means.quantile(tail).item(), means.quantile(1 - tail).item()


def _refuse_broken(*scores: Tensor) -> None:
    """Raise a ValueError for what no comparison of scores would show."""
    for some in scores:
        broken = some.isnan() | (some == torch.inf)
        if bool(broken.any()):
            raise ValueError(
                f"{int(broken.sum())} of {some.numel()} scores are NaN or infinite: the model's "
                "weights or its input are broken"
            )


def _relevant(similarity: Tensor, video_of_text: Tensor) -> Tensor:
    """Check the inputs and mark the texts' own videos, (num_texts, num_videos) bool."""
    if similarity.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"similarity is {similarity.dtype}, which makes ties that are not there; compute it "
            "in float32, with autocast disabled"
        )
    matrix = video_of_text.dtype == torch.bool
    wanted = similarity.shape if matrix else similarity.shape[:1]
    if similarity.dim() != 2 or video_of_text.shape != wanted:
        raise ValueError(
            f"similarity must be (num_texts, num_videos) and video_of_text (num_texts,), or bool "
            f"like similarity, got {tuple(similarity.shape)} and {tuple(video_of_text.shape)}"
        )
    if similarity.numel() == 0:
        raise ValueError("there is nothing to rank: no text or no video")
    _refuse_broken(similarity)
    if matrix:
        return video_of_text
    if video_of_text.min() < 0 or video_of_text.max() >= similarity.shape[1]:
        raise ValueError(
            f"video_of_text must lie in 0..{similarity.shape[1] - 1}, got "
            f"{int(video_of_text.min())}..{int(video_of_text.max())}"
        )
    relevant = torch.zeros_like(similarity, dtype=torch.bool)
    return relevant.scatter_(1, video_of_text[:, None], True)
