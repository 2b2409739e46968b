"""Building blocks of the video encoder: patches, position tables, pooling, drop path.

Shape legend: see ``vmm.types``; (h, w) is the patch grid of one frame, N = h * w.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmm.ops.rms_norm import rms_norm as normalise

Pooling = Literal["cls", "avg", "cls+avg", "cls_cat_avg"]

_MOST_BLOCKS = 1000
"""The published encoders have 24 or 32; a mistyped number must not build blocks for hours."""


def rms_norm(norm: nn.RMSNorm, residual: Tensor) -> Tensor:
    """Normalise the float32 residual stream (B, L, D); returns the type of the norm's weights.

    In float32 also in a model of bfloat16 weights, as the published kernel does.
    """
    weight = norm.weight.to(residual.dtype)
    assert norm.eps is not None
    return normalise(residual, weight, norm.eps).to(norm.weight.dtype)


class PatchEmbed(nn.Module):
    """Cut a clip into tubelets and project each to a token.

    Patches do not overlap, so the 3-D convolution of the published model is one matrix product;
    the parameters keep its shape and names (``proj.weight`` (D, C, t, p, p)).

    Args:
        embed_dim: Token width D.
        patch_size: Side p of a patch, pixels.
        tubelet_size: Frames t per token.
        in_channels: Colour channels C.
    """

    def __init__(
        self, embed_dim: int, patch_size: int, tubelet_size: int = 1, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_channels, embed_dim, kernel_size=kernel, stride=kernel)

    def forward(self, video: Tensor, rows: Tensor | None = None) -> Tensor:
        """Embed (B, T, C, H, W) as (B, T / t, h, w, D), or only some of its tubelets.

        Args:
            video: The clips.
            rows: (M,) int64, which of all B * T / t * h * w tubelets; the result is (M, D).

        Raises:
            ValueError: If T, H or W is not a multiple of the tubelet or patch size.
        """
        b, t, c, height, width = video.shape
        p, k = self.patch_size, self.tubelet_size
        if height % p or width % p or t % k:
            raise ValueError(
                f"a clip of {t} frames of {height}x{width} pixels does not divide into tubelets of "
                f"{k} frames and patches of {p} pixels; resize the clip"
            )
        x = video.reshape(b, t // k, k, c, height // p, p, width // p, p)
        x = x.permute(0, 1, 4, 6, 3, 2, 5, 7)
        x = x.flatten(4) if rows is None else x[torch.unravel_index(rows, x.shape[:4])].flatten(1)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


def inflate_kernel(weight: Tensor, tubelet_size: int) -> Tensor:
    """Give the patch kernel of an image model the depth of a tubelet, as the published loader does.

    The kernel is put in the middle and sees one frame; the others are met with zeros, so that a
    still gets the tokens of the image.

    Args:
        weight: (D, C, p, p) or (D, C, 1, p, p); of another shape, it stays as it is.
        tubelet_size: Frames t per token.

    Returns:
        (D, C, t, p, p).
    """
    if weight.ndim == 4:
        weight = weight.unsqueeze(2)
    if weight.ndim != 5 or weight.shape[2] != 1 or tubelet_size == 1:
        return weight
    before = tubelet_size // 2
    return F.pad(weight, (0, 0, 0, 0, before, tubelet_size - 1 - before))


def interpolate_spatial(pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
    """Fit a position table to another patch grid; the class entry stays.

    Bicubic without antialiasing, as the published loader does.

    Args:
        pos_embed: (1, 1 + S * S, D), the class entry first; a square grid.
        grid: Wanted patch rows and columns (h, w).

    Returns:
        (1, 1 + h * w, D); the table itself where the grid already fits.

    Raises:
        ValueError: If the table does not hold a square grid.
    """
    side = math.isqrt(pos_embed.shape[1] - 1)
    if side * side != pos_embed.shape[1] - 1:
        raise ValueError(
            f"a position table of {pos_embed.shape[1]} rows is not a class entry and a square grid"
        )
    if grid == (side, side):
        return pos_embed
    patches = pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches.float(), size=grid, mode="bicubic", align_corners=False)
    patches = patches.to(pos_embed.dtype).flatten(2).transpose(1, 2)
    return torch.cat([pos_embed[:, :1], patches], dim=1)


def interpolate_temporal(temporal_pos_embedding: Tensor, num_steps: int) -> Tensor:
    """Fit a table over time to another number of steps, linearly.

    The table's own length decides, never a declared one.

    Args:
        temporal_pos_embedding: (1, S, D).
        num_steps: Wanted length T.

    Returns:
        (1, T, D); the table itself where the length already fits.
    """
    if temporal_pos_embedding.shape[1] == num_steps:
        return temporal_pos_embedding
    table = temporal_pos_embedding.float().transpose(1, 2)
    table = F.interpolate(table, size=num_steps, mode="linear", align_corners=False)
    return table.transpose(1, 2).to(temporal_pos_embedding.dtype)


def sinusoid_table(num_positions: int, dim: int) -> Tensor:
    """Fixed sine-cosine position table (Vaswani et al. 2017, section 3.5).

    Computed in float64: angle = position / 10000^(2 floor(j / 2) / dim), sine on even columns j,
    cosine on odd ones.

    Returns:
        (num_positions, dim) float32.
    """
    column = torch.arange(dim, dtype=torch.float64)
    rate = 10000.0 ** (2 * torch.div(column, 2, rounding_mode="floor") / dim)
    angle = torch.arange(num_positions, dtype=torch.float64).unsqueeze(1) / rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def draw_tables(std: float, *tables: Tensor) -> None:
    """Initialise tables of positions of any shape, all alike.

    Args:
        std: Standard deviation.
        *tables: To be drawn in place, in this order.

    Raises:
        ValueError: If ``std`` is not above 0.
    """
    if not 0 < std < math.inf:
        raise ValueError(f"position_std {std} must be above 0, e.g. 0.5; null is as published")
    for table in tables:
        nn.init.normal_(table, std=std)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero whole samples of a residual branch at random and scale up the rest.

    Stochastic depth (Huang et al. 2016, arXiv 1603.09382). ``x`` is (B, ...).
    """
    if rate == 0.0 or not training:
        return x
    shape = (x.shape[0], *[1] * (x.dim() - 1))
    keep = torch.rand(shape, dtype=torch.float32, device=x.device) >= rate
    return x * (keep.to(x.dtype) / (1 - rate))


