"""Image towers of open_clip in three steps that encoders can step between: embed, blocks, pool.

Two kinds are known: open_clip's own ViT (CLIP and most of its kind) and timm's plain ViT inside of
open_clip (SigLIP, SigLIP 2, CLIPA). Shape legend: see ``vmm.types``; F frames in a flat batch, W
width of the tower, V visible tokens of a frame, without the class token where there is one, E width
of the joint space.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmm.masking import gather_visible
from vmm.models.clip_tower import build_any_visual
from vmm.models.layers import interpolate_spatial

REFUSED = (
    "towers with convolutions, windows or several scales (ResNet, ConvNeXt, Swin, ViTamin, "
    "FastViT), with rotated or relative positions (EVA, PE), with register tokens, or that pool "
    "into several tokens (CoCa)"
)
"""What is not supported, for messages and documentation."""


Projection = tuple[Tensor, Tensor | None]
"""Weight (E, W) and bias (E,) of what maps pooled frames to the joint space."""


class ImageTower(ABC):
    """How to walk through a tower; holds nothing of its own.

    Args:
        visual: The tower, as open_clip builds it.
    """

    embedding: ClassVar[tuple[str, ...]]
    """How the parameters that embed the input begin."""
    block_prefix: ClassVar[str]
    """How the parameters of the blocks begin."""
    tables: ClassVar[set[str]]
    """Names of the position table, which comes first, and of the class token."""

    def __init__(self, visual: Any) -> None:
        self.visual = visual

    @property
    @abstractmethod
    def width(self) -> int:
        """Width W of the tokens and of the pooled frames."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a patch, pixels."""

    @property
    @abstractmethod
    def has_class_token(self) -> bool:
        """Whether a frame has one, which comes first."""

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The layers, first to last."""

    @abstractmethod
    def embed(self, frames: Tensor) -> Tensor:
        """Make what enters the first block: (F, C, H, W) to (F, [1 +] N, W)."""

    @abstractmethod
    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Finish what leaves the last block, (F, [1 +] V, W): patches (F, V, W), pooled (F, W)."""

    @abstractmethod
    def drop_projection(self) -> None:
        """Take the projection to the joint space out of the tower."""

    @abstractmethod
    def split(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Projection | None]:
        """Split a state dict of this tower, at any image size, from its projection.

        The position table is fitted to this tower's grid; other tensors may have any shape.
        """

    @abstractmethod
    def unread(self, tokens: bool) -> list[nn.Module]:
        """Name what only pooled frames need, and where nothing reads the tokens, their norm."""


class _ClipTower(ImageTower):
    """open_clip's own."""

    embedding = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
    block_prefix = "transformer.resblocks."
    tables: ClassVar = {"positional_embedding", "class_embedding"}

    @property
    def width(self) -> int:
        return int(self.visual.conv1.out_channels)

    @property
    def patch_size(self) -> int:
        return int(self.visual.conv1.kernel_size[0])

    @property
    def has_class_token(self) -> bool:
        return True

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.visual.transformer.resblocks)

    def embed(self, frames: Tensor) -> Tensor:
        x: Tensor = self.visual.conv1(frames)
        table = interpolate_spatial(
            self.visual.positional_embedding[None], (x.shape[2], x.shape[3])
        )
        first = self.visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([first, x.flatten(2).transpose(1, 2)], dim=1)
        out: Tensor = self.visual.ln_pre(x + table.to(x.dtype))
        return out

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normed: Tensor = self.visual.ln_post(x)
        patches = normed[:, 1:]
        if self.visual.pool_type == "tok":
            return patches, normed[:, 0]
        if self.visual.final_ln_after_pool:
            return patches, self.visual.ln_post(x[:, 1:].mean(1))
        return patches, patches.mean(1)

    def drop_projection(self) -> None:
        self.visual.proj = None

    def split(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Projection | None]:
        state = dict(state)
        table, projection = state.get("positional_embedding"), state.pop("proj", None)
        if table is not None:
            side = math.isqrt(len(self.visual.positional_embedding) - 1)
            table = interpolate_spatial(table[None].float(), (side, side))[0]
            state["positional_embedding"] = table
        return state, None if projection is None else (projection.T, None)

    def unread(self, tokens: bool) -> list[nn.Module]:
        return [] if tokens else [self.visual.ln_post]


