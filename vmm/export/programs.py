"""The towers as graphs of PyTorch: ``torch.export``, for ``.pt2`` files and as the way to ONNX.

Any number of clips or captions, captions of any length; the number of frames is fixed per graph.
Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from vmm.export.folder import EncoderParts
from vmm.export.towers import TextTower, VideoTower
from vmm.models.classifier import VideoClassifier
from vmm.models.video_text import VideoTextModel

TEXT = "text"

TOLERANCE = 1e-5
"""Largest allowed difference of an entry of a unit vector; of larger numbers, as a share of the
largest."""


def video_name(num_frames: int) -> str:
    """Return the name of the video tower's file for a number of frames, without its ending."""
    return f"video_{num_frames}_frames"


def example_inputs(parts: EncoderParts, frames: Sequence[int]) -> dict[str, tuple[Tensor, ...]]:
    """Make inputs of every graph by its name: two clips each, and two captions if it reads text.

    Returns:
        (2, T, C, H, W) float32 for each number T of frames; ids and mask (2, S) int64.

    Raises:
        ValueError: If a number of frames is not a multiple of the tubelet size.
    """
    tubelet, size = parts.model.video_encoder.tubelet_size, parts.clip.image_size
    generator = torch.Generator().manual_seed(0)
    inputs: dict[str, tuple[Tensor, ...]] = {}
    for count in frames:
        if count < 1 or count % tubelet:
            raise ValueError(f"num_frames {count} must be a multiple of {tubelet}, 1 or more")
        shape = (2, count, 3, size, size)
        video = torch.randn(shape, dtype=torch.float32, generator=generator, device="cpu")
        inputs[video_name(count)] = (video,)
    if isinstance(parts.model, VideoClassifier):
        return inputs
    text = parts.model.text_encoder
    words = max(text.max_words - 2, 2)
    ids = torch.randint(0, text.vocab_size, (2, words), generator=generator, device="cpu")
    mask = torch.ones_like(ids)
    mask[1, words // 2 :] = 0
    return inputs | {TEXT: (ids, mask)}


def trace(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Trace a tower.

    The model's parameters must not require gradients; ``vmm.export.formats.export`` sees to that.

    Args:
        parts: The model.
        name: A key of ``example_inputs``.
        inputs: Its value: (B, T, C, H, W), or twice (B, S).

    Returns:
        A graph with vmm's operators inside, which runs where vmm is installed.
    """
    batch = Dim("batch")
    if name == TEXT:
        words = Dim("words", max=parts.of(VideoTextModel).text_encoder.max_words)
        shapes: tuple[dict[int, Dim], ...] = ({0: batch, 1: words}, {0: batch, 1: words})
    else:
        shapes = ({0: batch},)
    return torch.export.export(_tower(parts, name).eval(), inputs, dynamic_shapes=shapes)


def _tower(parts: EncoderParts, name: str) -> torch.nn.Module:
    """Return what a graph computes: unit vectors, or what a classifier says."""
    if isinstance(parts.model, VideoClassifier):
        return parts.model
    return TextTower(parts.model) if name == TEXT else VideoTower(parts.model)


def largest_difference(path: Path, got: Tensor, want: Tensor, advice: str) -> float:
    """Compare what a written file computes with what it must.

    Args:
        path: The file, for the message.
        got: What it computes, of any shape.
        want: What the model computes, of any shape.
        advice: What to try if they differ.

    Raises:
        ValueError: If a number is NaN or infinite, a shape another one, or the largest difference
            above ``TOLERANCE``.
    """
    for name, rows in (("the model", want), (path.name, got)):
        if odd := rows.numel() - int(rows.isfinite().sum()):
            raise ValueError(
                f"{odd} of the {rows.numel()} numbers that {name} gives are NaN or infinite; "
                "weights of it are broken, or overflow"
            )
    if got.shape != want.shape:
        raise ValueError(f"{path.name} gives {tuple(got.shape)}, the model {tuple(want.shape)}")
    difference = ((got - want).abs().max() / want.abs().max().clamp(min=1)).item()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{path.name} differs from the model by {difference:.1e}, more than {TOLERANCE}: "
            f"it is of no use; {advice}"
        )
    return difference


def expected(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...]) -> Tensor:
    """Compute what a graph must give for (B, T, C, H, W), or (B, S) and its mask: (B, E)."""
    with torch.no_grad():
        vectors: Tensor = _tower(parts, name)(*inputs)
    return vectors
