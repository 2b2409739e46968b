"""Stage 1: masked video pretraining (unmasked-token alignment).

The student sees only the visible tokens of a clip and learns to give them the features of the
final layer of a frozen CLIP image encoder. VideoMamba (arXiv 2403.06977), section 3.3; UMT
(arXiv 2303.16058). Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from vmm.losses.alignment import AlignmentKind
from vmm.models.alignment_head import AlignmentHead
from vmm.models.clip_vit import ClipTeacher
from vmm.models.masked_student import MaskedStudent
from vmm.models.video_encoder import VideoEncoder
from vmm.optim import DecayPolicy
from vmm.tasks.base import LossOutput, MaskSettings, PretrainTask
from vmm.types import VideoTextBatch


class MaskedPretrainTask(PretrainTask):
    """Align a video encoder's visible tokens to a frozen CLIP-ViT.

    Args:
        video_encoder: The student.
        teacher: Frozen image teacher.
        num_taps: Layers of the student that are aligned; must be the encoder's ``num_taps``.
        video_mask: Masking of clips; the published choice hides 80 % by the teacher's attention.
        image_mask: Masking of stills.
        align_kind: ``l2`` is 2 - 2 cos, as published.
        optimizer: Makes the optimizer from parameter groups.
        weight_decay: For the parameters that are decayed at all.
        decay_policy: Which those are.
        warmup_steps: Optimizer steps of linear warm-up.
        min_lr_ratio: Learning rate at the end, as a share of the peak.
        init_from: Run directory or checkpoint file whose weights to start from.
    """

    validates_with_teacher = True

    def __init__(
        self,
        video_encoder: VideoEncoder,
        teacher: ClipTeacher,
        num_taps: int = 1,
        video_mask: MaskSettings = MaskSettings("attention", 0.8),
        image_mask: MaskSettings = MaskSettings("attention", 0.5),
        align_kind: AlignmentKind = "l2",
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1.2e-3, betas=(0.9, 0.95)),
        weight_decay: float = 0.05,
        decay_policy: DecayPolicy = "standard",
        warmup_steps: int = 1000,
        min_lr_ratio: float = 0.05,
        init_from: str | None = None,
    ) -> None:
        super().__init__(
            teacher,
            video_mask,
            image_mask,
            align_kind,
            optimizer,
            weight_decay,
            decay_policy,
            warmup_steps,
            min_lr_ratio,
            init_from,
        )
        head = AlignmentHead(video_encoder.embed_dim, teacher.output_dim, num_taps)
        self.model = MaskedStudent(video_encoder, head)

    @property
    def video_encoder(self) -> VideoEncoder:
        """The student."""
        return self.model.video_encoder

    def compute_losses(self, batch: VideoTextBatch) -> LossOutput:
        """Alignment at the visible tokens of one batch."""
        view = self.view(batch)
        loss = self.align(self.model(batch["video"], view.dropped), view)
        return LossOutput(loss, {"align": loss}, {})

    def test_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: there is no caption to find."""
        raise ValueError("stage 1 has nothing to test; test a run of stage 2, or `vmm validate`")

    def predict_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: this model has no joint vectors."""
        raise ValueError("stage 1 has no embeddings; predict with a run of stage 2")

    def validation_step(self, batch: VideoTextBatch, batch_idx: int) -> Tensor | None:
        """The same loss on held-out clips; none if no clip of the batch can be used."""
        if not batch["key"]:
            return None
        loss = self.compute_losses(batch).total
        self.log("val/align", loss, batch_size=len(batch["text"]), sync_dist=True, prog_bar=True)
        return loss
