"""What encoders share that see a clip as tubelets behind one class token.

Parameter names are those of the published VideoMamba checkpoints. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vmm.masking import visible_rows
from vmm.models.layers import (
    PatchEmbed,
    draw_tables,
    inflate_kernel,
    interpolate_spatial,
    interpolate_temporal,
)
from vmm.models.video_encoder import VideoEncoder


class TubeletEncoder(VideoEncoder):
    """Base of encoders with a learned class token and tables of positions in space and in time.

    The tables are interpolated on the fly where a clip differs from the configured size, and are
    zero until ``draw_positions``.

    Args:
        embed_dim: Width D.
        num_frames: Frames of the temporal position table.
        image_size: Side of the frames of the spatial position table, pixels.
        patch_size: Side of a patch, pixels.
        tubelet_size: Frames per token.
    """

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        image_size: int,
        patch_size: int,
        tubelet_size: int,
    ) -> None:
        super().__init__(embed_dim, num_frames, image_size, patch_size, tubelet_size)
        self.patch_embed = PatchEmbed(embed_dim, patch_size, tubelet_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.num_patches, embed_dim))
        steps = num_frames // tubelet_size
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, steps, embed_dim))

    def draw_positions(self, std: float | None) -> None:
        """Initialise the tables of positions.

        Args:
            std: Standard deviation of both; None = as published, 0.02 in space and zeros in time.

        Raises:
            ValueError: If ``std`` is not above 0.
        """
        if std is None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            return
        draw_tables(std, self.pos_embed, self.temporal_pos_embedding)

    def no_weight_decay(self) -> set[str]:
        """The position tables and the class token."""
        return {"cls_token", "pos_embed", "temporal_pos_embedding"}

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit a state dict of other sizes, or of an image model, to this encoder's.

        ``pos_embed`` becomes (1, 1 + N, D) and ``temporal_pos_embedding`` (1, T, D). A patch kernel
        of one frame is inflated (``inflate_kernel``); that of a published image model,
        (D, C, p, p), comes without a table over time, which starts at zero. Others stay.
        """
        side = self.image_size // self.patch_size
        state = dict(state)
        kernel = state.get("patch_embed.proj.weight")
        if kernel is not None:
            state["patch_embed.proj.weight"] = inflate_kernel(kernel, self.tubelet_size)
            if kernel.ndim == 4:
                table = torch.zeros_like(self.temporal_pos_embedding, device=kernel.device)
                state.setdefault("temporal_pos_embedding", table.detach())
        if "pos_embed" in state:  # load_state_dict names what is missing
            state["pos_embed"] = interpolate_spatial(state["pos_embed"], (side, side))
        if "temporal_pos_embedding" in state:
            steps = self.num_frames // self.tubelet_size
            table = state["temporal_pos_embedding"]
            state["temporal_pos_embedding"] = interpolate_temporal(table, steps)
        return state

    def embed(self, video: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Turn clips into sequences: the class token, and the patches that are visible.

        The spatial table is added to every frame, the temporal one to patches of clips with more
        than one frame; the class token gets the spatial table's first entry.

        Args:
            video: (B, T, C, H, W).
            dropped: (B, 1 + T * N) bool, True = hidden; None = nothing.

        Returns:
            (B, 1 + visible patches, D).

        Raises:
            ValueError: If the mask is one of another grid, or hides unequal numbers.
        """
        clips, steps = video.shape[0], video.shape[1] // self.tubelet_size
        grid = (video.shape[-2] // self.patch_size, video.shape[-1] // self.patch_size)
        if dropped is None:
            patches = self.embed_steps(video, 0, steps).flatten(1, 2)
        else:
            _refuse_other_grid(dropped, clips, steps, math.prod(grid))
            rows = visible_rows(dropped[:, 1:])
            table = self._positions(grid, 0, steps, steps).flatten(0, 1)
            patches = self.patch_embed(video, rows) + table.index_select(0, rows % len(table))
            patches = patches.view(clips, -1, self.embed_dim)
        cls = self.embed_class(grid).expand(clips, -1, -1)
        return torch.cat([cls, patches], dim=1)

    def embed_class(self, grid: tuple[int, int]) -> Tensor:
        """Return the class token (1, 1, D) for frames of (h, w) patches."""
        token: Tensor = self.cls_token + interpolate_spatial(self.pos_embed, grid)[:, :1]
        return token

    def embed_steps(self, video: Tensor, first: int, total: int) -> Tensor:
        """Embed a portion of a video.

        Args:
            video: (B, t, C, H, W).
            first: Step of time that the portion begins with.
            total: Steps of the whole video.

        Returns:
            (B, t / tubelet_size, N, D).
        """
        patches: Tensor = self.patch_embed(video)
        _, steps, *grid, _ = patches.shape
        return patches.flatten(2, 3) + self._positions((grid[0], grid[1]), first, steps, total)

    def _positions(self, grid: tuple[int, int], first: int, steps: int, total: int) -> Tensor:
        """Return what some steps of ``total`` get for their place and time, (steps, N, D)."""
        places = interpolate_spatial(self.pos_embed, grid)[0, 1:]
        if total > 1:
            times = interpolate_temporal(self.temporal_pos_embedding, total)[0]
            return places + times[first : first + steps, None]
        if self.training:  # its gradient is zero then, not missing: processes exchange it
            places = places + 0 * self.temporal_pos_embedding.sum()
        return places[None]


def _refuse_other_grid(dropped: Tensor, clips: int, steps: int, patches: int) -> None:
    wanted = (clips, 1 + steps * patches)
    if dropped.shape != wanted:
        raise ValueError(
            f"dropped has shape {tuple(dropped.shape)} but the clip makes {wanted} tokens (class "
            f"token included); draw the mask for {steps} steps of {patches} patches"
        )
