"""What encoders share that see a clip as tubelets behind one class token.

Parameter names are those of the published VideoMamba checkpoints. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    def embed(self, video: Tensor) -> Tensor:
        """Turn (B, T, C, H, W) into the full sequence (B, 1 + T * N, D), nothing hidden.

        The spatial table is added to every frame, the temporal one to patches of clips with more
        than one frame; the class token gets the spatial table's first entry.
        """
        patches = self.embed_steps(video, 0, video.shape[1] // self.tubelet_size)
        grid = (video.shape[-2] // self.patch_size, video.shape[-1] // self.patch_size)
        cls = self.embed_class(grid).expand(video.shape[0], -1, -1)
        return torch.cat([cls, patches.flatten(1, 2)], dim=1)

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
        _, t, h, w, _ = patches.shape
        patches = patches.flatten(2, 3) + interpolate_spatial(self.pos_embed, (h, w))[:, None, 1:]
        if total > 1:
            table = interpolate_temporal(self.temporal_pos_embedding, total)
            patches = patches + table[:, first : first + t].unsqueeze(2)
        elif self.training:  # its gradient is zero then, not missing: processes exchange it
            patches = patches + 0 * self.temporal_pos_embedding.sum()
        return patches
