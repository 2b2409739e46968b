"""Scores of every caption with every clip: dual encoder, and re-ranked with the matching head.

All scores are float32 unless said.

Shape legend: see ``vmm.types``; Nt captions (reversed ones included), Nv readable clips, E joint
width, Dt text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from vmm.distributed import gather_objects, rank, world_size
from vmm.evaluation.common.encoding import refuse_broken
from vmm.evaluation.common.features import Clip, FeatureStore, MappedRows
from vmm.evaluation.common.models import Encoder, Matcher, VmmEncoder, mixture_of
from vmm.evaluation.common.results import count_problems
from vmm.evaluation.retrieval.options import Options
from vmm.ops.similarity import frame_similarity, unit_vectors


class Rows(Protocol):
    """Anything that gives the tokens (L, D) of a clip by its number."""

    def __getitem__(self, row: int, /) -> Tensor: ...


class CaptionBank(NamedTuple):
    """Encoded captions, on the CPU."""

    projected: Tensor
    """(Nt, E)."""
    states: list[Tensor] | None
    """Nt times (S, Dt), without padding; None for a model without matching head."""


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
    numbers: list[int]
    """Of these clips in the data set."""
    captions: list[str]
    """The queries, in the order of their clips."""
    relevant: Tensor
    """(num_texts, num_clips) bool, which clips a caption is about."""
    readable: Tensor
    """(Nv,) int64, the clips that the columns of the score matrices stand for."""
    pairs: Pairs
    text: CaptionBank
    """Nt rows: the captions, then the reversed captions."""
    projected: Tensor
    """(Nv, P, E)."""
    tokens: MappedRows | None
    """Nv times (L, D), mapped from disk; None for the dual encoder only."""


class Scores(NamedTuple):
    """Scores of the captions with the readable clips."""

    pairs: dict[str, Tensor]
    """Kind -> (Nt, Nv) of all that was scored: "dual" and "vectors", float32; where there is a
    matching head "mixed" and "match", its logits, NaN where not asked for."""
    rankings: dict[str, tuple[Tensor, Tensor]]
    """Those of ``vmm.evaluation.retrieval.results.SCORES`` that there are -> (num_texts, Nv) for
    captions as queries, and for clips as queries; float64 where it is re-ranked."""


def matcher_of(encoder: Encoder, options: Options) -> Matcher | None:
    """Give the encoder as one that can re-rank, if it can and is asked to."""
    if options.k is None or not isinstance(encoder, Matcher):
        return None
    if isinstance(encoder, VmmEncoder) and not encoder.model.text_encoder.fuses:
        return None
    return encoder


def encode(
    encoder: Encoder, clips: list[Clip], store: FeatureStore, options: Options, keep_tokens: bool
) -> Encoded:
    """Encode the captions, and set clips and captions in relation.

    Args:
        encoder: The model.
        clips: All clips, by number.
        store: Has their features.
        options: How to measure.
        keep_tokens: As for ``encode_clips``.

    Raises:
        ValueError: If no clip can be read, there is no caption or a feature is NaN.
    """
    rows = [number for number, clip in enumerate(clips) if clip.problem is None]
    count_problems([clip.problem for clip in clips], "clips")
    protocol = options.protocol
    numbers = rows if options.coverage == "available" else list(range(len(clips)))
    clips = [clips[number] for number in numbers]
    captions, relevant = relate(clips, protocol is not None and protocol.shared_captions)
    if not captions:
        raise ValueError("no clip has a caption; there is nothing to look for")
    readable = [number for number, clip in enumerate(clips) if clip.problem is None]
    backwards = {
        column: clips[clip].reversed_caption or ""
        for column, clip in enumerate(readable)
        if clips[clip].reversed_caption and clips[clip].captions
    }
    first_row = relevant.byte().argmax(0).tolist()
    pairs = Pairs(
        clip=torch.tensor(list(backwards), dtype=torch.int64),
        right=torch.tensor([first_row[readable[c]] for c in backwards], dtype=torch.int64),
        wrong=len(captions) + torch.arange(len(backwards)),
    )
    text = encode_captions(encoder, [*captions, *backwards.values()], options.batch_size)
    projected = store.read("projected")[rows]
    refuse_broken(projected, "clips", [clips[number].key for number in readable])
    refuse_broken(text.projected, "captions", [*captions, *backwards.values()])
    tokens = MappedRows(store.read("tokens"), rows) if keep_tokens else None
    return Encoded(
        clips, numbers, captions, relevant, torch.tensor(readable), pairs, text, projected, tokens
    )


def relate(clips: Sequence[Clip], shared_captions: bool) -> tuple[list[str], Tensor]:
    """List the queries and which clips they are about.

    Args:
        clips: In the order of the columns.
        shared_captions: See ``Protocol``.

    Returns:
        Captions in the order of their clips, and (num_texts, num_clips) bool.
    """
    captions: list[str] = []
    places: list[tuple[int, int]] = []
    row_of: dict[str, int] = {}
    for column, clip in enumerate(clips):
        for caption in clip.captions:
            row = row_of.get(caption) if shared_captions else None
            if row is None:
                row = row_of[caption] = len(captions)
                captions.append(caption)
            places.append((row, column))
    relevant = torch.zeros(len(captions), len(clips), dtype=torch.bool)
    if places:
        relevant[tuple(torch.tensor(places).T)] = True
    return captions, relevant


@torch.inference_mode()
def encode_captions(encoder: Encoder, captions: Sequence[str], batch_size: int) -> CaptionBank:
    """Encode captions, in their order."""
    projected, states = [], []
    for start in tqdm(range(0, len(captions), batch_size), desc="captions", unit="batch"):
        text = encoder.encode_texts(list(captions[start : start + batch_size]))
        projected.append(text.projected.float().cpu())
        states += text.states or []
    return CaptionBank(torch.cat(projected), states or None)


def score(matcher: Matcher | None, encoded: Encoded, k: int | None) -> Scores:
    """Score captions with clips, and re-rank the best ``k`` of every query; see ``evaluate``."""
    num_texts, pairs = len(encoded.captions), encoded.pairs
    captions, clips = encoded.text.projected, encoded.projected
    dual = dual_scores(captions, clips)
    vectors = dual_scores(captions, unit_vectors(clips)[:, None])
    scored = {"dual": dual, "vectors": vectors}
    rankings = {name: (all_[:num_texts], all_[:num_texts]) for name, all_ in scored.items()}
    if matcher is None or k is None:
        return Scores(scored, rankings)
    assert encoded.tokens is not None and encoded.text.states is not None
    top = {
        name: [top_k(queries, k, dim) for dim in (1, 0)] for name, (queries, _) in rankings.items()
    }
    wanted = torch.zeros_like(dual, dtype=torch.bool)
    wanted[:num_texts] = torch.stack([mask for masks in top.values() for mask in masks]).any(0)
    wanted[pairs.right, pairs.clip] = True
    wanted[pairs.wrong, pairs.clip] = True
    match = match_scores(matcher, encoded.text.states, encoded.tokens, wanted)
    scored |= {"mixed": mixture_of(matcher)(vectors, match), "match": match}
    # Apps look among the nearest vectors; what is published, among those of its own similarity.
    for name, base, order in (("mixed", "vectors", "mixed"), ("reranked", "dual", "match")):
        own, (of_text, of_clip) = rankings[base][0], top[base]
        again = scored[order][:num_texts]
        rankings[name] = rerank(own, again, of_text, 1), rerank(own, again, of_clip, 0)
    return Scores(scored, rankings)


def dual_scores(captions: Tensor, clips: Tensor) -> Tensor:
    """Give the dual encoder's similarity of all pairs.

    Args:
        captions: (Nt, E).
        clips: (Nv, P, E).

    Returns:
        (Nt, Nv) in [-1, 1].
    """
    return frame_similarity(clips, captions).T.contiguous()


def top_k(scores: Tensor, k: int, dim: int) -> Tensor:
    """Mark the k highest entries along a dimension, (Nt, Nv) bool; all of them if there are fewer.

    Args:
        scores: (Nt, Nv).
        k: Number of candidates per query.
        dim: 1: of every caption; 0: of every clip.
    """
    best = scores.topk(min(k, scores.shape[dim]), dim=dim).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(dim, best, True)


@torch.inference_mode()
def match_scores(
    matcher: Matcher, states: Sequence[Tensor], tokens: Rows, wanted: Tensor
) -> Tensor:
    """Score pairs with the matching head: the raw logit of "they belong together".

    Clip by clip, so that what depends on the clip alone is computed once, however many captions
    look at it, and only one clip's tokens are in memory. Several processes share the clips.

    Args:
        matcher: The model.
        states: Nt times (S, Dt) of the captions.
        tokens: Nv times (L, D) of the clips; may be mapped from disk.
        wanted: (Nt, Nv) bool, the pairs to score.

    Returns:
        (Nt, Nv), NaN where a pair is not wanted; the same on every process.

    Raises:
        ValueError: If a score is NaN or infinite.
    """
    scores = torch.full(wanted.shape, torch.nan)
    own = range(rank(), wanted.shape[1], world_size())
    with tqdm(desc="re-ranking", total=int(wanted[:, own].sum()), unit="pair") as bar:
        for clip in own:
            rows = wanted[:, clip].nonzero().squeeze(1)
            if len(rows):
                scores[rows, clip] = matcher.match([states[i] for i in rows], tokens[clip])
                bar.update(len(rows))
    for columns, part in gather_objects((own, scores[:, own])):
        scores[:, columns] = part
    if not bool(scores[wanted].isfinite().all()):
        raise ValueError("the matching head gives NaN or infinity: its weights are broken")
    return scores


def rerank(dual: Tensor, again: Tensor, top: Tensor, dim: int) -> Tensor:
    """Put the top candidates of every query in the order of a second look.

    The others keep the dual encoder's order below them, so that median and mean rank keep their
    meaning.

    Args:
        dual: (Nt, Nv).
        again: (Nt, Nv) scores of the second look, read where ``top``.
        top: (Nt, Nv) bool, the candidates that are re-ranked.
        dim: 1: every caption is a query; 0: every clip.

    Returns:
        (Nt, Nv) float64; comparable within a query only.
    """
    # float64 keeps close cosines apart after the shift.
    lowest = again.double().where(top, torch.inf).amin(dim, keepdim=True)
    highest = dual.double().amax(dim, keepdim=True)
    return torch.where(top, again.double(), dual.double() - highest + lowest - 1)
