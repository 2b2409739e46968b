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
from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d, causal_conv1d
from vmm.ops.op_tools import at_least_float32
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.selective_scan import continue_scan

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

    def forward(self, hidden: Tensor) -> Tensor:
        """Mix (B, L, D) over L; returns (B, L, D)."""
        x, z = self.in_proj(hidden).transpose(1, 2).chunk(2, dim=1)
        taps = self._taps(reverse=False), self._taps(reverse=True)
        forward, reverse = bidirectional_conv1d(x, *taps)
        ways = self._direction(forward, reverse=False), self._direction(reverse, reverse=True)
        y = bidirectional_scan(*ways, z, delta_softplus=True)
        mixed: Tensor = self.out_proj(y.transpose(1, 2))
        return mixed

    def scan_back(self, hidden: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Do the reversed direction of one piece of a sequence, the first step of ``mix_piece``.

        Args:
            hidden: (B, P + K - 1, D), the piece and the K - 1 tokens behind it, zeros where the
                sequence has ended (K is d_conv).
            state: (B, E, S) float32, of the piece behind it, zeros at the end of the sequence.

        Returns:
            (B, P, E) before the gate, and the state for the piece before it.
        """
        inner = self.out_proj.in_features
        x = nn.functional.linear(hidden, self.in_proj.weight[:inner]).transpose(1, 2)
        length = x.shape[-1] - self.conv1d_b.kernel_size[0] + 1
        u = causal_conv1d(x, *self._taps(reverse=True), reverse=True)
        one = self._direction(u[..., :length], reverse=True)
        y, state = continue_scan(
            state, *one[:6], delta_bias=one.delta_bias, delta_softplus=True, reverse=True
        )
        return y.transpose(1, 2), state

    def mix_piece(self, hidden: Tensor, back: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Do the other direction of a piece and all that follows.

        Args:
            hidden: (B, K - 1 + P, D), the K - 1 tokens before the piece, zeros where the sequence
                begins, and the piece.
            back: (B, P, E) from ``scan_back``.
            state: (B, E, S) float32, of the piece before it, zeros at the beginning.

        Returns:
            (B, P, D) mixed, and the state for the piece behind it.
        """
        x, z = self.in_proj(hidden).transpose(1, 2).chunk(2, dim=1)
        before = self.conv1d.kernel_size[0] - 1
        u = causal_conv1d(x, *self._taps(reverse=False))
        one = self._direction(u[..., before:], reverse=False)
        y, state = continue_scan(
            state,
            *one[:6],
            z[..., before:],
            one.delta_bias,
            delta_softplus=True,
            other=back.transpose(1, 2),
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
        delta = nn.functional.linear(step, dt_proj.weight)
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

    def forward(self, residual: Tensor) -> Tensor:
        """Return the mixer's output (B, L, D) for the residual stream (B, L, D)."""
        mixed: Tensor = self.mixer(rms_norm(self.norm, residual))
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

    def scan_back(
        self, piece: Tensor, context: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Begin a piece (B, P, D) of the residual stream; called from the last to the first.

        Returns:
            (B, P, E) for ``mix_piece``; context and state for the piece before it.
        """
        hidden = torch.cat([rms_norm(self.norm, at_least_float32(piece)), context], 1)
        y, state = self.mixer.scan_back(hidden, state)
        return y, hidden[:, : context.shape[1]], state

    def mix_piece(
        self, piece: Tensor, back: Tensor, context: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Finish a piece (B, P, D), given what ``scan_back`` gave; from the first to the last.

        Returns:
            The block's output (B, P, D); context and state for the piece behind it.
        """
        hidden = torch.cat([context, rms_norm(self.norm, at_least_float32(piece))], 1)
        mixed, state = self.mixer.mix_piece(hidden, back, state)
        return mixed, hidden[:, hidden.shape[1] - context.shape[1] :], state
