"""The head that maps student features to the teacher's space.

VideoMamba, section 3.3; UMT (arXiv 2303.16058), section 3.2. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vmm.masking import gather_visible
from vmm.models.layers import sinusoid_table
from vmm.ops.op_tools import at_least_float32


class _Decoder(nn.Module):
    """Linear projection and LayerNorm of one tap."""

    def __init__(self, embed_dim: int, output_dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(embed_dim, output_dim)
        self.norm = nn.LayerNorm(output_dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.norm(self.head(x.to(self.head.weight.dtype)))
        return projected


class AlignmentHead(nn.Module):
    """Add fixed positions to each tap and project it, one decoder per tap.

    Args:
        embed_dim: Width D of the student.
        output_dim: Width of the teacher's projected tokens.
        num_taps: Number K of tapped layers.
    """

    def __init__(self, embed_dim: int, output_dim: int, num_taps: int = 1) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(_Decoder(embed_dim, output_dim) for _ in range(num_taps))
        for decoder in self.decoders:
            assert isinstance(decoder, _Decoder)
            nn.init.trunc_normal_(decoder.head.weight, std=0.02)
            nn.init.zeros_(decoder.head.bias)

    def forward(self, taps: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Project taps to the teacher's space; not normalised.

        Args:
            taps: (K, B, visible, D), class token first.
            dropped: (B, 1 + T * N) bool, the mask the student saw; None = nothing hidden.

        Returns:
            (K, B, visible, output_dim).

        Raises:
            ValueError: If K is not the number of decoders.
        """
        if taps.shape[0] != len(self.decoders):
            raise ValueError(
                f"{taps.shape[0]} taps for {len(self.decoders)} decoders; "
                "set the head's num_taps to the encoder's"
            )
        length = taps.shape[2] if dropped is None else dropped.shape[1]
        table = sinusoid_table(length, taps.shape[-1]).to(taps.device)
        table = table.expand(taps.shape[1], -1, -1)
        if dropped is not None:
            table = gather_visible(table, dropped)
        taps = at_least_float32(taps) + table
        pairs = zip(self.decoders, taps, strict=True)
        return torch.stack([decoder(tap) for decoder, tap in pairs])


class AlignmentHeads(nn.Module):
    """A head for each of several teachers.

    Args:
        embed_dim: Width D of the student.
        output_dims: Widths of the teachers' tokens, by the names of the teachers.
        num_taps: Number K of tapped layers.
    """

    def __init__(self, embed_dim: int, output_dims: Mapping[str, int], num_taps: int = 1) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: AlignmentHead(embed_dim, size, num_taps) for name, size in output_dims.items()}
        )

    def forward(self, taps: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Project taps to the spaces of all teachers, side by side; see ``AlignmentHead``.

        Args:
            taps: (K, B, visible, D), class token first.
            dropped: (B, 1 + T * N) bool, the mask the student saw; None = nothing hidden.

        Returns:
            (K, B, visible, sum of the widths).
        """
        return torch.cat([head(taps, dropped) for head in self.heads.values()], -1)
