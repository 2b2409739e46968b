"""The student and the teacher of self-distillation: a smaller trained encoder guides a larger one.

VideoMamba (arXiv 2403.06977), section 3.2. Shape legend: see ``vmm.types``; Dt width of the
teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmm.models.classifier import VideoClassifier
from vmm.models.teacher import Teacher
from vmm.models.video_encoder import VideoEncoder
from vmm.types import TeacherFeatures, VideoFeatures


class DistilledClassifier(VideoClassifier):
    """A classifier that also says its tokens in the terms of a teacher.

    Args:
        video_encoder: As for ``VideoClassifier``.
        num_classes: As for ``VideoClassifier``.
        teacher_dim: Width Dt of the teacher.
    """

    def __init__(self, video_encoder: VideoEncoder, num_classes: int, teacher_dim: int) -> None:
        super().__init__(video_encoder, num_classes)
        width = video_encoder.embed_dim
        head = nn.Linear(width, teacher_dim)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.distill_head = nn.Sequential(nn.RMSNorm(width, eps=1e-5), head)

    def classify_and_map(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Look once at clips, for both losses.

        Args:
            video: (B, T, C, H, W) float, normalised.

        Returns:
            (B, classes) logits; (B, 1 + T * N, Dt) tokens, the class token first, of any length.
        """
        features = self.video_encoder(video)
        mapped: Tensor = self.distill_head(all_tokens(self.video_encoder, features))
        return self.head(features.pooled[:, 0]), mapped


class EncoderTeacher(Teacher):
    """A frozen video encoder that says what its last layer makes of every token.

    Args:
        encoder: Any, with a class token; who makes it loads its weights.
    """

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.freeze()

    @property
    def output_dim(self) -> int:
        """Width Dt of the encoder."""
        return self.encoder.embed_dim

    @property
    def layers(self) -> list[int]:
        """The last layer alone; what number it has, an encoder does not say."""
        return [0]

    def build(self) -> None:
        """Nothing: the encoder is there."""

    def load(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def forward(self, video: Tensor) -> TeacherFeatures:
        """Give normed tokens of clips (B, T, C, H, W), as one layer."""
        return TeacherFeatures(all_tokens(self.encoder, self.encoder(video))[:, None], None)


def all_tokens(encoder: VideoEncoder, features: VideoFeatures) -> Tensor:
    """Join what an encoder says: (B, 1 + T * N, D) normed tokens, the class token first.

    Raises:
        ValueError: If the encoder has no class token.
    """
    if features.cls is None:
        raise ValueError(
            f"{type(encoder).__name__} gives no class token, which self-distillation compares, "
            "too; take another encoder"
        )
    return torch.cat([features.cls, features.tokens], 1)
