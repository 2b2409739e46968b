"""A video classifier: an encoder and a linear head on its class token.

VideoMamba (arXiv 2403.06977), section 3.2. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from torch import Tensor, nn

from vmm.models.video_encoder import VideoEncoder


class VideoClassifier(nn.Module):
    """Score the classes of a clip, or of an image as a clip of one frame.

    Args:
        video_encoder: Its pooled feature is what the head reads; the published classifiers pool
            with ``cls`` and have no further norm.
        num_classes: Number of classes.
    """

    def __init__(self, video_encoder: VideoEncoder, num_classes: int) -> None:
        super().__init__()
        self.video_encoder = video_encoder
        self.head = nn.Linear(video_encoder.embed_dim, num_classes)

    def forward(self, video: Tensor) -> Tensor:
        """Classify (B, T, C, H, W) float, normalised: (B, classes) logits."""
        logits: Tensor = self.head(self.video_encoder(video).pooled[:, 0])
        return logits
