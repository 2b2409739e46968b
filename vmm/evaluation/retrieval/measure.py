"""From clips to numbers: encode everything once, score all pairs, re-rank, measure.

Shape legend: see ``vmm.types``; Nt captions (reversed ones included), Nv readable clips.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm.evaluation.common.encoding import TestSet, encode_clips
from vmm.evaluation.common.features import FeatureStore
from vmm.evaluation.common.models import Encoder
from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.scoring import Encoded, Scores, encode, matcher_of, score
from vmm.metrics import (
    TiedRanks,
    bootstrap_interval,
    dual_softmax,
    hit_probability,
    pair_accuracy,
    published_names,
    retrieval_metrics,
    text_to_video_ranks,
    video_to_text_ranks,
)


class Evaluation(NamedTuple):
    """The numbers of an evaluation, and the scores behind them."""

    encoded: Encoded
    dual: Tensor
    """(num_texts, num_clips) cosines; -inf = unreadable."""
    scores: Tensor
    """(num_texts, num_clips) text-to-video scores, those of the mixture if it re-ranks, else
    ``dual``; -inf = unreadable."""
    coverage: dict[str, Any]
    """``rule``, ``listed``, ``readable``, ``unreadable``, ``problems`` (reason -> clips) and
    ``lost`` (reason -> shards or members of shards)."""
    numbers: dict[str, Any]
    """``scores``, ``interval``, ``queries``, ``direction`` and ``seconds``, as in
    ``vmm.evaluation.retrieval.results``."""


def measure_clips(
    encoder: Encoder, dataset: TestSet, options: Options, store: FeatureStore
) -> Evaluation:
    """Measure retrieval on a data set. Under ``torchrun``, processes share the work.

    Args:
        encoder: The model.
        dataset: The clips.
        options: How to measure.
        store: From ``feature_store``; still there afterwards.

    Raises:
        ValueError: If no clip can be read or a score is NaN.
    """
    matcher = matcher_of(encoder, options)
    start = time.perf_counter()
    size, workers = options.batch_size, options.num_workers
    encode_clips(encoder, dataset, store, matcher is not None, size, workers)
    clips = [clip for _, clip in sorted(store.finished().items())]
    encoded = encode(encoder, clips, store, options, keep_tokens=matcher is not None)
    middle = time.perf_counter()
    scores = score(matcher, encoded, options.k)
    numbers = measure(encoded, scores, options.dual_softmax)
    numbers["seconds"] = {"encode": middle - start, "score": time.perf_counter() - middle}
    dual = _widen(scores.rankings["dual"][0], encoded)
    ranking = _widen(scores.rankings.get("mixed", scores.rankings["dual"])[0], encoded)
    problems = Counter(clip.problem for clip in clips if clip.problem is not None)
    coverage = {
        "rule": options.coverage,
        "listed": len(clips),
        "readable": len(clips) - problems.total(),
        "unreadable": problems.total(),
        "problems": dict(problems),
        "lost": dict(dataset.lost),
    }
    return Evaluation(encoded, dual, ranking, coverage, numbers)


def measure(encoded: Encoded, scores: Scores, with_dual_softmax: bool) -> dict[str, Any]:
    """Turn scores into the numbers that ``vmm.evaluation.retrieval.results`` describes."""
    relevant, pairs = encoded.relevant, encoded.pairs
    rankings = dict(scores.rankings)
    if with_dual_softmax:
        plain = rankings["dual"][0]
        rankings["dual+dsl"] = dual_softmax(plain, 1), dual_softmax(plain, 0)
    chance = retrieval_metrics(torch.zeros(relevant.shape), relevant)
    numbers: dict[str, Any] = {
        "scores": {"chance": chance, "mixed": None, "reranked": None},
        "interval": {"mixed": None, "reranked": None},
        "queries": {"video": relevant.byte().argmax(1).tolist()},
    }
    for name, (t2v, v2t) in rankings.items():
        wide_t2v, wide_v2t = _widen(t2v, encoded), _widen(v2t, encoded)
        metrics = retrieval_metrics(wide_t2v, relevant, similarity_v2t=wide_v2t)
        numbers["scores"][name] = metrics | published_names(metrics)
        ranks = {
            "t2v": text_to_video_ranks(wide_t2v, relevant),
            "v2t": video_to_text_ranks(wide_v2t, relevant),
        }
        numbers["interval"][name] = _intervals(ranks, relevant)
        numbers["queries"][name] = {direction: _lists(r) for direction, r in ranks.items()}
    numbers["direction"] = None
    if len(pairs.clip):
        numbers["direction"] = {"pairs": len(pairs.clip), "mixed": None, "match": None} | {
            name: pair_accuracy(matrix[pairs.right, pairs.clip], matrix[pairs.wrong, pairs.clip])
            for name, matrix in scores.pairs.items()
        }
    return numbers


def _intervals(ranks: dict[str, TiedRanks], relevant: Tensor) -> dict[str, list[float]]:
    """Give the 95 % intervals of both R@1, drawn over clips."""
    groups = {"t2v": relevant.byte().argmax(1), "v2t": None}
    return {
        f"{name}_recall_1": list(bootstrap_interval(100 * hit_probability(r, 1), groups[name]))
        for name, r in ranks.items()
    }


def _lists(ranks: TiedRanks) -> dict[str, Any]:
    """Write ranks as plain numbers."""
    better, tied, targets, candidates = ranks
    return {
        "better": better.tolist(),
        "tied": tied.tolist(),
        "targets": targets.tolist(),
        "candidates": candidates,
    }


def _widen(scores: Tensor, encoded: Encoded) -> Tensor:
    """Give unreadable clips their column back, below every score: (num_texts, num_clips)."""
    wide = scores.new_full((len(scores), len(encoded.clips)), -torch.inf)
    wide[:, encoded.readable] = scores
    return wide
