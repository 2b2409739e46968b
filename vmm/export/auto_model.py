"""Exported models behind transformers' ``AutoModel`` and ``AutoModelForVideoClassification``.

Importing this module registers them; ``from vmm import VideoTextEncoder`` does so too. ``import
vmm`` alone does not: it would have to import torch and transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, PreTrainedConfig

from vmm.export.classifier import ActionClassifier
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import CLASSIFIER_TYPE, MODEL_TYPE


class VideoTextConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """What transformers sees of an encoder folder's ``config.json``."""

    model_type = MODEL_TYPE


class AutoVideoTextEncoder(VideoTextEncoder):
    """What ``AutoModel.from_pretrained`` returns."""

    config_class = VideoTextConfig

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
        """Load as ``VideoTextEncoder.from_pretrained`` does; what ``AutoModel`` adds is ignored."""
        return super().from_pretrained(name, device=device, revision=revision, tune=tune)


class ClassifierConfig(PreTrainedConfig):  # type: ignore[misc]
    """What transformers sees of the ``config.json`` of a classifier."""

    model_type = CLASSIFIER_TYPE


class AutoActionClassifier(ActionClassifier):
    """What ``AutoModelForVideoClassification.from_pretrained`` returns."""

    config_class = ClassifierConfig


AutoConfig.register(MODEL_TYPE, VideoTextConfig)
AutoModel.register(VideoTextConfig, AutoVideoTextEncoder)
AutoConfig.register(CLASSIFIER_TYPE, ClassifierConfig)
AutoModelForVideoClassification.register(ClassifierConfig, AutoActionClassifier)
