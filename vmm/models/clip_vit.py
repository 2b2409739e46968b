"""CLIP image towers: the frozen teacher, and a video encoder without time.

CLIP (arXiv 2103.00020); the teacher's features as in VideoMamba (arXiv 2403.06977), section 3.3,
and UMT (arXiv 2303.16058). Shape legend: see ``vmm.types``; F frames in a flat batch, W width of
the tower, E width of its projection.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmm.models.clip_tower import build_tower, build_visual, load_visual, model_config, plain
from vmm.models.frame_mamba import FrameMamba
from vmm.models.layers import draw_tables, interpolate_spatial
from vmm.models.teacher import (
    Teacher,
    check_numbers,
    chosen_layers,
    join_frames,
    resized,
    say_random,
)
from vmm.models.weights import KeyReport
from vmm.ops.attention import attention_kernel
from vmm.types import TeacherFeatures

logger = logging.getLogger(__name__)


class ClipTeacher(Teacher):
    """Frozen CLIP image tower that says what a clip's patches mean and where it looks.

    Building it only stores the arguments. It wants the student's pixels: the published system
    normalises them with ImageNet statistics, for the teacher too.

    Args:
        name: An open_clip model name or the path of a model config; OpenAI's weights need a
            ``-quickgelu`` model.
        pretrained: As for ``load_visual``; None leaves the tower random, for smoke runs.
        image_size: Side of the frames the tower sees, pixels; others are resized.
        num_layers: Layers K whose tokens it gives, counted from the last; as many as the student
            has taps (its ``num_taps``).
        layer_interval: Distance between two of them.
        final_norm: Apply the tower's final norm to every layer before the projection, as UMT does;
            the published VideoMamba, whose features hold the class token, does not.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self,
        name: str = "ViT-B-16-quickgelu",
        pretrained: str | None = "openai",
        image_size: int = 224,
        num_layers: int = 1,
        layer_interval: int = 1,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        check_numbers(image_size=image_size, num_layers=num_layers, layer_interval=layer_interval)
        self.name = name
        self.pretrained = pretrained
        self.image_size = image_size
        self.num_layers = num_layers
        self.layer_interval = layer_interval
        self.final_norm = final_norm
        self.visual: Any = None  # an untyped open_clip tower

    @classmethod
    def from_config(cls, config: dict[str, Any], image_size: int | None = None) -> ClipTeacher:
        """Build a tower of random weights, frozen.

        Args:
            config: An open_clip model config.
            image_size: Side of its frames, pixels; None = the config's.
        """
        size = int(config["vision_cfg"]["image_size"]) if image_size is None else image_size
        teacher = cls("", None, size)
        teacher.visual = build_tower(config, size)
        return teacher.freeze()

    @property
    def output_dim(self) -> int:
        """Width E of the projected tokens."""
        if self.visual is not None:
            return int(self.visual.proj.shape[1])
        return int(model_config(self.name)["embed_dim"])

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers that it gives, shallow to deep, from 0.

        Raises:
            ValueError: If the tower has no such layer.
        """
        built = self.visual is not None
        depth = (
            len(_blocks(self.visual)) if built else model_config(self.name)["vision_cfg"]["layers"]
        )
        return chosen_layers(depth, self.num_layers, self.layer_interval, self.name)

    @property
    def looks(self) -> bool:
        """It says where its class token looks."""
        return True

    def build(self) -> None:
        """Build the tower; see ``Teacher``."""
        _ = self.layers
        self.visual = build_visual(self.name, self.image_size)
        self.freeze()

    def load(self) -> None:
        """Build the tower and load its weights.

        Raises:
            ValueError: See ``load_visual`` and ``layers``.
        """
        self.build()
        if self.pretrained is None:
            say_random(self.name)
        else:
            report = load_visual(self.visual, self.name, self.pretrained)
            logger.info("teacher %s %s: %s", self.name, self.pretrained, report)

    @torch.no_grad()
    def forward(self, video: Tensor) -> TeacherFeatures:
        """Look at every frame on its own.

        The tokens are the blocks' outputs times the projection.

        Args:
            video: (B, T, C, H, W) float.

        Raises:
            ValueError: If ``load`` was not called, or the tower has no such layers.
        """
        if self.visual is None:
            raise ValueError(f"teacher {self.name} has no weights yet; call load() first")
        b, t = video.shape[:2]
        frames = resized(video.flatten(0, 1), self.image_size)
        x = _embed(self.visual, frames)
        blocks, done, tokens = _blocks(self.visual), 0, []
        for layer in self.layers:
            x = _run(blocks[done:layer], x)
            before, x = x, _run(blocks[layer : layer + 1], x)
            done = layer + 1
            normed = self.visual.ln_post(x) if self.final_norm else x
            projected = normed @ self.visual.proj
            tokens.append(join_frames(projected.view(b, t, *projected.shape[1:])))
        attention = _class_attention(blocks[-1], before)
        return TeacherFeatures(torch.stack(tokens, 1), attention.view(b, t, -1))


class FrameViT(FrameMamba):
    """Every frame through a CLIP image tower on its own: the baseline that sees no motion.

    Shuffling the frames shuffles the tokens and leaves the pooled feature as it is. It is a
    ``FrameMamba`` without blocks over time, of a plain ViT, that keeps the tower's projection for
    those who load the tower as a teacher.

    Args:
        name: An open_clip model name or the path of a model config.
        pretrained: As for ``load_visual``; None = train from scratch.
        num_frames: Frames per clip in training; any number works.
        image_size: Side of the frames, pixels; the position table is resized for others.
        position_std: Standard deviation of the table of positions at the start; None = as
            open_clip has it.
        architecture: The model config itself, where it is known; ``name`` is then only a name.

    Raises:
        ValueError: If ``position_std`` is not above 0.
    """

    keeps_projection = True

    def __init__(
        self,
        name: str = "ViT-B-16-quickgelu",
        pretrained: str | None = None,
        num_frames: int = 8,
        image_size: int = 224,
        position_std: float | None = None,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        config = plain(architecture, name) if architecture is not None else model_config(name)
        super().__init__(name, pretrained, num_frames, image_size, 0, architecture=config)
        self.visual.proj.requires_grad_(False)
        if position_std is not None:
            draw_tables(position_std, self.visual.get_parameter("positional_embedding"))

    def load_pretrained(self) -> KeyReport | None:
        """Load the tower's weights, if ``pretrained`` names any.

        Raises:
            ValueError: See ``load_visual``.
        """
        if self.pretrained is None:
            return None
        report = load_visual(self.visual, self.name, self.pretrained)
        logger.info("video encoder %s %s: %s", self.name, self.pretrained, report)
        return report

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resize a state dict's position table (1 + patches, D) to this encoder's image size."""
        side = self.image_size // self.patch_size
        key = "visual.positional_embedding"
        return state | {key: interpolate_spatial(state[key][None], (side, side))[0]}


