"""Exported classifiers in use: videos to classes, or to the numbers that they predict.

    from vmm import ActionClassifier

    classifier = ActionClassifier.from_pretrained("exported")
    classifier.classify(["a.mp4", "b.mp4"], top_k=3)

Needs neither Lightning nor a network. Shape legend: see ``vmm.types``; K is the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from vmm.data.transforms import ClipSettings
from vmm.export.encoder import batches, listed, stack
from vmm.export.folder import EncoderParts, read_folder
from vmm.export.frames import Video, load_clip, name_of
from vmm.export.towers import finite
from vmm.hub import local_folder
from vmm.losses.classification import merge_views
from vmm.models.classifier import VideoClassifier
from vmm.ops.tuning.cpu_setup import tune_cpu


class ActionClassifier(nn.Module):
    """A classifier for use, not for training; ``from_pretrained`` makes one.

    Args:
        parts: The classifier and what its folder says about it.
    """

    def __init__(self, parts: EncoderParts) -> None:
        super().__init__()
        self.model = parts.of(VideoClassifier)
        self.clip: ClipSettings = parts.clip
        self.problem_type = parts.settings["problem_type"]
        self.id2label = {int(i): str(name) for i, name in parts.settings["id2label"].items()}
        """Number of a class -> its name."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        revision: str | None = None,
        tune: bool = True,
        **_: Any,
    ) -> Self:
        """Load what ``vmm export`` wrote of a classifier; what transformers adds is ignored.

        Args:
            name: The folder, or OWNER/NAME on the Hugging Face hub.
            device: Where to compute; None = the GPU if there is one.
            revision: Branch, tag or commit on the hub.
            tune: On a CPU, make the process as fast as vmm's commands are.

        Raises:
            ValueError: If the folder is not one of a classifier, not whole, or was changed.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if tune and device.type == "cpu":
            tune_cpu()
        return cls(read_folder(local_folder(name, revision))[0]).to(device).eval()

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Classify clips as models of transformers do.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised as ``clip`` says.

        Returns:
            With ``logits`` (B, K) float32.
        """
        return ImageClassifierOutput(logits=self.model(pixel_values).float())

    @torch.inference_mode()
    def classify(
        self, videos: Sequence[Video], *, top_k: int = 5, batch_size: int = 8
    ) -> list[list[tuple[str, float]]]:
        """Say what videos show, each seen in one view.

        Args:
            videos: As for ``VideoTextEncoder.encode_video``.
            top_k: How many classes to name.
            batch_size: Videos that are classified at once.

        Returns:
            Of each video the most probable classes, best first, each with its probability; of
            numbers to predict all, in their order.

        Raises:
            ValueError: If a video cannot be read, with its name.
        """
        videos = listed(videos)
        device = next(self.parameters()).device
        clips = (load_clip(video, i, self.clip) for i, video in enumerate(videos))
        rows: list[Tensor] = []
        for batch in batches(clips, len(videos), batch_size, False, "video"):
            logits = self(stack(batch, len(rows)).to(device)).logits
            rows += merge_views(logits[:, None], self.problem_type).cpu()
        if not rows:
            return []
        found = finite(torch.stack(rows), lambda i: name_of(videos[i], i))
        if self.problem_type == "regression":
            return [
                [(self.id2label[i], value) for i, value in enumerate(row)] for row in found.tolist()
            ]
        values, places = found.topk(min(top_k, found.shape[1]))
        return [
            [(self.id2label[i], value) for i, value in zip(*pair, strict=True)]
            for pair in zip(places.tolist(), values.tolist(), strict=True)
        ]
