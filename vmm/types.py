"""Batches and outputs that cross module borders, and the shape letters used everywhere.

Shape legend: B batch, T frames, C colour channels, H height, W width, N patches per frame,
L tokens of a sequence (class token included), D width of an encoder, S words of a caption,
P pooled vectors per clip (1, or T when time is kept).
Video is ``(B, T, C, H, W)`` float32 everywhere outside the patch embedding.
Masks name their polarity: ``dropped`` (True = the encoder never sees the token) for video,
``attention_mask`` (1 = keep) for text.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, NotRequired, TypedDict

from torch import Tensor

Media = Literal["video", "image"]


class VideoTextBatch(TypedDict):
    """One batch of a single media type, as every task is given it."""

    video: Tensor
    """(B, T, C, H, W) float32, normalised; T is 1 for images. Loaders may give uint8, which the
    datamodule normalises on the device."""
    text: list[str]
    """B captions, or B questions."""
    answers: NotRequired[list[list[str]]]
    """B times all answers that people gave to the question, repeated ones included; only where
    ``text`` are questions."""
    labels: NotRequired[list[list[tuple[str | None, float | None]]]]
    """B times all that the clip is labelled with: the name of a class, its number, or both; a
    number to predict comes without a name."""
    idx: Tensor
    """(B,) int64; rows with equal values are positives of each other."""
    key: list[str]
    """B sample keys, ``shard/key``, unique across corpora."""
    media: Media


class VideoFeatures(NamedTuple):
    """What every video encoder returns."""

    tokens: Tensor
    """(B, visible patches, D), frame-major, without the class token."""
    pooled: Tensor
    """(B, P, D)."""
    taps: Tensor | None
    """(K, B, 1 + visible patches, D) features for the alignment loss, class token first."""
    cls: Tensor | None = None
    """(B, 1, D) the class token that belongs to ``tokens``, the mean over frames where each has
    one; None of an encoder without."""


class TextTokens(NamedTuple):
    """Tokenised captions."""

    input_ids: Tensor
    """(B, S) int64."""
    attention_mask: Tensor
    """(B, S) int64, 1 = a real token."""


class TeacherFeatures(NamedTuple):
    """What the frozen teacher says about a clip."""

    tokens: Tensor
    """(B, K, 1 + T * N, teacher dim) of K layers, shallow to deep, class token (mean over frames)
    first; not of unit length."""
    attention: Tensor | None
    """(B, T, N) where it looks, non-negative, such as the attention of the class token to each
    patch, mean over heads; None if it does not say."""