class _TimmTower(ImageTower):
    """timm's plain ViT inside of open_clip."""

    embedding = (*("trunk.patch_embed.", "trunk.cls_token", "trunk.pos_embed", "trunk.norm_pre."),)
    block_prefix = "trunk.blocks."
    tables: ClassVar = {"trunk.pos_embed", "trunk.cls_token"}

    @property
    def width(self) -> int:
        return int(self.visual.trunk.embed_dim)

    @property
    def patch_size(self) -> int:
        return int(self.visual.trunk.patch_embed.patch_size[0])

    @property
    def has_class_token(self) -> bool:
        return bool(self.visual.trunk.has_class_token)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.visual.trunk.blocks)

    def embed(self, frames: Tensor) -> Tensor:
        trunk = self.visual.trunk
        x = trunk.patch_embed.proj(frames)
        grid = (x.shape[2], x.shape[3])
        x = trunk.patch_embed.norm(x.flatten(2).transpose(1, 2))
        table = self._table(trunk.pos_embed, grid).to(x.dtype)
        if self.has_class_token:
            cls = trunk.cls_token.to(x.dtype).expand(x.shape[0], -1, -1)
            if trunk.no_embed_class:
                return trunk.norm_pre(torch.cat([cls, x + table], 1))  # type: ignore[no-any-return]
            x = torch.cat([cls, x], 1)
        out: Tensor = trunk.norm_pre(x + table)
        return out

    def _table(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """Fit the position table, (1, [1 +] N, W), to a grid."""
        trunk = self.visual.trunk
        if self.has_class_token and not trunk.no_embed_class:
            return interpolate_spatial(table, grid)
        return interpolate_spatial(F.pad(table, (0, 0, 1, 0)), grid)[:, 1:]

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.visual.trunk
        x = trunk.norm(x)
        pooled: Tensor = trunk.head_drop(trunk.fc_norm(trunk.pool(x)))
        return x[:, int(self.has_class_token) :], pooled

    def drop_projection(self) -> None:
        self.visual.trunk.head = nn.Identity()
        self.visual.head = nn.Identity()

    def split(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Projection | None]:
        table = state.get("trunk.pos_embed")
        heads = ("trunk.head.", "head.")
        found = {key: value for key, value in state.items() if key.startswith(heads)}
        state = {key: value for key, value in state.items() if key not in found}
        if table is not None:
            rows, columns = self.visual.trunk.patch_embed.grid_size
            state["trunk.pos_embed"] = self._table(table.float(), (rows, columns))
        if not found:  # SigLIP: the pooled frame is in the joint space
            return state, (torch.eye(self.width), None)
        named = {key.rpartition(".")[2]: value for key, value in found.items()}
        weight = named.get("weight")
        return state, None if weight is None else (weight, named.get("bias"))

    def unread(self, tokens: bool) -> list[nn.Module]:
        trunk = self.visual.trunk
        parts = [trunk.fc_norm, *([] if trunk.attn_pool is None else [trunk.attn_pool])]
        return parts if tokens else [*parts, trunk.norm]


def build_image_tower(config: dict[str, Any], image_size: int) -> nn.Module:
    """Build the image tower of an open_clip model config, with random weights.

    Args:
        config: From ``vmm.models.clip_tower.read_config``.
        image_size: Side of the frames, pixels; sets the size of the position table.

    Raises:
        ValueError: If it is a tower that ``tower_of`` does not know.
    """
    vision = config["vision_cfg"]
    if "timm_model_name" not in vision and not isinstance(vision.get("layers", 12), int):
        raise ValueError(f"the image tower is a ResNet; {_remedy()}")
    visual: Any = build_any_visual(config, image_size)
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        if visual.attn_pool is not None or visual.pool_type == "none":
            raise ValueError(f"the image tower is CoCa's; {_remedy()}")
        return visual  # type: ignore[no-any-return]
    # timm's other classes have the same names for other things.
    plain = type(trunk).__name__ == "VisionTransformer" and trunk.pos_embed is not None
    more = any(hasattr(visual.head, name) for name in ("mlp", "pool"))
    if not plain or trunk.num_reg_tokens or more:
        raise ValueError(f"the image tower is {vision['timm_model_name']}; {_remedy()}")
    if trunk.patch_embed.img_size != (image_size, image_size):
        trunk.set_input_size(image_size)
    return visual  # type: ignore[no-any-return]


def _remedy() -> str:
    return f"take a plain ViT such as ViT-B-16-quickgelu or ViT-B-16-SigLIP, not {REFUSED}"


def tower_of(visual: nn.Module) -> ImageTower:
    """Say how to walk through a tower from ``build_image_tower``."""
    return _TimmTower(visual) if hasattr(visual, "trunk") else _ClipTower(visual)


def hide(x: Tensor, dropped: Tensor, num_frames: int, has_class_token: bool) -> Tensor:
    """Leave hidden patches out of embedded frames.

    Args:
        x: (B * T, [1 +] N, W).
        dropped: (B, 1 + T * N) bool, True = hidden, the class token (never hidden) first.
        num_frames: T.
        has_class_token: Whether each frame begins with one.

    Returns:
        (B * T, [1 +] V, W).

    Raises:
        ValueError: If the mask has another size or frames hide unequal numbers of patches.
    """
    patches = x.shape[1] - int(has_class_token)
    if dropped.shape[1] != 1 + num_frames * patches:
        raise ValueError(
            f"a mask of {dropped.shape[1]} tokens does not fit {num_frames} frames of "
            f"{patches} patches"
        )
    hidden = dropped[:, 1:].reshape(-1, patches)
    counts = hidden.sum(1)
    if (counts != counts[0]).any():
        raise ValueError(
            "frames hide unequal numbers of patches, which a per-frame encoder cannot batch; "
            "mask with kind attention, tube or frame_row"
        )
    return gather_visible(x, F.pad(hidden, (int(has_class_token), 0), value=False))
