"""The video-text model: two encoders, a joint space, a matching head.

VideoMamba (arXiv 2403.06977), section 3.3, stage 2. Shape legend: see ``vmm.types``; E is the
joint width, Dt the text width, Bv and Bt count clips and captions, M pairs of both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vmm.models.alignment_head import AlignmentHead, AlignmentHeads
from vmm.models.text_interface import FusionEncoder, TextEncoder, VisionKV
from vmm.models.video_encoder import VideoEncoder
from vmm.ops.similarity import MATCH_WEIGHT, Mixture, frame_similarity
from vmm.types import TextTokens


class VideoEncoding(NamedTuple):
    """A batch of clips, encoded."""

    tokens: Tensor
    """(B, visible patches, D), frame-major, without the class token."""
    pooled: Tensor
    """(B, P, D)."""
    aligned: Tensor | None
    """(K, B, 1 + visible patches, teacher width), not normalised, class token first; None for a
    model without an alignment head."""


class TextEncoding(NamedTuple):
    """A batch of captions, encoded without looking at any video."""

    tokens: Tensor
    """(B, S, Dt) states of the unimodal layers."""
    pooled: Tensor
    """(B, Dt)."""


class VideoTextModel(nn.Module):
    """Two encoders that meet in a joint space and, for matching, in the text encoder's top layers.

    Args:
        video_encoder: Any video encoder.
        text_encoder: A text encoder built for this video encoder's width. If no layer of it looks
            at a video, there is nothing that matches pairs or guesses words.
        proj_dim: Width E of the joint space.
        temperature: Start value of the learned temperature; similarities are divided by it.
        align_head: Maps the encoder's taps to a teacher's space; None where nothing is aligned.
        logit_bias: Start value of the bias that the sigmoid loss learns; None without that loss.

    Raises:
        ValueError: If the text encoder was built for another video width.
    """

    def __init__(
        self,
        video_encoder: VideoEncoder,
        text_encoder: TextEncoder,
        proj_dim: int = 512,
        temperature: float = 0.07,
        align_head: AlignmentHead | AlignmentHeads | None = None,
        logit_bias: float | None = None,
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
        # Of one dimension: DeepSpeed and FSDP2 cannot share out a number of none.
        self.temperature = nn.Parameter(torch.tensor([float(temperature)]))
        self.logit_bias = (
            None if logit_bias is None else nn.Parameter(torch.tensor([float(logit_bias)]))
        )
        self.align_head = align_head
        self.match_weight = MATCH_WEIGHT
        """See ``mixture``; ``vmm.models.match_weight`` keeps it beside the weights."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load weights; in older files the temperature has no dimension."""
        key = f"{prefix}temperature"
        if key in state_dict and state_dict[key].ndim == 0:
            state_dict[key] = state_dict[key].reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def take_projections(self) -> None:
        """Let the projections that came with the encoders' published weights take their places.

        Where both have one, the model's temperature is taken, too: clips of one frame and captions
        are then compared as that model compares them.

        Raises:
            ValueError: If the joint space has another width.
        """
        brought = [self.video_encoder.joint_projection(), self.text_encoder.joint_projection()]
        for found, linear in zip(brought, (self.vision_proj, self.text_proj), strict=True):
            if found is None:
                continue
            if found.weight.shape != linear.weight.shape:
                raise ValueError(
                    f"the joint space of {found.source} has width {len(found.weight)}, that of the "
                    f"recipe {len(linear.weight)}; set proj_dim to {len(found.weight)}"
                )
            linear.weight.copy_(found.weight)
            linear.bias.copy_(torch.zeros_like(linear.bias) if found.bias is None else found.bias)
        temperatures = [found.temperature for found in brought if found is not None]
        if len(temperatures) == 2 and temperatures[0] is not None:
            self.temperature.fill_(temperatures[0])

    @torch.no_grad()
    def clamp_temperature(self, low: float = 0.001, high: float = 0.5) -> None:
        """Keep the temperature in range; called before every training step, as published."""
        self.temperature.clamp_(low, high)

    def encode_video(
        self, video: Tensor, dropped: Tensor | None = None, keep_temporal: bool = True
    ) -> VideoEncoding:
        """Encode clips; an image is a clip of one frame.

        Args:
            video: (B, T, C, H, W) float, normalised.
            dropped: (B, 1 + T * N) bool, True = hidden, class token (never hidden) first, then
                frame-major patches; None = nothing hidden.
            keep_temporal: Pool every frame apart, P = T, instead of the clip, P = 1.

        Raises:
            ValueError: If a shape does not fit, or rows of ``dropped`` hide unequal numbers.
        """
        head = self.align_head
        features = self.video_encoder(video, dropped, keep_temporal, head is not None)
        aligned = None if head is None else head(features.taps, dropped)
        return VideoEncoding(features.tokens, features.pooled, aligned)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> TextEncoding:
        """Encode tokenised captions.

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S), 1 = a real token.
        """
        states = self.text_encoder.encode(TextTokens(input_ids, attention_mask))
        return TextEncoding(states, self.text_encoder.pool(states, attention_mask))

    @property
    def fusion(self) -> FusionEncoder:
        """The text encoder as one whose upper layers look at a video.

        Raises:
            ValueError: If none does.
        """
        return self.text_encoder.fusing("compare the joint vectors of clips and captions instead")

    def project_video(self, pooled: Tensor) -> Tensor:
        """Map pooled clips (B, P, D) to the joint space: (B, P, E), not normalised."""
        projected: Tensor = self.vision_proj(pooled)
        return projected

    def project_text(self, pooled: Tensor) -> Tensor:
        """Map pooled captions (B, Dt) to the joint space: (B, E), not normalised."""
        projected: Tensor = self.text_proj(pooled)
        return projected

    def similarity(
        self, video_proj: Tensor, text_proj: Tensor, temperature: float | Tensor = 1.0
    ) -> Tensor:
        """Compare clips with captions: the mean over P of the cosines, over the temperature.

        Args:
            video_proj: (Bv, P, E) from ``project_video``.
            text_proj: (Bt, E) from ``project_text``.
            temperature: Divides the similarities; 1 in retrieval.

        Returns:
            (Bv, Bt) float32, clips by captions.
        """
        return frame_similarity(video_proj, text_proj) / temperature

    def fuse(
        self, text_tokens: Tensor, attention_mask: Tensor, video_tokens: Tensor | VisionKV
    ) -> Tensor:
        """Let captions look at videos: caption i at video i modulo B.

        Args:
            text_tokens: (M, S, Dt) from ``encode_text``, M a multiple of B.
            attention_mask: (M, S), 1 = a real token.
            video_tokens: (B, visible patches, D) from ``encode_video``, or what
                ``fusion.project_vision`` made of them once for many captions.

        Returns:
            (M, S, Dt) states of the fusion layers.
        """
        if isinstance(video_tokens, Tensor):
            video_tokens = self.fusion.project_vision(video_tokens)
        return self.fusion.fuse(text_tokens, attention_mask, video_tokens)

    def match_logits(self, fused: Tensor) -> Tensor:
        """Score fused pairs (M, S, Dt): (M, 2) logits; class 1 = they belong together."""
        logits: Tensor = self.itm_head(fused[:, 0])
        return logits

    @property
    def mixture(self) -> Mixture:
        """How pairs are re-ranked."""
        return Mixture(self.temperature.item(), self.match_weight)

    def mlm_logits(self, fused: Tensor) -> Tensor:
        """Guess the words of fused states: (..., Dt) to (..., vocabulary)."""
        return self.fusion.mlm_logits(fused)
