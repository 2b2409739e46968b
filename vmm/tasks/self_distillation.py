"""Self-distillation: a smaller trained encoder guides a larger one that learns to classify.

Large VideoMambas overfit images; with the tokens of a small one as a second target they do not
(VideoMamba, arXiv 2403.06977, sections 3.2 and 4.1). Published for images; clips are alike. Shape
legend: see ``vmm.types``.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from torch import nn

from vmm.distributed import share
from vmm.losses.alignment import alignment_loss
from vmm.losses.classification import classification_loss
from vmm.models.self_distillation import DistilledClassifier, EncoderTeacher
from vmm.models.video_encoder import VideoEncoder
from vmm.tasks.base import LossOutput, refuse_outside
from vmm.tasks.classification import ClassificationTask
from vmm.tasks.start import load_encoder
from vmm.tasks.teacher import WithTeacher
from vmm.types import VideoTextBatch

logger = logging.getLogger(__name__)

_ALIKE = ("num_frames", "image_size", "patch_size", "tubelet_size")


class SelfDistillationTask(WithTeacher, ClassificationTask):
    """Train a classifier whose final tokens a frozen, smaller encoder guides.

    Both see the same clips, augmented and mixed. The student's final normed tokens, class token
    included, go through a norm and a linear map of their own; both sides have unit length, and
    their squared distance, the mean over all tokens, is added to the loss of the classes.

    Args:
        video_encoder: The student.
        num_classes: As for ``ClassificationTask``.
        teacher: Encoder of the same frames and patches as the student's, not wider.
        teacher_from: Its weights: run directory, folder of ``vmm import``, or checkpoint file.
            None leaves it as it is made, for smoke runs.
        distill_weight: Of the distance; the loss of the classes has weight 1.
        shared: As for ``ClassificationTask``.

    Raises:
        ValueError: If the teacher sees other tokens, or is wider than the student.
    """

    model: DistilledClassifier

    def __init__(
        self,
        video_encoder: VideoEncoder,
        num_classes: int,
        teacher: VideoEncoder,
        teacher_from: str | None = None,
        distill_weight: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(video_encoder, num_classes, **shared)
        refuse_outside(0, math.inf, distill_weight=distill_weight)
        if not distill_weight:
            raise ValueError(
                "distill_weight is 0, so the teacher has nothing to say; set it above 0, or train "
                "with recipes/classification.yaml"
            )
        if teacher_from == "":
            raise ValueError("teacher_from is empty; null leaves the teacher untrained")
        _refuse_other_tokens(video_encoder, teacher)
        self.teacher_from = teacher_from
        self.distill_weight = distill_weight
        self.teacher: EncoderTeacher = EncoderTeacher(teacher)
        self.model = DistilledClassifier(video_encoder, num_classes, teacher.embed_dim)

    def load_teacher(self) -> None:
        """Load the weights that the recipe names.

        Raises:
            ValueError: If the file has no video encoder, or one of another size.
        """
        encoder = self.teacher.encoder
        published = encoder.load_pretrained()
        if self.teacher_from is not None:
            load_encoder(encoder, Path(self.teacher_from), "teacher_from")
        elif published is None:
            logger.warning("THE TEACHER HAS RANDOM WEIGHTS: this is a smoke run; set teacher_from")

    def curves(self) -> set[str]:
        """Of training and validation."""
        return super().curves() | {"train/classification", "train/distillation"}

    def unread(self) -> list[nn.Module | nn.Parameter]:
        """None of the encoder: all tokens are compared."""
        return [*self.video_encoder.unread(tokens=True, pooled=True)]

    def compute_losses(self, batch: VideoTextBatch) -> LossOutput:
        """Loss of the labels, and the distance to the teacher's tokens."""
        video, targets = self.shown(batch)
        logits, tokens = self.model.classify_and_map(video)
        terms = {
            "classification": classification_loss(logits, targets, self.problem_type),
            "distillation": alignment_loss(
                tokens[None], self.teacher(video).tokens.transpose(0, 1)
            ),
        }
        if self.training:  # else a process may have no batch, and not come here
            part = share(len(targets), self.device)
            terms = {name: term * part for name, term in terms.items()}
        total = terms["classification"] + self.distill_weight * terms["distillation"]
        return LossOutput(total, terms, {})


def _refuse_other_tokens(student: VideoEncoder, teacher: VideoEncoder) -> None:
    for name in _ALIKE:
        own, other = getattr(student, name), getattr(teacher, name)
        if own != other:
            raise ValueError(
                f"the teacher's {name} is {other} and the student's is {own}; make them equal, so "
                "that their tokens are of the same places"
            )
    if teacher.embed_dim > student.embed_dim:
        raise ValueError(
            f"the teacher is {teacher.embed_dim} wide and the student {student.embed_dim}; a "
            "smaller encoder guides a larger one: exchange them, or name a narrower teacher"
        )
