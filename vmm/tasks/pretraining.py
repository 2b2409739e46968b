"""What both pretraining stages share: masks, and a teacher that guides them and is aligned to.

Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm import masking
from vmm.losses.alignment import AlignmentKind, alignment_loss
from vmm.masking import MaskSettings
from vmm.models.alignment_head import AlignmentHead, AlignmentHeads
from vmm.models.teacher import Teacher, statistics_of
from vmm.models.video_encoder import VideoEncoder
from vmm.tasks.base import TrainingTask
from vmm.tasks.draws import sample_draws
from vmm.tasks.gradient_cache import Parts, joined
from vmm.tasks.teacher import WithTeacher
from vmm.types import VideoTextBatch


class View(NamedTuple):
    """What the student may see of a batch, and what the teacher says about it."""

    dropped: Tensor | None
    """(B, 1 + T * N) bool, True = hidden."""
    target: Tensor | None
    """(B, K, visible, teacher width) teacher tokens at the visible places."""


class PretrainTask(WithTeacher, TrainingTask):
    """Base of the two pretraining stages.

    Args:
        teacher: Frozen teacher, or several (``SeveralTeachers``); needed for alignment and for
            attention masks.
        num_taps: Layers of the encoder that are aligned; None = the encoder's ``num_taps``, the
            only number that is right.
        video_mask: Masking of clips.
        image_mask: Masking of stills.
        align_kind: Distance between student and teacher; ``l2`` is 2 - 2 cos, as published.
        shared: As for ``TrainingTask``.
    """

    teacher: Teacher | None

    def __init__(
        self,
        teacher: Teacher | None = None,
        num_taps: int | None = None,
        video_mask: MaskSettings = MaskSettings("none"),
        image_mask: MaskSettings = MaskSettings("none"),
        align_kind: AlignmentKind = "l2",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.teacher = teacher
        self.num_taps = num_taps
        self.masks: dict[str, MaskSettings] = {"video": video_mask, "image": image_mask}
        self.align_kind: AlignmentKind = align_kind
        guided = [m for m, mask in self.masks.items() if masking.MASKS[mask.kind].guided]
        for media in guided:
            if teacher is None:
                raise ValueError(
                    f"{media}_mask.kind is {self.masks[media].kind!r}, which needs a teacher; "
                    "name one or choose another kind"
                )
            if not teacher.looks:
                raise ValueError(
                    f"{media}_mask.kind is {self.masks[media].kind!r}, which needs a teacher that "
                    "says where it looks; set the teacher's saliency to class or received, if it "
                    "has one, or choose another kind"
                )

    def load_teacher(self) -> None:
        """Load the teacher's weights, and tell it how clips are normalised."""
        if self.teacher is not None:
            data = getattr(self._trainer, "datamodule", None)
            if data is not None and hasattr(data, "clip_settings"):
                clip = data.clip_settings()
                self.teacher.clip_statistics = statistics_of(clip.mean, clip.std)
            self.teacher.load()

    def view(
        self, batch: VideoTextBatch, dropped: Tensor | None = None, parts: Parts | None = None
    ) -> View:
        """Draw the mask of a batch, if none is given, and ask the teacher about what is visible.

        ``dropped`` is (B, 1 + T * N) bool, True = hidden.
        """
        video, teacher = batch["video"], None
        if self.teacher is not None:
            parts = parts or Parts(len(video), None)
            with torch.no_grad():
                teacher = joined(parts(self.teacher, video))
            self._refuse_other_grid(teacher.tokens, video)
        attention = teacher.attention if teacher is not None else None
        if dropped is None:
            dropped = self.draw_mask(batch, attention)
        target = None
        if teacher is not None:
            target = teacher.tokens
            if dropped is not None:
                layers = target.unbind(1)
                target = torch.stack([masking.gather_visible(x, dropped) for x in layers], 1)
        return View(dropped, target)

    def _refuse_other_grid(self, tokens: Tensor, video: Tensor) -> None:
        """Refuse what a teacher says, (B, K, L, E), of other patches than those of the student."""
        encoder = self.video_encoder
        rows, columns = (side // encoder.patch_size for side in video.shape[-2:])
        wanted = 1 + video.shape[1] // encoder.tubelet_size * rows * columns
        if len(tokens) and tokens.shape[2] != wanted:
            raise ValueError(
                f"the teacher has another patch grid: it gives {tokens.shape[2]} tokens of a clip "
                f"of {video.shape[1]} frames, and the student {wanted} ({rows} x {columns} of each "
                f"{encoder.tubelet_size}); set the teacher's image_size to {rows} times its patch "
                "size, and the student's tubelet_size to 1 if the teacher sees single frames"
            )

    def draw_mask(self, batch: VideoTextBatch, attention: Tensor | None) -> Tensor | None:
        """Draw which tokens of a batch stay hidden: (B, 1 + T * N) bool or None."""
        encoder, video, mask = self.video_encoder, batch["video"], self.masks[batch["media"]]
        rows, columns = (side // encoder.patch_size for side in video.shape[-2:])
        steps = video.shape[1] // encoder.tubelet_size
        patches = masking.Patches(len(video), steps, rows, columns, attention)
        uniform = sample_draws(self._trainer, "mask", batch["key"])
        return masking.draw_mask(mask.kind, patches, mask.ratio, uniform, device=video.device)

    def make_align_head(self, encoder: VideoEncoder) -> AlignmentHead | AlignmentHeads:
        """Make what maps the encoder's taps to the teacher's space.

        Raises:
            ValueError: If the teacher gives other than one layer for each tap.
        """
        assert self.teacher is not None
        taps, layers = encoder.num_taps, len(self.teacher.layers)
        if self.num_taps not in (None, taps):
            raise ValueError(
                f"model.init_args.num_taps is {self.num_taps} but the encoder has {taps}; leave it "
                "out and set the encoder's num_taps"
            )
        if taps != layers:
            raise ValueError(
                f"the encoder has {taps} taps to align but the teacher gives {layers} layers; set "
                f"the teacher's num_layers to {taps}, or the encoder's num_taps to {layers}"
            )
        parts = self.teacher.parts
        if len(parts) > 1:
            widths = {part.name: part.width for part in parts}
            return AlignmentHeads(encoder.embed_dim, widths, taps)
        return AlignmentHead(encoder.embed_dim, parts[0].width, taps)

    def align(self, aligned: Tensor | None, view: View) -> Tensor:
        """Scalar loss of the student (K, B, visible, E) against the teacher's visible tokens."""
        assert aligned is not None and view.target is not None and self.teacher is not None
        parts, target = self.teacher.parts, view.target.transpose(0, 1)
        widths = [part.width for part in parts]
        losses = []
        sides = (torch.split(x, widths, -1) for x in (aligned, target))
        for part, own, theirs in zip(parts, *sides, strict=True):
            first = 0 if part.class_token else 1
            loss = alignment_loss(own[:, :, first:], theirs[:, :, first:], self.align_kind)
            losses.append(loss if part.weight == 1 else part.weight * loss)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
