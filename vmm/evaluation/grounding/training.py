"""Train a head on the moments of a training split; the encoder's vectors are made once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from vmm.evaluation.grounding.head import Batch, MomentHead

logger = logging.getLogger(__name__)

STEPS = 1000
"""Optimizer steps, of which those are kept after which held-out sentences fare best."""
_BATCH, _CHECKS = 32, 10
_LR, _DECAY = 2e-3, 1e-2
_HELD = 5  # one of so many videos is held out


class Lesson(NamedTuple):
    """A training sentence, its video and its moments."""

    video: int
    """Number of the video."""
    frames: Tensor
    """(S, E) float32 of length 1 each."""
    text: Tensor
    """(E,) float32 of length 1."""
    centres: Tensor
    """(S,) float32, the middle of each frame's part as a share of the video."""
    moments: Tensor
    """(M, 2) float32, start and end as shares of the video."""


class Targets(NamedTuple):
    """What a head should say of each frame."""

    inside: Tensor
    """(B, S) float32, 1 in a moment."""
    distances: Tensor
    """(B, S, 2) shares of the video back to the moment's start and on to its end."""


Pair = tuple[Lesson, Targets]


def train_head(lessons: Sequence[Lesson], seed: int = 0) -> tuple[MomentHead, dict[str, Any]]:
    """Train a head.

    Args:
        lessons: Training sentences of at least two videos.
        seed: Of the first weights, the order and the videos that are held out.

    Returns:
        The head, in evaluation mode, and how it was trained: ``sentences``, ``videos``, ``steps``,
        ``held_out_loss`` and ``first_loss``, that of untrained weights.

    Raises:
        ValueError: If there are fewer than two videos.
    """
    videos = sorted({lesson.video for lesson in lessons})
    if len(videos) < 2:
        raise ValueError(
            f"a head is trained on two videos or more, the training split has {len(videos)} that "
            "can be read; give another --train-annotations or --train-media"
        )
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(videos), generator=draw).tolist()
    held = {videos[i] for i in order[: max(len(videos) // _HELD, 1)]}
    pairs = [(lesson, targets_of(lesson.centres, lesson.moments)) for lesson in lessons]
    kept = [pair for pair in pairs if pair[0].video not in held]
    checked = [pair for pair in pairs if pair[0].video in held]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = MomentHead(lessons[0].frames.shape[-1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=_LR, weight_decay=_DECAY)
    first = best = _check(head, checked)
    best_state, best_step = _copy(head), 0
    every = STEPS // _CHECKS
    batches = _shuffled(kept, draw)
    for step in tqdm(range(1, STEPS + 1), desc="head", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = _LR * 0.5 * (1 + math.cos(math.pi * (step - 1) / STEPS))
        loss = _loss(head, next(batches))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % every == 0:
            found = _check(head, checked)
            if found < best:
                best, best_step, best_state = found, step, _copy(head)
    head.load_state_dict(best_state)
    told = {
        "sentences": len(lessons), "videos": len(videos), "steps": best_step, "seed": seed,
        "first_loss": first, "held_out_loss": best,
    }  # fmt: skip
    logger.info(
        "the head learnt from %d sentences about %d videos; loss of held-out ones %.3f, %.3f "
        "before", len(lessons), len(videos), best, first,
    )  # fmt: skip
    return head.eval(), told


def _copy(head: MomentHead) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in head.state_dict().items()}


def _shuffled(pairs: Sequence[Pair], draw: torch.Generator) -> Iterator[list[Pair]]:
    """Give batches in random order, again and again."""
    while True:
        for some in torch.split(torch.randperm(len(pairs), generator=draw), _BATCH):
            yield [pairs[i] for i in some.tolist()]


@torch.no_grad()
def _check(head: MomentHead, pairs: Sequence[Pair]) -> float:
    total = 0.0
    for i in range(0, len(pairs), _BATCH):
        some = pairs[i : i + _BATCH]
        total += len(some) * _loss(head, some).item()
    return total / len(pairs)


def _loss(head: MomentHead, pairs: Sequence[Pair]) -> Tensor:
    """Cross-entropy of being inside, and of frames inside 1 - IoU of the moment they tell."""
    batch, targets = collate(pairs)
    logits, distances = head(batch)
    apart = F.binary_cross_entropy_with_logits(logits, targets.inside, reduction="none")
    inside = targets.inside.bool() & batch.known
    told, true = distances[inside], targets.distances[inside]
    union = torch.maximum(told, true).sum(-1)
    common = torch.minimum(told, true).sum(-1)
    return apart[batch.known].mean() + (1 - common / union.clamp_min(1e-6)).mean()


def collate(pairs: Sequence[Pair]) -> tuple[Batch, Targets]:
    """Pad videos, and what is right of each of their frames, to the longest."""
    lessons, right = zip(*pairs, strict=True)
    batch = Batch(
        frames=pad_sequence([lesson.frames for lesson in lessons], batch_first=True),
        texts=torch.stack([lesson.text for lesson in lessons]),
        centres=pad_sequence([lesson.centres for lesson in lessons], batch_first=True),
        known=pad_sequence(
            [torch.ones(len(lesson.centres), dtype=torch.bool) for lesson in lessons],
            batch_first=True,
        ),
    )
    inside = pad_sequence([one.inside for one in right], batch_first=True)
    return batch, Targets(inside, pad_sequence([one.distances for one in right], batch_first=True))


def targets_of(centres: Tensor, moments: Tensor) -> Targets:
    """Say which frames are in a moment, and where this begins and ends.

    A frame in several moments tells the shortest; a moment between two frames' centres is told by
    the nearest one.

    Args:
        centres: (S,) shares of the video.
        moments: (M, 2) shares of the video, M >= 1.
    """
    inside = torch.zeros(len(centres))
    distances = torch.zeros(len(centres), 2)
    lengths = moments[:, 1] - moments[:, 0]
    for start, end in moments[lengths.argsort(descending=True)].tolist():
        own = (centres >= start) & (centres <= end)
        if not own.any():
            own[(centres - (start + end) / 2).abs().argmin()] = True
        inside[own] = 1
        distances[own] = torch.stack([centres - start, end - centres], -1)[own].clamp_min(0)
    return Targets(inside, distances)
