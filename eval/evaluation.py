"""The retrieval protocol: encode everything once, score all pairs, re-rank, measure.

A clip that cannot be read stays in the gallery and its queries count as misses. Shape legend: see
``vmm.types``; Nt captions (reversed ones included), Nv readable clips.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from eval.scoring import (
    CaptionBank,
    ClipBank,
    dual_scores,
    encode_captions,
    encode_clips,
    match_scores,
    rerank,
    top_k,
)
from vmm.data.schema import REVERSED_CAPTION
from vmm.data.shards import EvaluationClips, EvaluationSample
from vmm.metrics import (
    bootstrap_interval,
    hit_probability,
    pair_accuracy,
    retrieval_metrics,
    text_to_video_ranks,
    video_to_text_ranks,
)
from vmm.models.video_text import VideoTextModel


class Clip(NamedTuple):
    """What is kept of a sample once its frames are encoded."""

    key: str
    captions: list[str]
    reversed_caption: str | None
    problem: str | None
    """Why it could not be read; None if it could."""


class Pairs(NamedTuple):
    """Clips with a caption of the reversed motion; rows and columns of the score matrices."""

    clip: Tensor
    """(n,) columns."""
    right: Tensor
    """(n,) rows of the clips' captions."""
    wrong: Tensor
    """(n,) rows of the reversed ones."""


class Encoded(NamedTuple):
    """All clips and captions, encoded once."""

    clips: list[Clip]
    captions: list[str]
    """The queries, in the order of their clips."""
    owner: Tensor
    """(num_texts,) int64, the clip of each caption."""
    readable: Tensor
    """(Nv,) int64, the clips that the columns of the score matrices stand for."""
    pairs: Pairs
    text: CaptionBank
    """Nt rows: the captions, then the reversed captions."""
    bank: ClipBank


class Scores(NamedTuple):
    """Scores of the captions with the readable clips."""

    dual: Tensor
    """(Nt, Nv) float32 cosines."""
    match: Tensor | None
    """(Nt, Nv) logits of the matching head, NaN where not asked for."""
    t2v: Tensor | None
    """(num_texts, Nv) float64, re-ranked for captions as queries."""
    v2t: Tensor | None
    """(num_texts, Nv) float64, re-ranked for clips as queries."""


class Evaluation(NamedTuple):
    """The numbers of an evaluation, and the scores behind them."""

    clips: list[Clip]
    captions: list[str]
    owner: Tensor
    """(num_texts,) int64, the clip of each caption."""
    scores: Tensor
    """(num_texts, num_clips) text-to-video scores, re-ranked if asked for; -inf = unreadable."""
    numbers: dict[str, Any]
    """``chance``, ``dual``, ``reranked``, ``interval``, ``direction`` and ``seconds``, as in
    ``eval.results``."""


def evaluate(
    model: VideoTextModel,
    dataset: EvaluationClips,
    k: int | None = 128,
    batch_size: int = 32,
    num_workers: int = 0,
) -> Evaluation:
    """Measure retrieval on a data set.

    Args:
        model: In evaluation mode, on the device to use.
        dataset: The clips, each once.
        k: Candidates per query that the matching head re-ranks; None = dual encoder only.
        batch_size: Clips, and captions, encoded at once.
        num_workers: Processes that decode.

    Raises:
        ValueError: If k is below 1, no clip can be read or a score is NaN.
    """
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}; --no-rerank switches re-ranking off")
    start = time.perf_counter()
    encoded = encode(model, dataset, batch_size, num_workers, keep_tokens=k is not None)
    middle = time.perf_counter()
    scores = score(model, encoded, k)
    numbers = measure(encoded, scores)
    numbers["seconds"] = {"encode": middle - start, "score": time.perf_counter() - middle}
    ranking = scores.dual[: len(encoded.captions)] if scores.t2v is None else scores.t2v
    return Evaluation(
        encoded.clips, encoded.captions, encoded.owner, _widen(ranking, encoded), numbers
    )


