"""Two Vision Transformers over clips, the baselines that VideoMamba is compared with.

``JointViT``: every token looks at all tokens of the clip (joint space-time attention; TimeSformer,
arXiv 2102.05095, section 3, "ST"; the DeiT of VideoMamba's efficiency figures). ``DividedViT``: a
token looks at its place in all frames, then at its frame (divided attention, "T+S" there). Blocks
and parameter names are those of timm's ViT (arXiv 2010.11929), so that its ImageNet and CLIP
weights load key by key. Shape legend: see ``vmm.types``; V visible tokens, h heads, d width of one.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vmm.masking import visible_rows
from vmm.models.image_weights import load_image_weights
from vmm.models.layers import Pooling, drop_path, pool_tokens, tapped_layers
from vmm.models.tubelet_encoder import TubeletEncoder
from vmm.models.weights import KeyReport
from vmm.ops.attention import attention
from vmm.ops.quick_gelu import quick_gelu
from vmm.types import VideoFeatures

logger = logging.getLogger(__name__)


class _Grid(NamedTuple):
    """Where the tokens of a clip lie."""

    steps: int
    """Steps of time T."""
    places: Tensor | None
    """(B, V - 1, 2), step and patch of every visible patch token; None: all are there, in order."""


class _Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, h, L, d) each, of (B, L, D)."""
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def join(self, heads: Tensor) -> Tensor:
        """Put the heads (B, h, L, d) together: (B, L, D)."""
        joined: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return joined

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within (B, L, D); ``mask`` (B, 1, L, L) bool, True = may be looked at."""
        return self.join(attention(*self.project(x), mask))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, quick_gelu: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.quick_gelu = quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        out: Tensor = self.fc2(quick_gelu(x) if self.quick_gelu else F.gelu(x))
        return out


class _Block(nn.Module):
    """Pre-norm block: attention, then a network of two layers, each added to the stream."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, rate: float, quick_gelu: bool, eps: float
    ) -> None:
        super().__init__()
        self.rate = rate
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = _Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = _Mlp(dim, int(mlp_ratio * dim), quick_gelu)

    def forward(self, x: Tensor, grid: _Grid) -> Tensor:
        """Return the stream (B, V, D) after the block."""
        x = self.attend(x, grid)
        return self.added(x, self.mlp(self.norm2(x)))

    def attend(self, x: Tensor, grid: _Grid) -> Tensor:
        """Return the stream (B, V, D) after attention."""
        return self.added(x, self.attn(self.norm1(x)))

    def added(self, x: Tensor, change: Tensor) -> Tensor:
        """Add what a branch gives to the stream, both (B, V, D); drop path drops it."""
        return x + drop_path(change, self.rate, self.training)


