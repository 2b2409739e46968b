"""The model of stage 1: a video encoder and the head that maps it to a teacher's space.

VideoMamba (arXiv 2403.06977), section 3.3. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from torch import Tensor, nn

from vmm.models.alignment_head import AlignmentHead, AlignmentHeads
from vmm.models.video_encoder import VideoEncoder


class MaskedStudent(nn.Module):
    """Encode what a mask leaves visible and say it in the teacher's terms.

    Args:
        video_encoder: The student.
        align_head: One decoder per tap of the encoder.
    """

    def __init__(
        self, video_encoder: VideoEncoder, align_head: AlignmentHead | AlignmentHeads
    ) -> None:
        super().__init__()
        self.video_encoder = video_encoder
        self.align_head = align_head

    def forward(self, video: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Encode clips for the alignment loss.

        Args:
            video: (B, T, C, H, W) float, normalised.
            dropped: (B, 1 + T * N) bool, True = hidden, class token first; None = nothing hidden.

        Returns:
            (K, B, 1 + visible patches, teacher width), not normalised, class token first.
        """
        taps = self.video_encoder(video, dropped, with_taps=True).taps
        aligned: Tensor = self.align_head(taps, dropped)
        return aligned
