"""Scores of every caption with every clip: dual encoder, and re-ranked by the matching head.

Pure of files and arguments: a model and tensors in, score matrices out. All scores are float32.

Shape legend: see ``vmm.types``; Nt captions, Nv clips, E joint width, Dt text width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import frame_similarity

# Captions that look at a clip at once.
_MAX_PAIRS = 256


class ClipBank(NamedTuple):
    """What re-ranking needs of the clips, on the CPU."""

    tokens: Tensor | None
    """(Nv, L, D) patch tokens; None where only the dual encoder is asked for."""
    projected: Tensor
    """(Nv, P, E)."""


class CaptionBank(NamedTuple):
    """Encoded captions, on the CPU."""

    tokens: Tensor
    """(Nt, S, Dt)."""
    attention_mask: Tensor
    """(Nt, S), 1 = a real token."""
    projected: Tensor
    """(Nt, E)."""


@torch.inference_mode()
def encode_clips(
    model: VideoTextModel, batches: Iterable[Tensor], total: int, keep_tokens: bool
) -> ClipBank:
    """Encode clips batch by batch.

    Args:
        model: The model, in evaluation mode.
        batches: (B, T, C, H, W) float32 each.
        total: Clips that will come, for the progress bar.
        keep_tokens: Keep the tokens; without them there is no re-ranking, and less memory.

    Raises:
        ValueError: If there is no clip.
    """
    device = model.temperature.device
    tokens, projected = [], []
    with tqdm(desc="clips", total=total, unit="clip") as bar:
        for video in batches:
            encoding = model.encode_video(video.to(device))
            projected.append(model.project_video(encoding.pooled).float().cpu())
            if keep_tokens:
                tokens.append(encoding.tokens.cpu())
            bar.update(len(video))
    if not projected:
        raise ValueError("not one clip could be read; look at the reasons in the log")
    return ClipBank(torch.cat(tokens) if keep_tokens else None, torch.cat(projected))


@torch.inference_mode()
def encode_captions(model: VideoTextModel, captions: list[str], batch_size: int) -> CaptionBank:
    """Encode captions, all padded to the longest: rows in the order of ``captions``, on the CPU."""
    device = model.temperature.device
    ids, mask = model.text_encoder.tokenize(captions, device)
    states, projected = [], []
    for start in tqdm(range(0, len(captions), batch_size), desc="captions", unit="batch"):
        rows = slice(start, start + batch_size)
        text = model.encode_text(ids[rows], mask[rows])
        states.append(text.tokens.cpu())
        projected.append(model.project_text(text.pooled).float().cpu())
    return CaptionBank(torch.cat(states), mask.cpu(), torch.cat(projected))


def dual_scores(text: CaptionBank, clips: ClipBank) -> Tensor:
    """Give the dual encoder's similarity of all pairs, (Nt, Nv) in [-1, 1]."""
    return frame_similarity(clips.projected, text.projected).T.contiguous()


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
    model: VideoTextModel, text: CaptionBank, tokens: Tensor, wanted: Tensor
) -> Tensor:
    """Score pairs with the matching head: the raw logit of "they belong together".

    Clip by clip, so that the keys and values of its cross-attention are computed once, however
    many captions look at it.

    Args:
        model: The model, in evaluation mode.
        text: Nt captions.
        tokens: (Nv, L, D) tokens of the clips.
        wanted: (Nt, Nv) bool, the pairs to score.

    Returns:
        (Nt, Nv), NaN where a pair is not wanted.
    """
    device = model.temperature.device
    scores = torch.full(wanted.shape, torch.nan)
    with tqdm(desc="re-ranking", total=int(wanted.sum()), unit="pair") as bar:
        for clip in range(wanted.shape[1]):
            rows = wanted[:, clip].nonzero().squeeze(1)
            if not len(rows):
                continue
            vision = model.text_encoder.project_vision(tokens[clip : clip + 1].to(device))
            for start in range(0, len(rows), _MAX_PAIRS):
                part = rows[start : start + _MAX_PAIRS]
                states, mask = text.tokens[part].to(device), text.attention_mask[part].to(device)
                fused = model.fuse(states, mask, vision.repeated(len(part)))
                scores[part, clip] = model.match_logits(fused)[:, 1].float().cpu()
                bar.update(len(part))
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
