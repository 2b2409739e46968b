"""The halves of a video-text model as modules of their own: what every exported format holds.

The towers give unit vectors, so that a dot product is a cosine. Training compares a caption with
every frame and takes the mean of the cosines, which is this dot product times a number between 0
and 1 that depends on the clip alone: the ranking of captions for a clip is the same, that of clips
for a caption nearly so. Shape legend: see ``vmm.types``; E is the width of the joint space, M
counts pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vmm.models.text_interface import VisionKV
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import RankBy, unit_vectors
from vmm.types import TextTokens


def finite(rows: Tensor, name: Callable[[int], str]) -> Tensor:
    """Return vectors or scores of finite numbers as they are.

    Args:
        rows: (n, ...).
        name: Tells what a row is of.

    Raises:
        ValueError: If one is NaN or infinite, with the name of the first such row.
    """
    broken = (~rows.isfinite()).reshape(len(rows), -1).any(1).nonzero().flatten().tolist()
    if broken:
        more = f" ({len(broken)} of {len(rows)} do)" if len(broken) > 1 else ""
        raise ValueError(
            f"{name(broken[0])} gives NaN or infinity{more}: the model's weights, its precision or "
            "what it was given are broken"
        )
    return rows


class VideoTower(nn.Module):
    """Clips to unit vectors.

    Args:
        model: Its video half is used, not copied.
    """

    def __init__(self, model: VideoTextModel) -> None:
        super().__init__()
        self.encoder = model.video_encoder
        self.projection = model.vision_proj

    def forward(self, video: Tensor) -> Tensor:
        """Encode normalised clips (B, T, C, H, W): (B, E) float32."""
        pooled = self.encoder(video, keep_temporal=True).pooled
        return unit_vectors(self.projection(pooled))


class TextTower(nn.Module):
    """Captions to unit vectors.

    Args:
        model: Its text half is used, not copied.
    """

    def __init__(self, model: VideoTextModel) -> None:
        super().__init__()
        self.encoder = model.text_encoder
        self.projection = model.text_proj

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode tokenised captions.

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S) int64, 1 = a real token.

        Returns:
            (B, E) float32.
        """
        states = self.encoder.encode(TextTokens(input_ids, attention_mask))
        pooled = self.encoder.pool(states, attention_mask)
        return F.normalize(self.projection(pooled).float(), dim=-1)


class CaptionReading(NamedTuple):
    """M captions, read without looking at any video."""

    states: Tensor
    """(M, S, Dt)."""
    attention_mask: Tensor
    """(M, S), 1 = a real token."""
    vectors: Tensor
    """(M, E) of ``TextTower``."""

    def rows(self, index: Tensor) -> CaptionReading:
        """Select captions by an (n,) int64 index."""
        return CaptionReading(*(part.index_select(0, index) for part in self))


class ClipReading(NamedTuple):
    """B clips as captions look at them."""

    vision: VisionKV
    vectors: Tensor
    """(B, E) of ``VideoTower``."""

    def rows(self, index: Tensor) -> ClipReading:
        """Select clips by an (n,) int64 index."""
        return ClipReading(self.vision[index], self.vectors.index_select(0, index))


class Matcher(nn.Module):
    """Pairs of a clip and a caption to scores: the mixture, or the matching head alone.

    Args:
        model: Its parts are used, not copied.

    Raises:
        ValueError: If no layer of its text encoder looks at a video.
    """

    def __init__(self, model: VideoTextModel) -> None:
        super().__init__()
        model.text_encoder.fusing("compare the vectors of captions and videos instead")
        self.model = model

    def read_captions(self, input_ids: Tensor, attention_mask: Tensor) -> CaptionReading:
        """Read tokenised captions (M, S)."""
        text = self.model.encode_text(input_ids, attention_mask)
        vectors = F.normalize(self.model.project_text(text.pooled).float(), dim=-1)
        return CaptionReading(text.tokens, attention_mask, vectors)

    def look_at(self, video: Tensor) -> ClipReading:
        """Look at normalised clips (B, T, C, H, W), once for all captions."""
        encoding = self.model.encode_video(video)
        vectors = unit_vectors(self.model.project_video(encoding.pooled))
        return ClipReading(self.model.fusion.project_vision(encoding.tokens), vectors)

    def forward(
        self, captions: CaptionReading, clips: ClipReading, by: RankBy = "mixture"
    ) -> Tensor:
        """Score pairs, row by row.

        Args:
            captions: M of them.
            clips: As many.
            by: What the scores are.

        Returns:
            (M,) float32: the mixture, or logits of "they belong together".
        """
        fused = self.model.fuse(captions.states, captions.attention_mask, clips.vision)
        match = self.model.match_logits(fused)[:, 1].float()
        if by == "matching":
            return match
        return self.model.mixture((captions.vectors * clips.vectors).sum(1), match)
