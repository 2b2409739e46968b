"""An image tower that learns time: each frame alone, then B-Mamba blocks over the frames.

The tower is one of open_clip: CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343). What the blocks
over time add begins at zero, so that a fresh encoder sees what the tower sees: the mean of its
frames. Shape legend: see ``vmm.types``; F frames in a flat batch, W width of the tower, V visible
tokens of a frame, without the class token where there is one, E width of the joint space.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vmm.models.clip_tower import checked_config, read_config, read_visual
from vmm.models.image_tower import ImageTower, build_image_tower, hide, tower_of
from vmm.models.joint_projection import JointProjection
from vmm.models.layers import tapped_layers
from vmm.models.mamba import BiMambaBlock
from vmm.models.video_encoder import VideoEncoder
from vmm.models.weights import KeyReport, load_accounted
from vmm.ops.attention import attention_kernel
from vmm.types import VideoFeatures

logger = logging.getLogger(__name__)

TimeOver = Literal["frames", "tokens"]


class FrameMamba(VideoEncoder):
    """Frames through an image tower of open_clip, then B-Mamba over time.

    Towers of CLIP's, SigLIP's and timm's plain ViTs are taken; refused are those that
    ``vmm.models.image_tower.REFUSED`` names. The pooled frames are those of the tower before its
    projection to the joint space, which ``VideoTextModel`` has a place for. Parameters are named
    ``visual.`` (the tower, as open_clip names them: ``visual.transformer.resblocks.0.`` and so on)
    and ``time_blocks.``.

    Args:
        name: An open_clip model name, or the path of a model config (``.json``).
        pretrained: A tag of open_clip for that model, or a file of the whole model or of its image
            tower; None = random weights.
        num_frames: Frames per clip in training; any number works.
        image_size: Side of the frames, pixels; the position table is resized for others.
        time_depth: B-Mamba blocks over time; 0 leaves time out, which makes the control that sees
            no motion.
        time_over: What the blocks over time see: ``frames``, the pooled frames, T of them, each
            less the clip's mean: cheap, but the tokens that matching and alignment look at know
            nothing of time; ``tokens``, all tokens of the clip, frame after frame, before they are
            pooled.
        d_state: States per channel of the blocks over time.
        d_conv: Taps of their convolution.
        expand: Their inner width divided by W.
        num_checkpointed: The first so many blocks, those over time last, recompute their
            activations in backward.
        piece_length: Tokens that ``encode_long_video`` takes through a block over time at once.
        architecture: The model config itself, where it is known; ``name`` is then only a name.

    Raises:
        ValueError: If there is no such model, its image tower is refused, or sizes do not fit.
    """

    keeps_projection: ClassVar[bool] = False
    """Whether the tower keeps its projection to the joint space, which nothing here reads."""

    def __init__(
        self,
        name: str = "ViT-B-16-quickgelu",
        pretrained: str | None = None,
        num_frames: int = 8,
        image_size: int = 224,
        time_depth: int = 4,
        time_over: TimeOver = "frames",
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        num_checkpointed: int = 0,
        piece_length: int = 4096,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        known = architecture is not None
        config = checked_config(architecture, name) if known else read_config(name)
        numbers = {"image_size": image_size, "d_state": d_state, "d_conv": d_conv, "expand": expand}
        for what, number in (numbers | {"piece_length": piece_length}).items():
            if number < 1:
                raise ValueError(f"{what} {number} must be at least 1")
        tapped_layers(time_depth, 0, 1)  # refuses a depth of no encoder
        visual: Any = build_image_tower(config, image_size)
        tower = tower_of(visual)
        super().__init__(tower.width, num_frames, image_size, tower.patch_size)
        self.name = name
        self.pretrained = pretrained
        self.architecture = config
        self.time_over: TimeOver = time_over
        self.inner_dim = expand * tower.width
        self.num_checkpointed = num_checkpointed
        self.piece_length = piece_length
        if not self.keeps_projection:
            tower.drop_projection()  # the model's ``vision_proj`` takes its place
        self.visual = visual
        self.time_blocks = nn.ModuleList(
            BiMambaBlock(tower.width, d_state, d_conv, expand) for _ in range(time_depth)
        )
        for block in self.time_blocks:
            assert isinstance(block, BiMambaBlock)
            block.mixer.reset_parameters("mamba", 1)
            nn.init.zeros_(block.mixer.out_proj.weight)
        self._projection: JointProjection | None = None

    @property
    def tower(self) -> ImageTower:
        """How to walk through the image tower."""
        return tower_of(self.visual)

    def load_pretrained(self) -> KeyReport | None:
        """Load the tower's weights, if ``pretrained`` names any, and note its projection.

        Raises:
            ValueError: If the file or tag does not exist, cannot be fetched, or does not fit.
        """
        if self.pretrained is None:
            return None
        found = read_visual(self.name, self.pretrained)
        state, projection = self.tower.split(found.state)
        report = load_accounted(self.visual, state, str(found.path), {}, {})
        if projection is not None:
            self._projection = JointProjection(str(found.path), *projection, found.temperature)
        logger.info("video encoder %s %s: %s", self.name, self.pretrained, report)
        return report._replace(dropped=dict.fromkeys(found.other, "not part of the image tower"))

    def joint_projection(self) -> JointProjection | None:
        """The projection that came with the weights; see ``VideoEncoder``."""
        return self._projection

    def exported_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the model config, so that no file or name is looked up."""
        name = self.name.replace("\\", "/").rpartition("/")[2]
        here = {"name": name, "pretrained": None, "architecture": self.architecture}
        return dict(given) | here

    def forward(
        self,
        video: Tensor,
        dropped: Tensor | None = None,
        keep_temporal: bool = False,
        with_taps: bool = False,
    ) -> VideoFeatures:
        """Encode clips (B, T, C, H, W); every frame must hide the same number of patches.

        A frame is pooled as the tower does, and ``cls`` is the mean of that over the frames. The
        tap is what the tower's pooling sees; where frames have no class token, ``cls`` is first.
        """
        if video.dim() != 5:
            raise ValueError(f"video must be (B, T, C, H, W), got shape {tuple(video.shape)}")
        batch, frames = video.shape[:2]
        x = self.see(video.flatten(0, 1), dropped, frames)
        if self.time_over == "tokens":
            length = x.shape[1]
            joined = x.reshape(batch, frames * length, -1)
            x = self.over_time(joined).reshape(-1, length, x.shape[2])
        patches, pooled = self.tower.pool(x)
        pooled = pooled.view(batch, frames, -1)
        if self.time_over == "frames":
            pooled = self.over_time(pooled)
        mean = pooled.mean(1, keepdim=True)
        taps = None
        if with_taps:
            cls = mean
            if self.tower.has_class_token:
                cls, x = x[:, 0].view(batch, frames, -1).mean(1, keepdim=True), x[:, 1:]
            taps = torch.cat([cls, x.reshape(batch, -1, x.shape[2])], 1)[None]
        tokens = patches.reshape(batch, -1, patches.shape[2])
        return VideoFeatures(tokens, pooled if keep_temporal else mean, taps, mean)

    def see(self, frames: Tensor, dropped: Tensor | None = None, num_frames: int = 1) -> Tensor:
        """Pass frames through the tower's blocks, each alone.

        Args:
            frames: (F, C, H, W).
            dropped: As for ``forward``; then F is a multiple of ``num_frames``.
            num_frames: Frames of a clip.

        Returns:
            (F, [1 +] V, W), what ``time_over`` tokens is about.
        """
        size = frames.shape[2:]
        if any(side % self.patch_size for side in size):
            raise ValueError(
                f"frames of {size[0]}x{size[1]} pixels do not divide into patches of "
                f"{self.patch_size}; resize the clip"
            )
        tower = self.tower
        x = tower.embed(frames)
        if dropped is not None:
            x = hide(x, dropped, num_frames, tower.has_class_token)
        for number, block in enumerate(tower.blocks):
            x = self._run(block, x, number)
        return x

    def over_time(self, x: Tensor) -> Tensor:
        """Add to a sequence (B, L, W) what the blocks over time say.

        Of pooled frames they see how each differs from the mean of all. Most of what a tower pools
        is the same in every frame, and in it what moves would drown.
        """
        # The stream is float32 in models of bfloat16 weights, too, as VideoMamba's is.
        x32 = x.to(torch.promote_types(x.dtype, torch.float32))
        seen = x32 - x32.mean(1, keepdim=True) if self.time_over == "frames" else x32
        stream = seen
        before = len(self.tower.blocks)
        for number, block in enumerate(self.time_blocks, before):
            stream = stream + self._run(block, stream, number)
        return (x32 + (stream - seen)).to(x.dtype)

    def _run(self, block: nn.Module, x: Tensor, number: int) -> Tensor:
        if number < self.num_checkpointed and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(_through, block, x, use_reentrant=False)
            return recomputed
        return _through(block, x)

    def unread(self, tokens: bool, pooled: bool) -> list[nn.Module]:
        """What comes after the tap, as far as nothing reads it; see ``VideoEncoder``."""
        if pooled:
            return []
        over_time = list(self.time_blocks) if self.time_over == "frames" else []
        return self.tower.unread(tokens) + over_time

    def layer_names(self) -> list[tuple[str, ...]]:
        """The tower's embedding and blocks; those over time, which are new, come after them."""
        tower = self.tower
        blocks = [(f"visual.{tower.block_prefix}{i}.",) for i in range(len(tower.blocks))]
        return [tuple(f"visual.{name}" for name in tower.embedding), *blocks]

    def no_weight_decay(self) -> set[str]:
        """The position table and the class token."""
        return {f"visual.{name}" for name in self.tower.tables}

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit the state dict of another image size, or of an encoder that knows no time.

        ``visual.positional_embedding`` (1 + N, W), or timm's table, is resized. The tower's own
        projection is left out. Where there are no blocks over time, they begin at zero.
        """
        inside = "visual."
        tower = {k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)}
        others = {k: v for k, v in state.items() if not k.startswith(inside)}
        if not any(key.startswith("time_blocks.") for key in others):
            fresh = self.time_blocks.state_dict(prefix="time_blocks.")
            others |= {key: value.clone() for key, value in fresh.items()}
        return {inside + k: v for k, v in self.tower.split(tower)[0].items()} | others


def _through(block: nn.Module, x: Tensor) -> Tensor:
    """Pass (B, L, W) through a block, with the same kernel when it is recomputed."""
    with attention_kernel(x.device, x.shape[1], x.shape[1]):
        out: Tensor = block(x)
    return out