def _blocks(visual: Any) -> list[nn.Module]:
    return list(visual.transformer.resblocks)


def _embed(visual: Any, frames: Tensor) -> Tensor:
    """What enters the first block: (F, C, H, W) to (F, 1 + N, W), the class token first."""
    x: Tensor = visual.conv1(frames)
    table = interpolate_spatial(visual.positional_embedding[None], (x.shape[2], x.shape[3]))
    first = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([first, x.flatten(2).transpose(1, 2)], dim=1)
    out: Tensor = visual.ln_pre(x + table.to(x.dtype))
    return out


def _run(blocks: list[nn.Module], x: Tensor) -> Tensor:
    """Pass (F, 1 + N, W) through blocks."""
    with attention_kernel(x.device, x.shape[1], x.shape[1]):
        for block in blocks:
            x = block(x)
    return x


def _class_attention(block: Any, x: Tensor) -> Tensor:
    """Attention of the class token to each patch in a block, mean over heads: (F, N) float32.

    The attention to the class token itself is left out, so rows do not sum to one.
    """
    attn = block.attn
    x = block.ln_1(x)
    query_weight, key_weight, _ = attn.in_proj_weight.chunk(3)
    query_bias, key_bias, _ = attn.in_proj_bias.chunk(3)
    query = F.linear(x[:, 0], query_weight, query_bias).view(len(x), attn.num_heads, -1)
    key = F.linear(x, key_weight, key_bias).view(*x.shape[:2], attn.num_heads, -1)
    logits = torch.einsum("fhd,fnhd->fhn", query, key) / math.sqrt(query.shape[-1])
    return logits.softmax(-1, dtype=torch.float32).mean(1)[:, 1:]
