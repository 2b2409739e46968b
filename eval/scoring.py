"""Scores of every caption with every clip: dual encoder, and re-ranked by the matching head.

Pure of files and arguments: models and tensors in, score matrices out. All scores are float32.

Shape legend: see ``vmm.types``; Nt captions, Nv clips, E joint width, Dt text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from eval.models import Encoder, Matcher
from vmm.distributed import gather_objects, rank, world_size
from vmm.ops.similarity import frame_similarity


class Rows(Protocol):
    """Anything that gives the tokens (L, D) of a clip by its number."""

    def __getitem__(self, row: int, /) -> Tensor: ...


class CaptionBank(NamedTuple):
    """Encoded captions, on the CPU."""

    projected: Tensor
    """(Nt, E)."""
    states: list[Tensor] | None
    """Nt times (S, Dt), without padding; None for a model without matching head."""


@torch.inference_mode()
def encode_captions(encoder: Encoder, captions: Sequence[str], batch_size: int) -> CaptionBank:
    """Encode captions, in their order."""
    projected, states = [], []
    for start in tqdm(range(0, len(captions), batch_size), desc="captions", unit="batch"):
        text = encoder.encode_texts(list(captions[start : start + batch_size]))
        projected.append(text.projected.float().cpu())
        states += text.states or []
    return CaptionBank(torch.cat(projected), states or None)


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


def rerank(dual: Tensor, match: Tensor, top: Tensor, dim: int) -> Tensor:
    """Put the top candidates of every query in the order of the matching head.

    The others keep the dual encoder's order below them, so that median and mean rank keep their
    meaning.

    Args:
        dual: (Nt, Nv).
        match: (Nt, Nv), read where ``top``.
        top: (Nt, Nv) bool, the candidates that are re-ranked.
        dim: 1: every caption is a query; 0: every clip.

    Returns:
        (Nt, Nv) float64; comparable within a query only.
    """
    # float64 keeps close cosines apart after the shift.
    lowest = match.double().where(top, torch.inf).amin(dim, keepdim=True)
    highest = dual.double().amax(dim, keepdim=True)
    return torch.where(top, match.double(), dual.double() - highest + lowest - 1)
