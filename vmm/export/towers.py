"""The halves of a video-text model as modules of their own: what every exported format holds.

The towers give unit vectors, so that a dot product is a cosine. Training compares a caption with
every frame and takes the mean of the cosines, which is this dot product times a number between 0
and 1 that depends on the clip alone: the ranking of captions for a clip is the same, that of clips
for a caption nearly so. Shape legend: see ``vmm.types``; E is the width of the joint space.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import mean_unit
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
        return F.normalize(mean_unit(self.projection(pooled)), dim=-1)


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


class Matcher(nn.Module):
    """Pairs of a clip and a caption to scores, by the matching head.

    Args:
        model: Its parts are used, not copied.

    Raises:
        ValueError: If no layer of its text encoder looks at a video.
    """

    def __init__(self, model: VideoTextModel) -> None:
        super().__init__()
        model.text_encoder.fusing("compare the vectors of captions and videos instead")
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, video_tokens: Tensor) -> Tensor:
        """Score pairs, row by row.

        Args:
            input_ids: (M, S) int64.
            attention_mask: (M, S) int64, 1 = a real token.
            video_tokens: (M, T * N, D) of the video encoder, or one clip for all captions.

        Returns:
            (M,) float32 logits of "they belong together".
        """
        model = self.model
        text = model.encode_text(input_ids, attention_mask).tokens
        vision = model.fusion.project_vision(video_tokens)
        if video_tokens.shape[0] == 1:
            vision = vision.repeated(input_ids.shape[0])
        return model.match_logits(model.fuse(text, attention_mask, vision))[:, 1].float()
