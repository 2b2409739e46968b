"""Samples to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vmm.data.decode import DecodeError
from vmm.data.order import derive_seed
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings
from vmm.types import Media, VideoTextBatch

Positives = Literal["sample", "caption", "row"]


class Sample(NamedTuple):
    """One training sample, ready for a batch."""

    video: Tensor
    """(T, C, H, W) float32."""
    text: str
    idx: int
    key: str


def make_batch(samples: list[Sample], media: Media) -> VideoTextBatch:
    """Stack samples of one media type."""
    return {
        "video": torch.stack([sample.video for sample in samples]),
        "text": [sample.text for sample in samples],
        "idx": torch.tensor([sample.idx for sample in samples], dtype=torch.int64),
        "key": [sample.key for sample in samples],
        "media": media,
    }


def collate(
    samples: Sequence[EvaluationSample], settings: ClipSettings, positives: Positives, blank: bool
) -> VideoTextBatch:
    """Batch evaluation samples with their first captions.

    Args:
        samples: Of one media type.
        settings: Shape of a blank clip.
        positives: As for training.
        blank: Show an unreadable video as an all-grey one, so that its caption counts as a miss
            and every process has its share; else leave it out.

    Returns:
        The batch.

    Raises:
        DecodeError: If no sample is left.
    """
    kept = [s for s in samples if s.captions and (blank or s.video is not None)]
    if not kept:
        raise DecodeError(
            "unreadable",
            f"none of {', '.join(s.key for s in samples)} can be read; take them out of the "
            "shards, or use a larger batch",
        )
    size = (settings.num_frames, 3, settings.image_size, settings.image_size)
    texts = [s.captions[0] for s in kept]
    idx = (
        [derive_seed(t.lower()) for t in texts]
        if positives == "caption"
        else [s.number for s in kept]
    )
    return {
        "video": torch.stack([torch.zeros(size) if s.video is None else s.video for s in kept]),
        "text": texts,
        "idx": torch.tensor(idx, dtype=torch.int64),
        "key": [s.key for s in kept],
        "media": "video",
    }
