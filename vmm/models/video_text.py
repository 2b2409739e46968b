"""The video-text model: two encoders, a joint space, a matching head.

VideoMamba, section 3.3, stage 2. Shape legend: see ``vmm.types``; E is the joint width, Dt the
text width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vmm.models.text_encoder import BertTextEncoder, VisionKV
from vmm.models.video_encoder import VideoEncoder
from vmm.types import TextTokens, VideoFeatures


class VideoEncoding(NamedTuple):
    """A batch of clips, encoded."""

    features: VideoFeatures
    projected: Tensor
    """(B, P, E) in the joint space, not normalised."""


class TextEncoding(NamedTuple):
    """A batch of captions, encoded without looking at any video."""

    states: Tensor
    """(B, S, Dt) hidden states of the unimodal layers."""
    attention_mask: Tensor
    """(B, S), 1 = a real token."""
    projected: Tensor
    """(B, E) in the joint space, not normalised."""

    def rows(self, index: Tensor) -> TextEncoding:
        """Select captions by an (M,) int64 index, repeats allowed."""
        return TextEncoding(*(part.index_select(0, index) for part in self))


class VideoTextModel(nn.Module):
    """Two encoders that meet in a joint space and, for matching, in the text encoder's top layers.

    Args:
        video_encoder: Any video encoder.
        text_encoder: A text encoder whose fusion layers accept this video encoder's width.
        proj_dim: Width E of the joint space.
        temperature: Start value of the learned temperature; similarities are divided by it.

    Raises:
        ValueError: If the text encoder was built for another video width.
    """

    def __init__(
        self,
        video_encoder: VideoEncoder,
        text_encoder: BertTextEncoder,
        proj_dim: int = 512,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        if text_encoder.vision_dim != video_encoder.embed_dim:
            raise ValueError(
                f"the text encoder was built for video tokens of width {text_encoder.vision_dim}, "
                f"the video encoder gives {video_encoder.embed_dim}; build it with "
                f"vision_dim={video_encoder.embed_dim}"
            )
        self.video_encoder = video_encoder
        self.text_encoder = text_encoder
        self.vision_proj = nn.Linear(video_encoder.embed_dim, proj_dim)
        self.text_proj = nn.Linear(text_encoder.embed_dim, proj_dim)
        self.itm_head = nn.Linear(text_encoder.embed_dim, 2)
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))

    @torch.no_grad()
    def clamp_temperature(self, low: float = 0.001, high: float = 0.5) -> None:
        """Keep the temperature in range; called before every training step, as published."""
        self.temperature.clamp_(low, high)

    def encode_video(
        self,
        video: Tensor,
        dropped: Tensor | None = None,
        keep_temporal: bool = True,
        with_taps: bool = False,
    ) -> VideoEncoding:
        """Encode clips (B, T, C, H, W) and project their pooled features.

        Args:
            video: (B, T, C, H, W) float32.
            dropped: (B, 1 + T * N) bool, True = hidden; None = nothing hidden.
            keep_temporal: One joint vector per frame instead of one per clip.
            with_taps: Also return the features for the alignment loss.
        """
        features = self.video_encoder(video, dropped, keep_temporal, with_taps)
        return VideoEncoding(features, self.vision_proj(features.pooled))

    def encode_text(self, tokens: TextTokens) -> TextEncoding:
        """Encode captions; the first token's state is the caption's joint vector."""
        states = self.text_encoder.encode(tokens)
        return TextEncoding(states, tokens.attention_mask, self.text_proj(states[:, 0]))

    def fuse(self, text: TextEncoding, vision: VisionKV) -> Tensor:
        """Let captions look at videos, row by row: (B, S, Dt) states of the fusion layers."""
        return self.text_encoder.fuse(text.states, text.attention_mask, vision)

    def match_logits(self, text: TextEncoding, vision: VisionKV) -> Tensor:
        """Score pairs of captions and videos, row by row.

        Returns:
            (B, 2) logits; class 1 = they belong together.
        """
        logits: Tensor = self.itm_head(self.fuse(text, vision)[:, 0])
        return logits
