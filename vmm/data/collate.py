"""Samples to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vmm.data.decode import DecodeError
from vmm.data.order import derive_seed
from vmm.data.schema import RawSample, questions_of
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings
from vmm.types import Media, VideoTextBatch

Positives = Literal["sample", "caption", "row"]
Content = Literal["captions", "questions"]


class Sample(NamedTuple):
    """One training sample, ready for a batch."""

    video: Tensor
    """(T, C, H, W) float32."""
    text: str
    idx: int
    key: str
    answers: list[str] | None = None
    """To the question that ``text`` is."""


def draw_text(
    raw: RawSample, content: Content, generator: torch.Generator
) -> tuple[str, list[str] | None]:
    """Draw one of a sample's captions, or one of its questions with the answers.

    Raises:
        DecodeError: If it has no question.
    """
    texts = raw.captions if content == "captions" else questions_of(raw.metadata)
    if not texts:
        raise DecodeError("no question", "its JSON holds no question with an answer")
    drawn = texts[int(torch.randint(len(texts), (), generator=generator, device="cpu"))]
    return (drawn, None) if isinstance(drawn, str) else (drawn.text, drawn.answers)


def make_batch(samples: list[Sample], media: Media) -> VideoTextBatch:
    """Stack samples of one media type."""
    batch: VideoTextBatch = {
        "video": torch.stack([sample.video for sample in samples]),
        "text": [sample.text for sample in samples],
        "idx": torch.tensor([s.idx for s in samples], dtype=torch.int64, device="cpu"),
        "key": [sample.key for sample in samples],
        "media": media,
    }
    answers = [sample.answers for sample in samples if sample.answers is not None]
    if answers:
        batch["answers"] = answers
    return batch


def collate(
    samples: Sequence[EvaluationSample],
    settings: ClipSettings,
    positives: Positives,
    blank: bool,
    content: Content = "captions",
) -> VideoTextBatch:
    """Batch evaluation samples with their first captions, or with one question each.

    Args:
        samples: Of one media type.
        settings: Shape of a blank clip.
        positives: As for training.
        blank: Show an unreadable video as an all-grey one, so that its caption counts as a miss
            and every process has its share; else leave it out.
        content: "questions": of sample i with n questions, number i modulo n.

    Returns:
        The batch; it is empty if no sample is left.
    """
    shown = [s for s in samples if s.captions and (blank or s.video is not None)]
    asked = [questions_of(s.metadata) if content == "questions" else [] for s in shown]
    kept = [s for s, q in zip(shown, asked, strict=True) if q or content == "captions"]
    size = (settings.num_frames, 3, settings.image_size, settings.image_size)
    grey = torch.zeros(size, dtype=torch.float32, device="cpu")
    questions = [q[s.number % len(q)] for s, q in zip(shown, asked, strict=True) if q]
    texts = [q.text for q in questions] or [s.captions[0] for s in kept]
    idx = (
        [derive_seed(t.lower()) for t in texts]
        if positives == "caption"
        else [s.number for s in kept]
    )
    clips = [grey if s.video is None else s.video for s in kept]
    batch: VideoTextBatch = {
        "video": torch.stack(clips) if clips else grey[None][:0],
        "text": texts,
        "idx": torch.tensor(idx, dtype=torch.int64, device="cpu"),
        "key": [s.key for s in kept],
        "media": "video",
    }
    if questions:
        batch["answers"] = [q.answers for q in questions]
    return batch
