"""VideoMamba: a bidirectional state-space video encoder (arXiv 2403.06977).

Tokens lie frame by frame, raster inside a frame, behind one class token; ``scan_order`` says in
which sequences they are scanned. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vmm.models.layers import Pooling, drop_path, pool_tokens, rms_norm, tapped_layers
from vmm.models.mamba import BiMambaBlock, MixerInit
from vmm.models.pieces import mix_in_pieces
from vmm.models.scan_order import (
    SPATIAL,
    PathScan,
    Permutation,
    ScanOrder,
    ScanPath,
    block_orders,
    temporal_path,
)
from vmm.models.tubelet_encoder import TubeletEncoder
from vmm.types import VideoFeatures

Tap = Literal["before_last_mixer", "after_last_mixer"]


class VideoMamba(TubeletEncoder):
    """The published encoder: any number of frames, any resolution, masked input, images.

    Position tables are interpolated on the fly where a clip differs from the configured size.

    Args:
        embed_dim: Width D.
        depth: Number of B-Mamba blocks.
        num_frames: Frames of the temporal position table.
        image_size: Side of the frames of the spatial position table, pixels.
        patch_size: Side of a patch, pixels.
        tubelet_size: Frames per token.
        d_state: States per channel of the mixer.
        d_conv: Taps of the mixer's convolution.
        expand: Inner width of the mixer divided by D.
        pooling: How tokens become the pooled feature; ``cls+avg`` is the published choice.
        pool_norm: Normalise the pooled feature once more, as the published stage-2 model does; its
            classifiers and its stage-1 model do not.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        num_checkpointed: The first so many blocks recompute their activations in backward.
        piece_length: Longer sequences go through checkpointed blocks in pieces of so many tokens,
            of which backward recomputes one at a time; ``encode_long_video`` uses it too.
        num_taps: Layers K whose features the alignment loss reads, counted from the last.
        tap_interval: Distance between two of them.
        tap: Where the deepest feature is taken. The published code reads the residual stream
            before the last mixer's output is added, without a norm (specification, section 3.2).
        init: ``mamba`` keeps Mamba's step-size initialisation, ``reference`` is what the published
            code ends up with.
        scan_order: In which sequences the blocks scan (paper, figure 7a; the published models and
            code: ``spatial``, frame after frame). ``temporal``: place after place, each over all
            frames. ``st_v1``: the forward branch along the spatial path, the backward branch along
            the temporal one. ``st_v2``: both branches along both paths, which share all parameters;
            the sum of the four scans is halved, so that outputs are as large as those of two.
            ``half_spatial_then_temporal``: the first half of the layers (rounded down) spatial, the
            others temporal; ``half_temporal_then_spatial``: the other way round;
            ``alternating``: spatial, temporal, spatial, ... All have the same parameters, so that
            weights of one load into any other, and treat images alike.
        position_std: Standard deviation of the tables of positions at the start; None = as
            published, 0.02 in space and zeros in time. What is trained from random weights on
            little data learns sooner where things are, and when, with about 0.5.

    Raises:
        ValueError: If sizes do not divide each other, ``num_taps`` reaches below the first block,
            ``scan_order`` is unknown or ``position_std`` is not above 0.
    """

    def __init__(
        self,
        embed_dim: int = 576,
        depth: int = 32,
        num_frames: int = 8,
        image_size: int = 224,
        patch_size: int = 16,
        tubelet_size: int = 1,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        pooling: Pooling = "cls+avg",
        pool_norm: bool = True,
        drop_path_rate: float = 0.0,
        num_checkpointed: int = 0,
        piece_length: int = 4096,
        num_taps: int = 1,
        tap_interval: int = 1,
        tap: Tap = "before_last_mixer",
        init: MixerInit = "mamba",
        rescale_prenorm_residual: bool = True,
        scan_order: ScanOrder = "spatial",
        position_std: float | None = None,
    ) -> None:
        super().__init__(embed_dim, num_frames, image_size, patch_size, tubelet_size)
        for name, size in {"d_state": d_state, "d_conv": d_conv, "expand": expand}.items():
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        self.tap_layers = tapped_layers(depth, num_taps, tap_interval)
        if piece_length < 1:
            raise ValueError(f"piece_length {piece_length} must be at least 1, e.g. 4096")
        self.num_taps = num_taps
        self.tap = tap
        self.block_orders = block_orders(scan_order, depth)
        self.inner_dim = expand * embed_dim
        self.piece_length = piece_length
        self.pooling = pooling
        self.num_checkpointed = num_checkpointed
        self.drop_path_rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]

        self.layers = nn.ModuleList(
            BiMambaBlock(embed_dim, d_state, d_conv, expand) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(embed_dim, eps=1e-5)
        self.pool_norm = nn.LayerNorm(embed_dim, eps=1e-5) if pool_norm else nn.Identity()

        self.draw_positions(position_std)
        for layer in self.layers:
            assert isinstance(layer, BiMambaBlock)
            layer.mixer.reset_parameters(init, depth if rescale_prenorm_residual else 1)

    def layer_names(self) -> list[tuple[str, ...]]:
        """The embedding, and each block; see ``VideoEncoder``."""
        blocks = [(f"layers.{i}.",) for i in range(len(self.layers))]
        return [("patch_embed.", "cls_token", "pos_embed", "temporal_pos_embedding"), *blocks]

    def unread(self, tokens: bool, pooled: bool) -> list[nn.Module]:
        """The norms after the taps, and the mixer after the last one; see ``VideoEncoder``."""
        parts: list[nn.Module] = [] if pooled else [self.pool_norm]
        if not (tokens or pooled):
            parts += [self.norm] if len(self.tap_layers) == 1 else []
            parts += [self.layers[-1]] if self.tap == "before_last_mixer" else []
        return parts

    def forward(
        self,
        video: Tensor,
        dropped: Tensor | None = None,
        keep_temporal: bool = False,
        with_taps: bool = False,
    ) -> VideoFeatures:
        """Encode clips; see ``VideoEncoder.forward``."""
        if video.dim() != 5:
            raise ValueError(f"video must be (B, T, C, H, W), got shape {tuple(video.shape)}")
        x = self.embed(video, dropped)
        steps = video.shape[1] // self.tubelet_size
        tokens, taps = self._blocks(x, with_taps, self._temporal_path(video, dropped))
        cls, patches = tokens[:, :1], tokens[:, 1:]
        pooled = pool_tokens(cls, patches, self.pooling, steps if keep_temporal else 1)
        pooled = self.pool_norm(pooled)
        return VideoFeatures(patches, pooled, torch.stack(taps) if taps else None, cls)

    def _temporal_path(self, video: Tensor, dropped: Tensor | None) -> Permutation | None:
        """Return the temporal path through (B, T, C, H, W), None where no block takes it."""
        if all(order == SPATIAL for order in self.block_orders):
            return None
        _, frames, _, height, width = video.shape
        patches = (height // self.patch_size) * (width // self.patch_size)
        return temporal_path(frames // self.tubelet_size, patches, video.device, dropped)

    def _checkpointed(
        self, layer: nn.Module, residual: Tensor, scans: tuple[PathScan, ...]
    ) -> Tensor:
        if residual.shape[1] > self.piece_length:
            assert isinstance(layer, BiMambaBlock)
            return mix_in_pieces(layer, residual, self.piece_length, scans)
        mixed: Tensor = checkpoint(layer, residual, scans, use_reentrant=False)
        return mixed

    def _blocks(
        self, x: Tensor, with_taps: bool, path: Permutation | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all blocks on (B, L, D): the normalised output and the taps, shallow to deep.

        ``path`` is the temporal one. The stream lies in the order that a block wants, so that
        layers of one order need no permutation between them.
        """
        # The stream stays in float32 under autocast and in bfloat16 models.
        residual = x.to(torch.promote_types(x.dtype, torch.float32))
        last = len(self.layers) - 1
        taps: list[Tensor] = []
        memory: ScanPath = "spatial"
        for i, (layer, order) in enumerate(zip(self.layers, self.block_orders, strict=True)):
            residual, memory = _laid(residual, path, memory, order.home), order.home
            scans = order.scans(path, memory)
            if i < self.num_checkpointed and torch.is_grad_enabled():
                hidden = self._checkpointed(layer, residual, scans)
            else:
                hidden = layer(residual, scans)
            tapped = with_taps and i in self.tap_layers
            if tapped and i == last and self.tap == "before_last_mixer":
                taps.append(_laid(residual, path, memory, "spatial"))
            residual = residual + drop_path(hidden, self.drop_path_rates[i], layer.training)
            if tapped and i < last:
                normed = rms_norm(self.norm, residual).to(residual.dtype)
                taps.append(_laid(normed, path, memory, "spatial"))
            elif tapped and self.tap == "after_last_mixer":
                taps.append(_laid(residual, path, memory, "spatial"))
        return rms_norm(self.norm, _laid(residual, path, memory, "spatial")), taps


def _laid(x: Tensor, path: Permutation | None, memory: ScanPath, wanted: ScanPath) -> Tensor:
    """Lay (B, L, D) in the order of another path."""
    if path is None or memory == wanted:
        return x
    return path.apply(x) if wanted == "temporal" else path.undo(x)
