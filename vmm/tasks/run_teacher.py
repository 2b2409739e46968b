"""The video encoder of a finished run as a teacher. Shape legend: see ``vmm.types``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vmm.models.recipe_nodes import build_node, init_args_of
from vmm.models.self_distillation import EncoderTeacher
from vmm.models.teacher import renormalised, statistics_of
from vmm.models.video_encoder import VideoEncoder
from vmm.runs import read_config
from vmm.tasks.start import load_encoder
from vmm.types import TeacherFeatures


class RunTeacher(EncoderTeacher):
    """The frozen video encoder of a run: its final normed tokens, one layer.

    It does not say where it looks, so masks are drawn without it, or by another teacher.

    Args:
        run: Directory of ``vmm fit`` or ``vmm import``; its best checkpoint is taken.

    Raises:
        ValueError: If it is none, or its encoder is none of vmm's.
    """

    def __init__(self, run: str) -> None:
        config = read_config(Path(run))
        node = init_args_of(config.get("model")).get("video_encoder")
        super().__init__(build_node(node, VideoEncoder))  # type: ignore[type-abstract]
        self.run = run
        data = init_args_of(config.get("data"))
        mean, std = self.clip_statistics
        self.statistics = statistics_of(data.get("mean") or mean, data.get("std") or std)

    def load(self) -> None:
        """Load the weights of the run's best checkpoint.

        Raises:
            ValueError: If there is none, or it does not fit.
        """
        load_encoder(self.encoder, Path(self.run), "teacher.init_args.run")

    @torch.no_grad()
    def forward(self, video: Tensor) -> TeacherFeatures:
        """Look at clips (B, T, C, H, W), normalised by ``clip_statistics``."""
        frames = renormalised(video.flatten(0, 1), self.clip_statistics, self.statistics)
        return super().forward(frames.view_as(video))
