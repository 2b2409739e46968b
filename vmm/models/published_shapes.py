"""What the shapes of a checkpoint's tensors say about the model that made them.

All functions take a state dict under our key names and return constructor arguments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vmm.models.bert import BertArchitecture

VARIANTS = {192: ("tiny", 24), 384: ("small", 24), 576: ("middle", 32), 768: ("base", 24)}
"""Published sizes: width to name and number of blocks."""

# The published text encoders, by width: layers, the first that sees the video, attention heads.
_BERT_LAYERS = {768: 12, 1024: 24}
_BERT_FUSION = {768: 9, 1024: 19}
_BERT_HEADS = {768: 12, 1024: 16}
_CLIP_HEAD_WIDTH = 64
# OpenCLIP's large ViTs have other heads: width to number of heads.
_CLIP_HEADS = {1280: 16, 1408: 16, 1664: 16, 1792: 16}


_UNKNOWN_HEADS = (
    "no published model is {width} wide, so the number of its attention heads is not known; "
    "give {argument}"
)


class ShapeError(ValueError):
    """A checkpoint lacks a tensor, or its tensors contradict each other."""


def video_encoder_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of ``VideoMamba`` for the keys under ``video_encoder.``.

    Tensors may have any shape: it is what is read.

    Raises:
        ShapeError: If blocks are missing or sizes contradict each other.
    """
    prefix = "video_encoder."
    patches = shape_of(state, f"{prefix}patch_embed.proj.weight", 4, 5)  # 4: of an image model
    embed_dim, patch = patches[0], patches[-1]
    tubelet = patches[2] if len(patches) == 5 else 1
    depth = _count(state, rf"^{re.escape(prefix)}layers\.(\d+)\.")
    name, published_depth = VARIANTS.get(embed_dim, ("", depth))
    if depth != published_depth:
        raise ShapeError(
            f"{depth} blocks of width {embed_dim}, where VideoMamba-{name} has {published_depth}; "
            "blocks are missing or do not belong here"
        )
    side = math.isqrt(shape_of(state, f"{prefix}pos_embed", 3)[1] - 1)
    mixer = f"{prefix}layers.0.mixer."
    inner = shape_of(state, f"{mixer}out_proj.weight", 2)[1]
    time = f"{prefix}temporal_pos_embedding"
    return {
        "embed_dim": embed_dim,
        "depth": depth,
        "num_frames": tubelet * (shape_of(state, time, 3)[1] if time in state else 1),
        "image_size": side * patch,
        "patch_size": patch,
        "tubelet_size": tubelet,
        "d_state": shape_of(state, f"{mixer}A_log", 2)[1],
        "d_conv": shape_of(state, f"{mixer}conv1d.weight", 3)[2],
        "expand": inner // embed_dim,
    }


def num_taps(state: Mapping[str, Tensor]) -> int:
    """Decoders of the alignment head; 0 if there is none. Tensors may have any shape."""
    if not any(key.startswith("align_head.") for key in state):
        return 0
    return _count(state, r"^align_head\.decoders\.(\d+)\.")


def text_encoder_arguments(state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """Constructor arguments of ``BertTextEncoder`` for the keys under ``text_encoder.``.

    Args:
        state: The checkpoint; tensors may have any shape, which is what is read.
        num_heads: Attention heads; None = those of the published text encoder of this width.

    Raises:
        ShapeError: If layers are missing or sizes contradict each other.
        ValueError: If the number of heads cannot be told or does not divide the width.
    """
    prefix = "text_encoder.bert."
    vocab, width = shape_of(state, f"{prefix}embeddings.word_embeddings.weight", 2)
    layers = rf"^{re.escape(prefix)}encoder\.layer\."
    depth = _count(state, layers + r"(\d+)\.")
    if depth != _BERT_LAYERS.get(width, depth):
        raise ShapeError(
            f"{depth} text layers of width {width}, where the published model has "
            f"{_BERT_LAYERS[width]}; layers are missing or do not belong here"
        )
    fusion = _indices(state, layers + r"(\d+)\.crossattention\.")
    first_fusion = _BERT_FUSION.get(width, min(fusion, default=depth))
    if not fusion or fusion != list(range(first_fusion, depth)):
        raise ShapeError(
            f"cross-attention in the text layers {fusion} of {depth}; it must reach from "
            f"{'layer ' + str(_BERT_FUSION[width]) if width in _BERT_FUSION else 'one'} to the last"
        )
    first = f"{prefix}encoder.layer.0."
    heads = _BERT_HEADS.get(width) if num_heads is None else num_heads
    if heads is None:
        raise ValueError(_UNKNOWN_HEADS.format(width=width, argument="text_num_heads"))
    positions = shape_of(state, f"{prefix}embeddings.position_embeddings.weight", 2)[0]
    architecture = BertArchitecture(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=shape_of(state, f"{first}intermediate.dense.weight", 2)[0],
        max_position_embeddings=positions,
        type_vocab_size=shape_of(state, f"{prefix}embeddings.token_type_embeddings.weight", 2)[0],
    )
    return {"fusion_layer": fusion[0], "architecture": architecture}


def clip_config(state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """An open_clip model config for the keys under ``visual.``.

    Args:
        state: The checkpoint; tensors may have any shape, which is what is read.
        num_heads: Attention heads; None = as CLIP's and OpenCLIP's ViTs of this width.

    Raises:
        ShapeError: If blocks are missing.
        ValueError: If the number of heads cannot be told.
    """
    conv = shape_of(state, "visual.conv1.weight", 4, 5)  # 5: of a frame as a clip of length 1
    width, patch = conv[0], conv[-1]
    side = math.isqrt(shape_of(state, "visual.positional_embedding", 2)[0] - 1)
    usual = _CLIP_HEADS.get(width, width // _CLIP_HEAD_WIDTH)
    heads = usual if num_heads is None else num_heads
    if num_heads is None and width % _CLIP_HEAD_WIDTH:
        raise ValueError(_UNKNOWN_HEADS.format(width=width, argument="clip_num_heads"))
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} attention heads do not divide the width {width}")
    hidden = shape_of(state, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
    return {
        "embed_dim": shape_of(state, "visual.proj", 2)[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": side * patch,
            "layers": _count(state, r"^visual\.transformer\.resblocks\.(\d+)\."),
            "width": width,
            "head_width": width // heads,
            "mlp_ratio": hidden / width,
            "patch_size": patch,
        },
        # open_clip wants a text tower in every config; it is never built.
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    }


def shape_of(state: Mapping[str, Tensor], key: str, *dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor that must be there, not empty, with one of these dimensions.

    Others may have any shape.

    Raises:
        ShapeError: If it is not.
    """
    if key not in state:
        raise ShapeError(f"{key} is missing")
    shape = tuple(state[key].shape)
    if len(shape) not in dims or 0 in shape:
        wanted = " or ".join(map(str, dims))
        raise ShapeError(f"{key} has shape {shape}, wanted {wanted} dimensions, none of them 0")
    return shape


def _indices(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(match[1]) for key in state if (match := re.match(pattern, key))})


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count numbered parts, which must run from 0 without a gap."""
    found = _indices(state, pattern)
    if found != list(range(len(found))) or not found:
        missing = sorted(set(range(max(found, default=0) + 1)) - set(found))
        raise ShapeError(f"parts {missing} of {pattern.replace(chr(92), '')} are missing")
    return len(found)
