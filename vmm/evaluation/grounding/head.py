"""A small head that reads moments off a video's frames: temporal convolutions, trained in seconds.

Every frame says whether it is inside a moment and how far the moment's ends are from it, as frames
do in one-stage detectors over time (ActionFormer, Zhang et al. 2022, arXiv 2202.07925). The encoder
stays as it is. Shape legend: B sentences, each with its video; S frames; E is the width of the
joint space, H of the head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vmm.evaluation.grounding.metrics import Floats
from vmm.evaluation.grounding.proposals import best_apart
from vmm.models.weight_files import write_tensors
from vmm.whole import whole_file

WEIGHTS, RECORD = "head.safetensors", "head.json"
_FORMAT = 1
_HIDDEN, _DEPTH, _KERNEL = 64, 4, 3
_FREQUENCIES = 4


class Batch(NamedTuple):
    """Some sentences and their videos."""

    frames: Tensor
    """(B, S, E) float32 of length 1 each, 0 after the end of a video."""
    texts: Tensor
    """(B, E) float32 of length 1 each."""
    centres: Tensor
    """(B, S) float32, the middle of each frame's part as a share of the video, 0 to 1."""
    known: Tensor
    """(B, S) bool, False after the end of a video."""


class MomentHead(nn.Module):
    """Tell of every frame whether it is inside a moment, and where this begins and ends.

    Args:
        embed_dim: Width E of the joint space.
        hidden_dim: Width H.
        depth: Blocks of a convolution over time; the n-th reaches 2 ** n frames to each side.
    """

    def __init__(self, embed_dim: int, hidden_dim: int = _HIDDEN, depth: int = _DEPTH) -> None:
        super().__init__()
        self.sizes = {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "depth": depth}
        self.agreement = nn.Linear(embed_dim, hidden_dim)
        self.look = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.wording = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.place = nn.Linear(2 * _FREQUENCIES + 1, hidden_dim, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(depth))
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden_dim, hidden_dim, _KERNEL, padding=2**n, dilation=2**n)
            for n in range(depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, 3))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Look at videos.

        Returns:
            (B, S) logits of being inside a moment, and (B, S, 2) shares of the video from the
            frame's centre back to the start and on to the end of the moment.
        """
        width = batch.frames.shape[-1] ** 0.5
        texts = batch.texts[:, None]
        product = width * batch.frames * texts
        cosine = product.sum(-1, keepdim=True) / width
        known = batch.known[..., None]
        count = known.sum(1, keepdim=True)
        spread = (cosine - (cosine * known).sum(1, keepdim=True) / count) * known
        spread = spread / (spread.square().sum(1, keepdim=True) / count + 1e-6).sqrt()
        angles = batch.centres[..., None] * torch.pi * torch.arange(1, _FREQUENCIES + 1)
        place = torch.cat([spread, angles.sin(), angles.cos()], -1)
        x = self.agreement(width * product) + self.place(place)
        x = x + self.look(width * batch.frames) + self.wording(width * texts)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv((norm(x) * known).transpose(1, 2)).transpose(1, 2))
        logits, distances = self.out(x).split([1, 2], -1)
        return logits[..., 0], F.softplus(distances - 2)

    @torch.inference_mode()
    def find(self, frames: Tensor, texts: Tensor, edges: Floats) -> list[tuple[Floats, Floats]]:
        """Find what texts say in one video.

        Args:
            frames: (S, E) of length 1 each.
            texts: (B, E) of length 1 each.
            edges: (S + 1,) seconds between which each frame counts.

        Returns:
            Of each text windows (N, 3) with start, end and score, best first, and (S,) how sure
            each frame is inside.
        """
        centres = torch.from_numpy((edges[:-1] + edges[1:]) / (2 * edges[-1])).float()
        many = len(texts)
        batch = Batch(
            frames.expand(many, -1, -1), texts, centres.expand(many, -1),
            torch.ones(many, len(frames), dtype=torch.bool),
        )  # fmt: skip
        logits, distances = self(batch)
        starts = (centres - distances[..., 0]).clamp(0, 1)
        ends = (centres + distances[..., 1]).clamp(0, 1)
        inside = logits.sigmoid()
        rows = torch.stack([starts * edges[-1], ends * edges[-1], inside], -1).double().numpy()
        return [(best_apart(row[row[:, 1] > row[:, 0]]), np.asarray(row[:, 2])) for row in rows]

    def save(self, folder: Path, record: dict[str, Any]) -> None:
        """Write ``head.safetensors`` and ``head.json`` with what it was made of.

        Args:
            folder: Created if it is not there.
            record: What its features depend on, and how it was trained; as JSON.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / WEIGHTS) as file:
            write_tensors(self.state_dict(), file)
        with whole_file(folder / RECORD) as file:
            content = {"format": _FORMAT, "sizes": self.sizes, **record}
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple[MomentHead, dict[str, Any]]:
        """Read what ``save`` wrote: the head, in evaluation mode, and its record.

        Raises:
            ValueError: If a file is missing, damaged or of another version.
        """
        try:
            record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']}, not {_FORMAT}")
            head = cls(**{name: int(size) for name, size in record["sizes"].items()})
            head.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{folder} holds no head of this version of `vmm eval grounding` ({reason}); "
                "give a new folder, where one is trained"
            ) from error
        return head.eval(), record
