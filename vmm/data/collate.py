"""Samples to batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from vmm.data.faults import SampleError
from vmm.data.order import derive_seed
from vmm.data.schema import RawSample, labels_of, questions_of
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings, normalise
from vmm.data.views import Views
from vmm.types import Media, VideoTextBatch

Positives = Literal["sample", "caption", "row"]


class Item(NamedTuple):
    """What a sample gives a batch beside its pixels."""

    text: str
    fields: Mapping[str, Any] = {}
    """Its entries of further fields of the batch, see ``VideoTextBatch``."""


class Contents(NamedTuple):
    """A choice of what goes with a clip."""

    items: Callable[[RawSample | EvaluationSample], list[Item]]
    """All that a sample has, of which training draws one."""
    reason: str
    """What is said of a sample that has none: the kind, to count by."""
    detail: str
    captioned: bool = True
    """Whether a sample without a caption has none for sure, and is left out from the start."""
    in_turn: bool = False
    """Whether evaluation takes number i modulo n of the n of sample i; else it takes the first."""


def _captions(sample: RawSample | EvaluationSample) -> list[Item]:
    return [Item(caption) for caption in sample.captions]


def _questions(sample: RawSample | EvaluationSample) -> list[Item]:
    return [Item(q.text, {"answers": q.answers}) for q in questions_of(sample.metadata)]


def _labels(sample: RawSample | EvaluationSample, field: str | None = None) -> list[Item]:
    labels = labels_of(sample.metadata, sample.captions, field)
    text = sample.captions[0] if sample.captions else ""
    return [Item(text, {"labels": labels})] if labels else []


Content = Literal["captions", "questions", "labels"]
CONTENTS: dict[Content, Contents] = {
    "captions": Contents(_captions, "no caption", "it has no text"),
    "questions": Contents(
        _questions, "no question", "its JSON holds no question with an answer", in_turn=True
    ),
    "labels": Contents(
        _labels, "no label", "its JSON says no class; see data.label_field", captioned=False
    ),
}


def content_of(content: Content, label_field: str | None = None) -> Contents:
    """Return what goes with a clip.

    Args:
        content: Its word.
        label_field: Where in the JSON the labels are, see ``labels_of``.

    Raises:
        ValueError: If a field is named and labels are not wanted.
    """
    if label_field is None:
        return CONTENTS[content]
    if content != "labels":
        raise ValueError(
            f"label_field is {label_field!r} and content {content!r}; set data.init_args.content "
            "to labels"
        )
    return CONTENTS[content]._replace(items=partial(_labels, field=label_field))


class Sample(NamedTuple):
    """One training sample, ready for a batch."""

    video: Tensor
    """(T, C, H, W) uint8, or float32 and normalised."""
    item: Item
    idx: int
    key: str


def draw_item(raw: RawSample, content: Contents, generator: torch.Generator) -> Item:
    """Draw one of the things that a sample gives a batch beside its pixels.

    Raises:
        SampleError: If it has none.
    """
    items = content.items(raw)
    if not items:
        raise SampleError(content.reason, content.detail)
    return items[int(torch.randint(len(items), (), generator=generator, device="cpu"))]


def make_batch(
    samples: Iterable[Sample], media: Media, size: int | None = None, like: Tensor | None = None
) -> VideoTextBatch:
    """Stack samples of one media type.

    Args:
        samples: With equal fields.
        media: The type.
        size: The most samples that there can be, if they are yet to be made: then no two copies of
            all pixels are in memory.
        like: (T, C, H, W), a clip as an empty batch has none; if there may be no sample.
    """
    if size is None:
        samples = list(samples)
        size = len(samples)
    video = None if like is None else like.new_empty(size, *like.shape)
    kept: list[Sample] = []
    for sample in samples:
        if video is None:
            one = torch.empty_like(sample.video)  # as decoders put channels: copies are quick
            strides = one.numel(), *one.stride()
            video = one.new_empty_strided((size, *one.shape), strides)
        video[len(kept)] = sample.video
        kept.append(sample._replace(video=video))
    assert video is not None
    batch: VideoTextBatch = {
        "video": video[: len(kept)],
        "text": [sample.item.text for sample in kept],
        "idx": torch.tensor([s.idx for s in kept], dtype=torch.int64, device="cpu"),
        "key": [sample.key for sample in kept],
        "media": media,
    }
    names = kept[0].item.fields if kept else ()
    fields = {name: [sample.item.fields[name] for sample in kept] for name in names}
    return cast(VideoTextBatch, {**batch, **fields})


def normalised(batch: VideoTextBatch, settings: ClipSettings) -> VideoTextBatch:
    """Normalise the clips of a batch where they are; floats are normalised already."""
    if batch["video"].dtype == torch.uint8:
        batch["video"] = normalise(batch["video"], settings)
    return batch


def collate(
    samples: Sequence[EvaluationSample],
    settings: ClipSettings,
    positives: Positives,
    blank: bool,
    content: Contents = CONTENTS["captions"],
    media: Media = "video",
    views: Views | None = None,
) -> VideoTextBatch:
    """Batch evaluation samples with one item each, see ``Contents``.

    Args:
        samples: Of one media type.
        settings: Shape of a blank clip.
        positives: As for training.
        blank: Show an unreadable video as an all-grey one, so that its caption counts as a miss
            and every process has its share; else leave it out.
        content: What goes with the clips; a sample without any is left out.
        media: What the samples are.
        views: How many of each sample there are, where there are any.

    Returns:
        The batch; it is empty if no sample is left.
    """
    frames = settings.num_frames if media == "video" else 1
    size: tuple[int, ...] = (frames, 3, settings.image_size, settings.image_size)
    if views is not None:
        size = (views.crops * (views.clips if media == "video" else 1), *size)
    grey = torch.zeros(size, dtype=torch.float32, device="cpu")
    kept = []
    for sample in samples:
        items = content.items(sample)
        if items and (blank or sample.video is not None):
            item = items[sample.number % len(items) if content.in_turn else 0]
            clip = grey if sample.video is None else sample.video
            idx = derive_seed(item.text.lower()) if positives == "caption" else sample.number
            kept.append(Sample(clip, item, idx, sample.key))
    return make_batch(kept, media, like=grey)
