"""The bidirectional Mamba mixer (B-Mamba) and its block.

VideoMamba (arXiv 2403.06977, section 3.2) after Vim (arXiv 2401.09417) and Mamba
(arXiv 2312.00752). Shape legend: B batch, L tokens, D width, E = expand * D inner width,
R = dt_rank, S = d_state.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vmm.models.layers import rms_norm
from vmm.models.lora import whole_weight
from vmm.models.scan_order import IN_MEMORY_ORDER, PathScan, scaled
from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d, causal_conv1d
from vmm.ops.op_tools import at_least_float32
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.selective_scan import continue_scan, selective_scan

MixerInit = Literal["mamba", "reference"]


class BiMambaMixer(nn.Module):
    """Selective state-space mixing of a sequence in both directions.

    One input and one output projection serve both directions; convolution, selection and state
    matrices are separate. Each direction is gated by the same silu(z) at its own token and the two
    are summed, not averaged. Parameter names are those of the published checkpoints.

    Args:
        embed_dim: Width D of the tokens.
        d_state: States S per channel.
        d_conv: Taps of the depthwise causal convolution.
        expand: Inner width E divided by D.
        dt_rank: Rank R of the step-size projection; None takes ceil(D / 16).
    """

    def __init__(
        self,
        embed_dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
    ) -> None:
        super().__init__()
        inner = expand * embed_dim
        self.d_state = d_state
        self.dt_rank = dt_rank if dt_rank is not None else math.ceil(embed_dim / 16)
        self.in_proj = nn.Linear(embed_dim, 2 * inner, bias=False)
        selected = self.dt_rank + 2 * d_state  # step size, B and C of one token
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, selected, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, inner)
        self.conv1d_b = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj_b = nn.Linear(inner, selected, bias=False)
        self.dt_proj_b = nn.Linear(self.dt_rank, inner)
        a_log = torch.log(torch.arange(1, d_state + 1, dtype=torch.float32)).repeat(inner, 1)
        self.A_log = nn.Parameter(a_log)
        self.A_b_log = nn.Parameter(a_log.clone())
        self.D = nn.Parameter(torch.ones(inner))
        self.D_b = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, embed_dim, bias=False)

    def forward(self, hidden: Tensor, scans: tuple[PathScan, ...] = IN_MEMORY_ORDER) -> Tensor:
        """Mix (B, L, D) over L, along one path or several; returns (B, L, D)."""
        xz = self.in_proj(hidden)
        y = self._scan(xz, scans[0])
        for scan in scans[1:]:
            y = y + self._scan(xz, scan)
        mixed: Tensor = self.out_proj(y)
        return scaled(mixed, scans)

    def _scan(self, xz: Tensor, scan: PathScan) -> Tensor:
        """Do the scans along one path for the projected (B, L, 2 E): (B, L, E), gated."""
        along = xz if scan.path is None else scan.path.apply(xz)
        # Cut before it is turned: so the gradient comes back in rows.
        x, z = (part.transpose(1, 2) for part in along.chunk(2, dim=-1))
        if scan.forward and scan.backward:
            taps = self._taps(reverse=False), self._taps(reverse=True)
            forward, reverse = bidirectional_conv1d(x, *taps)
            ways = self._direction(forward, reverse=False), self._direction(reverse, reverse=True)
            y = bidirectional_scan(*ways, z, delta_softplus=True)
        else:
            u = causal_conv1d(x, *self._taps(scan.backward), reverse=scan.backward)
            one = self._direction(u, scan.backward)
            y = selective_scan(
                *one[:6], z, one.delta_bias, delta_softplus=True, reverse=scan.backward
            )
        y = y.transpose(1, 2)
        return y if scan.path is None else scan.path.undo(y)

    def scan_piece(self, hidden: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        """Do one direction of one piece of a sequence, for ``mix_piece`` to add.

        Args:
            hidden: (B, P + K - 1, D), the piece and the K - 1 tokens before it, with ``reverse``
                those behind it; zeros where there are none (K is d_conv).
            state: (B, E, S) float32, of the piece done before, zeros at first.
            reverse: From the last token to the first, by the backward branch.

        Returns:
            (B, P, E) before the gate, and the state for the next piece.
        """
        inner = self.out_proj.in_features
        x = nn.functional.linear(hidden, whole_weight(self.in_proj)[:inner]).transpose(1, 2)
        context = self.conv1d.kernel_size[0] - 1
        u = causal_conv1d(x, *self._taps(reverse), reverse=reverse)
        u = u[..., : u.shape[-1] - context] if reverse else u[..., context:]
        one = self._direction(u, reverse)
        y, state = continue_scan(
            state, *one[:6], delta_bias=one.delta_bias, delta_softplus=True, reverse=reverse
        )
        return y.transpose(1, 2), state

    def mix_piece(self, hidden: Tensor, others: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Do the last scan of a piece, from the first token to the last, and all that follows.

        Args:
            hidden: (B, K - 1 + P, D), the K - 1 tokens before the piece, zeros where the sequence
                begins, and the piece.
            others: (B, P, E), the sum of what ``scan_piece`` gave.
            state: (B, E, S) float32, of the piece before it, zeros at the beginning.

        Returns:
            (B, P, D) mixed, and the state for the piece behind it.
        """
        x, z = (part.transpose(1, 2) for part in self.in_proj(hidden).chunk(2, dim=-1))
        before = self.conv1d.kernel_size[0] - 1
        u = causal_conv1d(x, *self._taps(reverse=False))
        one = self._direction(u[..., before:], reverse=False)
        y, state = continue_scan(
            state,
            *one[:6],
            z[..., before:],
            one.delta_bias,
            delta_softplus=True,
            other=others.transpose(1, 2),
        )
        mixed: Tensor = self.out_proj(y.transpose(1, 2))
        return mixed, state

    def _taps(self, reverse: bool) -> Taps:
        conv = self.conv1d_b if reverse else self.conv1d
        return Taps(conv.weight.squeeze(1), conv.bias)

    def _direction(self, u: Tensor, reverse: bool) -> Direction:
        """Derive what the scan of convolved u (B, E, L) needs."""
        x_proj, dt_proj, a_log, skip = (
            (self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
            if reverse
            else (self.x_proj, self.dt_proj, self.A_log, self.D)
        )
        sizes = [self.dt_rank, self.d_state, self.d_state]
        step, b, c = x_proj(u.transpose(1, 2)).split(sizes, dim=-1)
        # The bias of dt_proj belongs inside the softplus, in float32: the scan adds it.
        delta = nn.functional.linear(step, whole_weight(dt_proj))
        return Direction(
            u,
            delta.transpose(1, 2),
            -torch.exp(at_least_float32(a_log)),
            b.transpose(1, 2),
            c.transpose(1, 2),
            at_least_float32(skip),
            at_least_float32(dt_proj.bias),
        )

    @torch.no_grad()
    def reset_parameters(self, scheme: MixerInit, residual_branches: int) -> None:
        """Initialise the projections.

        ``mamba`` draws the step sizes log-uniformly from [1e-3, 0.1] (Mamba, section 3.6), in both
        directions, and leaves the other projections to PyTorch's default, as Mamba does.
        ``reference`` is what the published code ends up with: every linear weight normal(0.02),
        step-size bias zero, so that all steps start near softplus(0) = 0.69.

        Args:
            scheme: Which of the two.
            residual_branches: The output projection is divided by the square root of this number,
                so that the residual stream of a deep encoder starts no larger than a shallow one's.
        """
        for x_proj, dt_proj in ((self.x_proj, self.dt_proj), (self.x_proj_b, self.dt_proj_b)):
            if scheme == "reference":
                nn.init.trunc_normal_(x_proj.weight, std=0.02)
                nn.init.trunc_normal_(dt_proj.weight, std=0.02)
                nn.init.zeros_(dt_proj.bias)
                continue
            bound = self.dt_rank**-0.5
            nn.init.uniform_(dt_proj.weight, -bound, bound)
            low, high = math.log(1e-3), math.log(0.1)
            step = torch.exp(torch.empty_like(dt_proj.bias).uniform_(low, high)).clamp_(min=1e-4)
            dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus
        if scheme == "reference":
            nn.init.trunc_normal_(self.in_proj.weight, std=0.02)
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        self.out_proj.weight.div_(math.sqrt(residual_branches))


class BiMambaBlock(nn.Module):
    """Pre-norm block: mixer(RMSNorm(residual)). The encoder keeps the residual stream.

    Args:
        embed_dim: Width D.
        d_state: States S per channel.
        d_conv: Taps of the convolution.
        expand: Inner width divided by D.
    """

    def __init__(self, embed_dim: int, d_state: int, d_conv: int, expand: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(embed_dim, eps=1e-5)
        self.mixer = BiMambaMixer(embed_dim, d_state, d_conv, expand)

    def forward(self, residual: Tensor, scans: tuple[PathScan, ...] = IN_MEMORY_ORDER) -> Tensor:
        """Return the mixer's output (B, L, D) for the residual stream (B, L, D)."""
        mixed: Tensor = self.mixer(rms_norm(self.norm, residual), scans)
        return mixed

    def beginning(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context and the state with which a pass over pieces begins: zeros.

        The context holds the normalised tokens that the convolution of the next piece looks at,
        (B, K - 1, D); the state is that of the scan, (B, E, S) float32.
        """
        mixer = self.mixer
        reach = mixer.conv1d.kernel_size[0] - 1
        batch, _, dim = residual.shape
        return (
            residual.new_zeros(batch, reach, dim, dtype=self.norm.weight.dtype),
            residual.new_zeros(batch, *mixer.A_log.shape, dtype=at_least_float32(residual).dtype),
        )

    def scan_piece(
        self, piece: Tensor, context: Tensor, state: Tensor, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Do one direction of a piece (B, P, D) of the residual stream, in the order of pieces.

        Returns:
            (B, P, E) for ``mix_piece``; context and state for the next piece.
        """
        normed = rms_norm(self.norm, at_least_float32(piece))
        hidden = torch.cat([normed, context] if reverse else [context, normed], 1)
        y, state = self.mixer.scan_piece(hidden, state, reverse)
        return y, _edge(hidden, context.shape[1], reverse), state

    def mix_piece(
        self, piece: Tensor, others: Tensor, context: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Finish a piece (B, P, D), given the sum of its other scans; from the first to the last.

        Returns:
            The block's output (B, P, D) for two scans; context and state for the next piece.
        """
        hidden = torch.cat([context, rms_norm(self.norm, at_least_float32(piece))], 1)
        mixed, state = self.mixer.mix_piece(hidden, others, state)
        return mixed, _edge(hidden, context.shape[1], reverse=False), state


def _edge(hidden: Tensor, reach: int, reverse: bool) -> Tensor:
    """Return the tokens (B, reach, D) that the convolution of the next piece looks at."""
    return hidden[:, :reach] if reverse else hidden[:, hidden.shape[1] - reach :]
