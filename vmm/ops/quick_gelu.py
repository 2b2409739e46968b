"""The activation of OpenAI's CLIP (arXiv 2103.00020), in one pass where no gradient is wanted.

PyTorch takes three passes over memory, a seventh of a training step with a small frozen tower.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmm.ops.backends import gradient_wanted, why_no_compiled_code
from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_kernel import compile_kernel, packed_address
from vmm.ops.kernels.cpu_powers import LOG2E
from vmm.ops.kernels.cpu_values import LANES, Value

_SLOPE = 1.702
_PIECE = 2**14
"""Numbers that one thread takes before it asks for more; a multiple of ``LANES``."""


def quick_gelu(x: Tensor) -> Tensor:
    """Return x / (1 + e^(-1.702 x)), of any shape and floating dtype."""
    return _compiled(x) if _suits(x) else x * torch.sigmoid(_SLOPE * x)


def with_quick_gelu(tower: nn.Module) -> nn.Module:
    """Put it in the place of open_clip's modules, which have no weights; returns the tower."""
    for parent in list(tower.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == QuickGELU.__name__:
                setattr(parent, name, QuickGELU())
    return tower


class QuickGELU(nn.Module):
    """``quick_gelu`` as a module, under open_clip's name for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to x, of any shape."""
        return quick_gelu(x)


def _suits(x: Tensor) -> bool:
    """Whether x is there, as numbers in memory that a kernel reads, and not part of a graph."""
    recorded = gradient_wanted(x) or torch.compiler.is_compiling() or type(x) is not Tensor
    plain = x.dtype == torch.float32 and x.is_contiguous() and why_no_compiled_code(x, x) is None
    return plain and not recorded


def _compiled(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    arguments = {
        "channels": x.numel(),
        "x": packed_address("x", x),
        "out": packed_address("the result", out),
    }
    compile_kernel(_write, arguments, _PIECE).run(arguments, -(-x.numel() // _PIECE), x.numel())
    return out


def _write(code: Emitter, size: int) -> None:
    """Write the kernel: an item is a piece of a size."""

    def piece(item: Value) -> None:
        first = item * size
        count = code.least(code.arguments["channels"] - first, size)

        def vector(i: Value) -> None:
            code.keep_lanes(count - i * LANES)
            place = (first + i * LANES) * 4
            x = code.load_row(code.arguments["x"] + place)
            y = x / (code.exp2(x * (-_SLOPE * LOG2E)) + 1.0)
            code.store_row(y, code.arguments["out"] + place)

        code.loop((count + (LANES - 1)) // LANES, vector)

    code.each_item(piece)
