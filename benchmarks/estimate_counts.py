"""What one sample of the published runs costs, counted by vmm on models without weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from benchmarks.scan_cases import BOTH, FORWARD, TRAINING, Case, least_bytes
from vmm.models.bert import BertArchitecture
from vmm.models.clip_vit import ClipTeacher
from vmm.models.costs import Like, measure, text_side
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

WIDTH, DEPTH, STATES = 576, 32, 16
"""Of VideoMamba-M."""
PATCHES = 196
"""Of a frame of 224 pixels."""
FRAMES = 8
_PER_STATE = 9
"""Multiply-adds of a scan for each channel, state, token and direction, as vmm counts them."""
_HALF = {"weights": torch.float32, "autocast": torch.bfloat16}


class Counts(NamedTuple):
    """Of VideoMamba-M, BERT-base and CLIP-ViT-B/16; forward only unless said otherwise."""

    products_per_token: float
    """Multiply-adds of the video encoder but for its scans."""
    scan_bytes_per_token: float
    """That scans must move forward in bfloat16."""
    scan_bytes_per_token_trained: float
    """The same, forward and backward."""
    kept_per_token: float
    """Bytes that backward needs."""
    teacher_per_frame: float
    """Multiply-adds."""
    text: dict[str, float]
    """Multiply-adds of a caption with its fusion, where a video has so many visible tokens."""
    encoder_parameters: int
    model_parameters: int
    """Of the video-text model."""


def count(visible: tuple[int, ...]) -> Counts:
    """Count everything; takes a minute of CPU time.

    Args:
        visible: Numbers of a video's visible patches for which captions are counted.
    """
    tokens = 1 + FRAMES * PATCHES
    one, two = (_encoder(depth) for depth in (1, 2))
    # Layers cost alike, and casts of the weights are kept once for any batch.
    costs = [
        [measure(encoder, _see, [_clip(n)], **_HALF) for n in (1, 2)] for encoder in (one, two)
    ]
    first, second = (
        [after - before for before, after in zip(*cost, strict=True)] for cost in costs
    )
    multiply_adds, kept = (a + (DEPTH - 1) * (b - a) for a, b in zip(first, second, strict=True))
    scan = DEPTH * 2 * _PER_STATE * 2 * WIDTH * STATES * tokens
    bytes_of = {
        what: DEPTH * least_bytes(Case(BOTH, what, 2 * WIDTH, 1), 1, 2)
        for what in (FORWARD, TRAINING)
    }
    with torch.device("meta"):
        teacher = ClipTeacher(pretrained=None)
        teacher.build()
        whole = VideoMamba(embed_dim=WIDTH, depth=DEPTH, num_frames=FRAMES)
        model = _with_text(_encoder(1))
    text = {}
    for patches in visible:
        cost = text_side(model, 1, patches, True, True, _HALF)
        text[str(patches)] = float(cost.multiply_adds)
    seen = measure(teacher, _see, [_clip(1)])
    encoder_parameters = _size(whole)
    return Counts(
        (multiply_adds - scan) / tokens,
        float(bytes_of[FORWARD]),
        float(bytes_of[TRAINING]),
        kept / tokens,
        seen.multiply_adds / FRAMES,
        text,
        encoder_parameters,
        encoder_parameters + _size(model) - _size(model.video_encoder),
    )


def _encoder(depth: int) -> VideoMamba:
    with torch.device("meta"):
        return VideoMamba(embed_dim=WIDTH, depth=depth, num_frames=FRAMES).train()


def _with_text(encoder: VideoEncoder) -> VideoTextModel:
    text: Any = BertTextEncoder(
        WIDTH, "random", 9, pretrained=False, architecture=BertArchitecture()
    )
    return VideoTextModel(encoder, text, proj_dim=512).train()


def _see(module: torch.nn.Module, clip: torch.Tensor) -> object:
    return module(clip)


def _clip(batch: int) -> Like:
    return Like((batch, FRAMES, 3, 224, 224))


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