def tapped_layers(depth: int, num_taps: int, tap_interval: int) -> list[int]:
    """Number the layers whose features the alignment loss reads, shallow to deep, from 0.

    Args:
        depth: Layers of the encoder.
        num_taps: How many, counted from the last.
        tap_interval: Distance between two of them.

    Raises:
        ValueError: If a number is out of range, or they reach below the first layer.
    """
    if not 0 <= depth <= _MOST_BLOCKS:
        raise ValueError(f"depth {depth} must be 0 to {_MOST_BLOCKS} blocks")
    if tap_interval < 1:
        raise ValueError(f"tap_interval {tap_interval} must be at least 1")
    layers = [depth - 1 - k * tap_interval for k in reversed(range(num_taps))]
    if layers and layers[0] < 0:
        raise ValueError(
            f"{num_taps} taps at interval {tap_interval} do not fit into {depth} blocks; "
            "lower num_taps or tap_interval"
        )
    return layers


def pool_tokens(cls_token: Tensor, patches: Tensor, pooling: Pooling, num_steps: int) -> Tensor:
    """Pool normalised tokens of a clip, as the published multimodal model does.

    Args:
        cls_token: (B, 1, D).
        patches: (B, M, D), frame-major.
        pooling: ``cls``, ``avg`` (mean over patches), ``cls+avg`` (their sum) or ``cls_cat_avg``
            (both, side by side; with time kept the published code gives ``cls+avg``, and so do we).
        num_steps: 1 pools the clip; T pools every frame apart and adds the class token to each.

    Returns:
        (B, P, D) with P = 1 or T (2 for ``cls_cat_avg`` without time, 1 for ``cls``).

    Raises:
        ValueError: If M is not a multiple of ``num_steps``.
    """
    if pooling == "cls":
        return cls_token
    if patches.shape[1] % num_steps:
        raise ValueError(
            f"{patches.shape[1]} visible patches cannot be shared evenly by {num_steps} frames; "
            "hide the same number in each frame or pool the whole clip"
        )
    b, m, d = patches.shape
    mean = patches.reshape(b, num_steps, m // num_steps, d).mean(2)
    if pooling == "avg":
        return mean
    if pooling == "cls_cat_avg" and num_steps == 1:
        return torch.cat([cls_token, mean], dim=1)
    return cls_token + mean
