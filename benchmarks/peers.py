"""Other implementations that the benchmarks compare vmm with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Scan = Callable[..., Tensor]


def scans() -> tuple[dict[str, Scan], list[str]]:
    """Return scans of other packages that run here, and notes on those that do not.

    Each takes u, delta, A, B, C, D, z, delta_bias as ``selective_scan`` of
    ``vmm.ops.scan.selective_scan``.
    """
    if importlib.util.find_spec("transformers") is None:
        return {}, ["transformers is not installed: its scan was not measured"]
    from transformers.models.mamba import modeling_mamba

    theirs = getattr(modeling_mamba, "mamba_selective_scan", None)
    if theirs is None:
        version = importlib.metadata.version("transformers")
        return {}, [f"transformers {version} has no separate scan: it was not measured"]

    def slow_path(*x: Tensor, pscan: bool = False) -> Tensor:
        out: Tensor | tuple[Tensor, ...] = theirs(*x, delta_softplus=True, use_mambapy=pscan)
        return out if isinstance(out, Tensor) else out[0]

    found: dict[str, Scan] = {"transformers": slow_path}
    if importlib.util.find_spec("mambapy") is None:
        return found, ["mambapy is not installed: its parallel scan was not measured"]
    found["mambapy"] = lambda *x: slow_path(*x, pscan=True)
    return found, []


class JointViT(nn.Module):
    """A ViT of timm whose blocks see the tokens of all frames at once (joint space-time attention).

    Args:
        name: Of the timm model.
        depth: Blocks.
        image_size: Side of the frames, pixels.
    """

    def __init__(self, name: str, depth: int, image_size: int) -> None:
        super().__init__()
        self.vit = _vit(name, depth, image_size)

    def forward(self, video: Tensor) -> Tensor:
        """Encode (B, T, C, H, W) as (B, D)."""
        patches = _embed(self.vit, video).flatten(1, 2)
        tokens: Tensor = torch.cat([self.vit.cls_token.expand(len(video), -1, -1), patches], 1)
        for block in self.vit.blocks:
            tokens = block(tokens)
        pooled: Tensor = self.vit.norm(tokens)[:, 0]
        return pooled


class DividedViT(nn.Module):
    """A TimeSformer (arXiv 2102.05095, divided space-time attention) of timm's parts.

    Each block attends over the frames of one patch, then over the patches of one frame with the
    class token, whose outputs are averaged over frames.

    Args:
        name: Of the timm model.
        depth: Blocks.
        image_size: Side of the frames, pixels.
    """

    def __init__(self, name: str, depth: int, image_size: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Attention

        self.vit = _vit(name, depth, image_size)
        dim = self.vit.embed_dim
        self.time_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        heads = {"num_heads": dim // 64, "qkv_bias": True}
        self.time_attentions = nn.ModuleList(Attention(dim, **heads) for _ in range(depth))
        self.time_outputs = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))

    def forward(self, video: Tensor) -> Tensor:
        """Encode (B, T, C, H, W) as (B, D)."""
        patches = _embed(self.vit, video)
        cls = self.vit.cls_token.expand(len(video), -1, -1)
        time = zip(self.time_norms, self.time_attentions, self.time_outputs, strict=True)
        for block, (norm, attention, output) in zip(self.vit.blocks, time, strict=True):
            b, t, n, d = patches.shape
            rows = patches.transpose(1, 2).reshape(b * n, t, d)
            rows = output(attention(norm(rows))).view(b, n, t, d)
            patches = patches + rows.transpose(1, 2)

            frames = torch.cat([cls.unsqueeze(1).expand(b, t, 1, d), patches], 2).flatten(0, 1)
            frames = block.attn(block.norm1(frames)).view(b, t, 1 + n, d)
            cls = cls + frames[:, :, 0].mean(1, keepdim=True)
            patches = patches + frames[:, :, 1:]

            tokens = torch.cat([cls, patches.flatten(1, 2)], 1)
            tokens = tokens + block.mlp(block.norm2(tokens))
            cls, patches = tokens[:, :1], tokens[:, 1:].view(b, t, n, d)
        pooled: Tensor = self.vit.norm(cls)[:, 0]
        return pooled


def _vit(name: str, depth: int, image_size: int) -> Any:
    import timm

    return timm.create_model(name, num_classes=0, depth=depth, img_size=image_size)


def _embed(vit: Any, video: Tensor) -> Tensor:
    """Return (B, T, N, D) with the places of patches; times cost nothing and are left out."""
    patches: Tensor = vit.patch_embed(video.flatten(0, 1)) + vit.pos_embed[:, 1:]
    return patches.view(*video.shape[:2], *patches.shape[1:])
