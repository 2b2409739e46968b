"""Image towers of open_clip as teachers: those that timm builds, such as SigLIP's and DINOv2's.

SigLIP (arXiv 2303.15343) has no class token. A plain CLIP is ``vmm.models.clip_vit.ClipTeacher``.
Shape legend: see ``vmm.models.teacher``.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from vmm.models.clip_tower import build_any_visual, load_visual, read_config
from vmm.models.teacher import (
    FrameTeacher,
    Saliency,
    Seen,
    Statistics,
    Triple,
    saliency_of,
    say_random,
    statistics_of,
)

logger = logging.getLogger(__name__)


class TowerTeacher(FrameTeacher):
    """Frozen image tower of open_clip that timm builds as a Vision Transformer.

    Its tokens are the blocks' outputs, as wide as the tower.

    Args:
        name: An open_clip model name, e.g. ViT-B-16-SigLIP, or the path of a model config.
        pretrained: As for ``load_visual``; None leaves the tower random, for smoke runs.
        image_size: See ``FrameTeacher``; None = the model's own.
        num_layers: See ``FrameTeacher``.
        layer_interval: See ``FrameTeacher``.
        final_norm: See ``FrameTeacher``.
        saliency: See ``FrameTeacher``.
        mean: See ``FrameTeacher``.
        std: See ``FrameTeacher``.

    Raises:
        ValueError: If the model's image tower is no Vision Transformer of timm.
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None,
        image_size: int | None = None,
        num_layers: int = 1,
        layer_interval: int = 1,
        final_norm: bool = True,
        saliency: Saliency | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
    ) -> None:
        self.config = read_config(name)
        vision = self.config.get("vision_cfg", {})
        if "timm_model_name" not in vision:
            raise ValueError(
                f"the image tower of {name} is none of timm's; for a plain CLIP take "
                "vmm.models.clip_vit.ClipTeacher"
            )
        size = int(vision.get("image_size", 224)) if image_size is None else image_size
        super().__init__(
            *(name, pretrained, size, num_layers, layer_interval, final_norm, saliency, mean, std)
        )
        self._own_size = int(vision.get("image_size", 224))
        self.visual: Any = None
        with torch.device("meta"):
            trunk: Any = build_any_visual(self.config, self._own_size).trunk
        if not (hasattr(trunk, "blocks") and hasattr(trunk, "forward_intermediates")):
            raise ValueError(
                f"the image tower of {name} is a {type(trunk).__name__}, not a Vision Transformer "
                "with a token for each patch; choose another"
            )
        self._depth, self._width = len(trunk.blocks), int(trunk.embed_dim)
        self._class_token = bool(getattr(trunk, "has_class_token", False))
        own = trunk.pretrained_cfg
        self._statistics = statistics_of(own["mean"], own["std"]) if own.get("mean") else None
        self.check()

    @property
    def output_dim(self) -> int:
        """Width of the tower."""
        return self._width

    @property
    def depth(self) -> int:
        """Number of its blocks."""
        return self._depth

    @property
    def class_token(self) -> bool:
        """Whether it has one."""
        return self._class_token

    def own_statistics(self) -> Statistics | None:
        """What open_clip's config says, or timm's."""
        said = self.config.get("preprocess_cfg") or {}
        if said.get("mean") and said.get("std"):
            return statistics_of(said["mean"], said["std"])
        return self._statistics

    def build(self) -> None:
        """Build the tower for its own images; see ``Teacher``."""
        self.visual = build_any_visual(self.config, self._own_size)
        self._fit()

    def _fit(self) -> None:
        """Resize the table of positions, and freeze."""
        if self.image_size != self._own_size:
            self.visual.trunk.set_input_size(img_size=(self.image_size, self.image_size))
        self.ready()

    def load(self) -> None:
        """Build the tower and load its weights.

        Raises:
            ValueError: See ``load_visual``.
        """
        self.visual = build_any_visual(self.config, self._own_size)
        if self.pretrained is None:
            say_random(self.name)
        else:
            report = load_visual(self.visual, self.name, str(self.pretrained))
            logger.info("teacher %s %s: %s", self.name, self.pretrained, report)
        self._fit()

    def look(self, frames: Tensor) -> Seen:
        """See ``FrameTeacher``."""
        trunk, layers = self.visual.trunk, self.layers
        attention: list[Tensor] = []

        def see(module: Any, inputs: tuple[Tensor, ...]) -> None:
            attention.append(_attention(module, inputs[0]))

        watched = trunk.blocks[-1].attn
        hook = watched.register_forward_pre_hook(see) if self.saliency else None
        try:
            found = trunk.forward_intermediates(
                frames,
                indices=layers,
                norm=self.final_norm,
                output_fmt="NLC",
                return_prefix_tokens=True,
                intermediates_only=True,
            )
        finally:
            if hook is not None:
                hook.remove()
        pairs = [layer if isinstance(layer, tuple) else (layer, None) for layer in found]
        patches = [x for x, _ in pairs]
        first = [prefix[:, 0] for _, prefix in pairs] if self.class_token else None
        if self.saliency is None:
            return Seen(patches, first, None)
        return Seen(patches, first, saliency_of(attention[0], self.saliency, patches[0].shape[1]))


def _attention(module: Any, x: Tensor) -> Tensor:
    """Attention (F, h, L, L) of timm's module for normed tokens (F, L, W)."""
    if not hasattr(module, "qkv"):
        raise ValueError(
            f"{type(module).__name__} does not say where it looks; set the teacher's saliency to "
            "null"
        )
    shape = (*x.shape[:2], 3, module.num_heads, -1)
    query, key, _ = module.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
    query, key = module.q_norm(query), module.k_norm(key)
    attention: Tensor = ((query * module.scale) @ key.mT).softmax(-1, dtype=torch.float32)
    return attention