class _DividedBlock(_Block):
    """A block that attends over time first, through an output that begins at zero."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, rate: float, quick_gelu: bool, eps: float
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, rate, quick_gelu, eps)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=eps)
        self.temporal_attn = _Attention(dim, num_heads)
        self.temporal_fc = nn.Linear(dim, dim)

    def attend(self, x: Tensor, grid: _Grid) -> Tensor:
        """Return the stream (B, V, D) after both attentions."""
        over_time = _over_time if grid.places is None else _over_visible_time
        change = self.temporal_fc(over_time(self.temporal_attn, self.temporal_norm1(x), grid))
        x = self.added(x, F.pad(change, (0, 0, 1, 0)))
        over_space = _over_space if grid.places is None else _over_visible_space
        return self.added(x, over_space(self.attn, self.norm1(x), grid))


def _over_time(attn: _Attention, x: Tensor, grid: _Grid) -> Tensor:
    """Attend over the steps of each place of (B, 1 + T * N, D): (B, T * N, D)."""
    batch, length, dim = x.shape
    # Of a single clip the rows would be a view, of which products are ten times as slow.
    rows = x[:, 1:].reshape(batch, grid.steps, -1, dim).transpose(1, 2).contiguous()
    mixed: Tensor = attn(rows.flatten(0, 1)).view(rows.shape)
    return mixed.transpose(1, 2).reshape(batch, length - 1, dim)


def _over_space(attn: _Attention, x: Tensor, grid: _Grid) -> Tensor:
    """Attend within each step of (B, 1 + T * N, D), the class token in all of them.

    Its outputs are meant over the steps.
    """
    frames = x[:, 1:].reshape(x.shape[0], grid.steps, -1, x.shape[-1])
    cls = x[:, None, :1].expand(-1, grid.steps, -1, -1)
    frames = torch.cat([cls, frames], 2)
    mixed = attn(frames.flatten(0, 1)).view(frames.shape)
    return torch.cat([mixed[:, :, 0].mean(1, keepdim=True), mixed[:, :, 1:].flatten(1, 2)], 1)


def _over_visible_time(attn: _Attention, x: Tensor, grid: _Grid) -> Tensor:
    """``_over_time`` of any visible tokens (B, V, D): all scores are computed, most left out."""
    assert grid.places is not None
    patch = grid.places[..., 1]
    mixed: Tensor = attn(x[:, 1:], (patch[:, :, None] == patch[:, None]).unsqueeze(1))
    return mixed


def _over_visible_space(attn: _Attention, x: Tensor, grid: _Grid) -> Tensor:
    """``_over_space`` of any visible tokens (B, V, D), in the same way."""
    assert grid.places is not None
    step = grid.places[..., 0]
    query, key, value = attn.project(x)
    # The class token asks once for each step.
    query = torch.cat([query[:, :, :1].expand(-1, -1, grid.steps, -1), query[:, :, 1:]], 2)
    each = torch.arange(grid.steps, device=x.device).expand(len(x), -1)
    mask = torch.cat([each, step], 1)[:, :, None] == step[:, None]
    heads = attention(query, key, value, F.pad(mask, (1, 0), value=True).unsqueeze(1))
    mixed = attn.join(heads)
    return torch.cat([mixed[:, : grid.steps].mean(1, keepdim=True), mixed[:, grid.steps :]], 1)


class _VideoViT(TubeletEncoder):
    """What both have in common; see there for the arguments."""

    block: type[_Block]

    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_frames: int = 8,
        image_size: int = 224,
        patch_size: int = 16,
        tubelet_size: int = 1,
        pooling: Pooling = "cls+avg",
        drop_path_rate: float = 0.0,
        num_checkpointed: int = 0,
        num_taps: int = 1,
        tap_interval: int = 1,
        clip_layout: bool = False,
        quick_gelu: bool = False,
        pretrained: str | None = None,
        position_std: float | None = None,
    ) -> None:
        super().__init__(embed_dim, num_frames, image_size, patch_size, tubelet_size)
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(
                f"{num_heads} attention heads do not divide the width {embed_dim}; change one"
            )
        self.tap_layers = tapped_layers(depth, num_taps, tap_interval)
        self.num_taps = num_taps
        self.pooling = pooling
        self.num_checkpointed = num_checkpointed
        self.quick_gelu = quick_gelu
        self.pretrained = pretrained
        eps = 1e-5 if clip_layout else 1e-6
        self.norm_pre = nn.LayerNorm(embed_dim, eps=eps) if clip_layout else nn.Identity()
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            self.block(embed_dim, num_heads, mlp_ratio, rate, quick_gelu, eps) for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        self.draw_positions(position_std)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.apply(_begin_at_zero)

    def load_pretrained(self) -> KeyReport | None:
        """Load the weights of an image model, if ``pretrained`` names any.

        Raises:
            ValueError: See ``load_image_weights``.
        """
        if self.pretrained is None:
            return None
        report = load_image_weights(self, self.pretrained, self.quick_gelu)
        logger.info("video encoder %s: %s", self.pretrained, report)
        return report

    def layer_names(self) -> list[tuple[str, ...]]:
        """The embedding, and each block; see ``VideoEncoder``."""
        tables = ("cls_token", "pos_embed", "temporal_pos_embedding")
        blocks = [(f"blocks.{i}.",) for i in range(len(self.blocks))]
        return [("patch_embed.", "norm_pre.", *tables), *blocks]

    def unread(self, tokens: bool, pooled: bool) -> list[nn.Module]:
        """The norm after the taps; see ``VideoEncoder``."""
        return [] if tokens or pooled else [self.norm]

    def forward(
        self,
        video: Tensor,
        dropped: Tensor | None = None,
        keep_temporal: bool = False,
        with_taps: bool = False,
    ) -> VideoFeatures:
        """Encode clips; see ``VideoEncoder.forward``. Taps are outputs of blocks, not normed."""
        x = self.norm_pre(self.embed(video, dropped))
        steps = video.shape[1] // self.tubelet_size
        grid = _Grid(steps, None if dropped is None else _places(steps, dropped[:, 1:]))
        taps = []
        for i, block in enumerate(self.blocks):
            if i < self.num_checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
            if with_taps and i in self.tap_layers:
                taps.append(x)
        x = self.norm(x)
        cls, patches = x[:, :1], x[:, 1:]
        pooled = pool_tokens(cls, patches, self.pooling, grid.steps if keep_temporal else 1)
        return VideoFeatures(patches, pooled, torch.stack(taps) if taps else None, cls)


class JointViT(_VideoViT):
    """A ViT whose tokens look at all tokens of the clip.

    Args:
        embed_dim: Width D.
        depth: Number of blocks.
        num_heads: Attention heads; published ViTs have one for 64 channels.
        mlp_ratio: Width of the network inside a block, divided by D.
        num_frames: Frames of the temporal position table.
        image_size: Side of the frames of the spatial position table, pixels.
        patch_size: Side of a patch, pixels.
        tubelet_size: Frames per token.
        pooling: How tokens become the pooled feature, as for ``VideoMamba``.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        num_checkpointed: The first so many blocks recompute their activations in backward.
        num_taps: Layers K whose features the alignment loss reads, counted from the last.
        tap_interval: Distance between two of them.
        clip_layout: A norm before the first block, and norms with CLIP's epsilon (1e-5, not 1e-6).
        quick_gelu: The activation of OpenAI's CLIP.
        pretrained: Weights of an image model to start from: a name of timm, e.g.
            ``vit_base_patch16_224.augreg_in21k_ft_in1k`` or, with ``clip_layout`` and
            ``quick_gelu``, ``vit_base_patch16_clip_quickgelu_224.openai``; or a file of such a
            model, of timm, or of OpenAI's or OpenCLIP's image towers. None = from scratch.
        position_std: As for ``VideoMamba``.

    Raises:
        ValueError: If sizes do not divide each other, ``num_taps`` reaches below the first block,
            or ``position_std`` is not above 0.
    """

    block = _Block


class DividedViT(_VideoViT):
    """A ViT whose blocks attend over time, then within each frame: TimeSformer.

    The class token takes part in the second attention only, in every frame, and its outputs are
    meant over the frames. What attention over time adds begins at zero, so that weights of an image
    model see each frame of a fresh encoder as the image model does. Tokens that a mask hides are
    left out of both attentions, whatever the mask.

    Args:
        embed_dim: As for ``JointViT``, like all that follow.
        depth: See there.
        num_heads: See there.
        mlp_ratio: See there.
        num_frames: See there.
        image_size: See there.
        patch_size: See there.
        tubelet_size: See there.
        pooling: See there.
        drop_path_rate: See there.
        num_checkpointed: See there.
        num_taps: See there.
        tap_interval: See there.
        clip_layout: See there.
        quick_gelu: See there.
        pretrained: See there.
        position_std: See there.
    """

    block = _DividedBlock


def _begin_at_zero(module: nn.Module) -> None:
    if isinstance(module, _DividedBlock):
        nn.init.zeros_(module.temporal_fc.weight)


def _places(steps: int, dropped: Tensor) -> Tensor:
    """Return step and patch, (B, visible, 2), of the patches that a mask (B, T * N) leaves."""
    numbers = visible_rows(dropped).view(len(dropped), -1) % dropped.shape[1]
    patches = dropped.shape[1] // steps
    return torch.stack([numbers // patches, numbers % patches], -1)