def encode(
    model: VideoTextModel,
    dataset: EvaluationClips,
    batch_size: int,
    num_workers: int,
    keep_tokens: bool,
) -> Encoded:
    """Encode every clip and caption once; see ``evaluate``."""
    clips: list[Clip] = []
    loader = DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=list)
    bank = encode_clips(model, _readable(loader, clips), len(dataset), keep_tokens)
    captions = [caption for clip in clips for caption in clip.captions]
    owner = torch.tensor([i for i, clip in enumerate(clips) for _ in clip.captions])
    readable = [i for i, clip in enumerate(clips) if clip.problem is None]
    backwards = {
        column: caption
        for column, clip in enumerate(readable)
        if (caption := clips[clip].reversed_caption)
    }
    first_row = [0, *accumulate(len(clip.captions) for clip in clips)]
    pairs = Pairs(
        clip=torch.tensor(list(backwards), dtype=torch.int64),
        right=torch.tensor(
            [first_row[readable[column]] for column in backwards], dtype=torch.int64
        ),
        wrong=len(captions) + torch.arange(len(backwards)),
    )
    text = encode_captions(model, [*captions, *backwards.values()], batch_size)
    return Encoded(clips, captions, owner, torch.tensor(readable), pairs, text, bank)


def score(model: VideoTextModel, encoded: Encoded, k: int | None) -> Scores:
    """Score captions with clips, and re-rank the best ``k`` of every query; see ``evaluate``."""
    num_texts, pairs = len(encoded.captions), encoded.pairs
    dual = dual_scores(encoded.text, encoded.bank)
    if k is None:
        return Scores(dual, None, None, None)
    assert encoded.bank.tokens is not None
    queries = dual[:num_texts]
    of_text, of_clip = top_k(queries, k, 1), top_k(queries, k, 0)
    wanted = torch.zeros_like(dual, dtype=torch.bool)
    wanted[:num_texts] = of_text | of_clip
    wanted[pairs.right, pairs.clip] = True
    wanted[pairs.wrong, pairs.clip] = True
    match = match_scores(model, encoded.text, encoded.bank.tokens, wanted)
    return Scores(
        dual,
        match,
        rerank(queries, match[:num_texts], of_text, 1),
        rerank(queries, match[:num_texts], of_clip, 0),
    )


def measure(encoded: Encoded, scores: Scores) -> dict[str, Any]:
    """Turn scores into ``chance``, ``dual``, ``reranked``, ``interval`` and ``direction``."""
    owner, pairs = encoded.owner, encoded.pairs
    chance = torch.zeros(len(encoded.captions), len(encoded.clips))
    dual = _widen(scores.dual[: len(encoded.captions)], encoded)
    numbers: dict[str, Any] = {
        "chance": retrieval_metrics(chance, owner),
        "dual": retrieval_metrics(dual, owner),
        "reranked": None,
        "interval": {"dual": _intervals(dual, dual, owner), "reranked": None},
        "direction": None,
    }
    if scores.t2v is not None and scores.v2t is not None:
        t2v, v2t = _widen(scores.t2v, encoded), _widen(scores.v2t, encoded)
        numbers["reranked"] = retrieval_metrics(t2v, owner, similarity_v2t=v2t)
        numbers["interval"]["reranked"] = _intervals(t2v, v2t, owner)
    if len(pairs.clip):
        numbers["direction"] = {"pairs": len(pairs.clip), "match": None} | {
            name: pair_accuracy(matrix[pairs.right, pairs.clip], matrix[pairs.wrong, pairs.clip])
            for name, matrix in (("dual", scores.dual), ("match", scores.match))
            if matrix is not None
        }
    return numbers


def _intervals(t2v: Tensor, v2t: Tensor, owner: Tensor) -> dict[str, tuple[float, float]]:
    """Give the 95 % intervals of both R@1, drawn over clips."""
    hits_t2v = 100 * hit_probability(text_to_video_ranks(t2v, owner), 1)
    hits_v2t = 100 * hit_probability(video_to_text_ranks(v2t, owner), 1)
    return {
        "t2v_recall_1": bootstrap_interval(hits_t2v, groups=owner),
        "v2t_recall_1": bootstrap_interval(hits_v2t),
    }


def _widen(scores: Tensor, encoded: Encoded) -> Tensor:
    """Give unreadable clips their column back, below every score: (num_texts, num_clips)."""
    wide = scores.new_full((len(scores), len(encoded.clips)), -torch.inf)
    wide[:, encoded.readable] = scores
    return wide


def _readable(loader: DataLoader[EvaluationSample], clips: list[Clip]) -> Iterator[Tensor]:
    """Batch the clips that could be read, (B, T, C, H, W), and note all of them in ``clips``."""
    for samples in loader:
        for sample in samples:
            backwards = sample.metadata.get(REVERSED_CAPTION)
            clips.append(
                Clip(
                    sample.key,
                    sample.captions,
                    backwards if isinstance(backwards, str) else None,
                    sample.problem,
                )
            )
        videos = [sample.video for sample in samples if sample.video is not None]
        if videos:
            yield torch.stack(videos)
