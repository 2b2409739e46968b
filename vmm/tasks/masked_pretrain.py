"""Stage 1: masked video pretraining (unmasked-token alignment).

The student sees only the visible tokens of a clip and learns to give them the features of the
last layer, or layers, of a frozen teacher, as published of a CLIP image encoder. VideoMamba
(arXiv 2403.06977), section 3.3; UMT (arXiv 2303.16058). Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from vmm.distributed import share
from vmm.masking import MaskSettings
from vmm.models.masked_student import MaskedStudent
from vmm.models.teacher import Teacher
from vmm.models.video_encoder import VideoEncoder
from vmm.tasks.base import LossOutput
from vmm.tasks.pretraining import PretrainTask
from vmm.types import VideoTextBatch


class MaskedPretrainTask(PretrainTask):
    """Align a video encoder's visible tokens to those of a frozen teacher.

    Args:
        video_encoder: The student.
        teacher: Frozen teacher.
        video_mask: Masking of clips; the published choice hides 80 % by the teacher's attention.
        image_mask: Masking of stills.
        optimizer: Makes the optimizer from parameter groups.
        min_lr_ratio: Learning rate at the end, as a share of the peak.
        shared: As for ``PretrainTask``.
    """

    model: MaskedStudent
    validates_with_teacher = True

    def __init__(
        self,
        video_encoder: VideoEncoder,
        teacher: Teacher,
        video_mask: MaskSettings = MaskSettings("attention", 0.8),
        image_mask: MaskSettings = MaskSettings("attention", 0.5),
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1.2e-3, betas=(0.9, 0.95)),
        min_lr_ratio: float = 0.05,
        **shared: Any,
    ) -> None:
        super().__init__(
            teacher=teacher,
            video_mask=video_mask,
            image_mask=image_mask,
            optimizer=optimizer,
            min_lr_ratio=min_lr_ratio,
            **shared,
        )
        self.model = MaskedStudent(video_encoder, self.make_align_head(video_encoder))

    def unread(self) -> list[nn.Module | nn.Parameter]:
        """What comes after the encoder's taps."""
        return [*self.video_encoder.unread(tokens=False, pooled=False)]

    def curves(self) -> set[str]:
        """Of training and validation."""
        return {"train/align", "val/align"}

    def compute_losses(self, batch: VideoTextBatch) -> LossOutput:
        """Alignment at the visible tokens of one batch."""
        view = self.view(batch)
        loss = self.align(self.model(batch["video"], view.dropped), view)
        if self.training:  # else a process may have no batch, and not come here
            loss = loss * share(len(batch["key"]), self.device)
        return LossOutput(loss, {"align": loss}, {})

    def test_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: there is no caption to find."""
        raise ValueError("stage 1 has nothing to test; test a run of stage 2, or `vmm validate`")

    def predict_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: this model has no joint vectors."""
        raise ValueError("stage 1 has no embeddings; predict with a run of stage 2")

    def validation_step(self, batch: VideoTextBatch, batch_idx: int) -> Tensor | None:
        """The same loss, a scalar, on held-out clips; none if no clip of the batch can be used."""
        if not batch["key"]:
            return None
        loss = self.compute_losses(batch).total
        self.log("val/align", loss, batch_size=len(batch["text"]), sync_dist=True, prog_bar=True)
        return loss
