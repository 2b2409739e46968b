"""LoRA (Hu et al. 2021, arXiv 2106.09685): small matrices beside frozen layers, by ``peft``.

While it is trained, a linear layer ``X`` of an encoder computes
``base(x) + alpha / rank * lora_B(lora_A(x))``. Checkpoints then have, in the place of ``X.weight``
and ``X.bias``:

- ``X.base_layer.weight`` (out, in) and ``X.base_layer.bias``, as they began;
- ``X.lora_A.default.weight`` (rank, in) and ``X.lora_B.default.weight`` (out, rank);
- ``X.alpha`` (1,).

PyTorch's attention ``X`` has one such pair, for ``X.in_proj_weight``, the joint projection to
queries, keys and values; its other tensors are below ``X.base_layer.``, too. Its ``out_proj`` is
read without being called, so nothing can be beside it.

Whatever reads weights out of a file (``vmm.models.weight_files``) gets them merged, under the names
of a model without adapters; only the training of one, and going on with it, needs ``peft``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ENCODERS = ("video_encoder", "text_encoder")
"""Parts of a model that LoRA is for; the others are small, and train as a whole."""

_BASE, _A, _B, _ALPHA = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight", ".alpha"
_JOINT = "in_proj_weight"
_LARGEST = 256
"""Up to here bfloat16, too, has each whole number."""


@dataclass(frozen=True)
class Lora:
    """Which layers of frozen encoders get small matrices that are trained.

    Attributes:
        targets: Regular expression of whole names of linear layers in the encoders, such as
            ``video_encoder.layers.0.mixer.in_proj``, and of the ``in_proj_weight`` of PyTorch's
            attention; by default all of them.
        rank: Width between both matrices of a layer.
        alpha: What they say is multiplied by alpha / rank.
        dropout: Of what they see, in training; 0 with ``in_proj_weight``.

    Raises:
        ValueError: If a number is out of range, or ``targets`` is no regular expression.
    """

    targets: str = ".*"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, value in {"rank": self.rank, "alpha": self.alpha}.items():
            if not 1 <= value <= _LARGEST:
                raise ValueError(f"lora.{name} is {value}; set it from 1 to {_LARGEST}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; set it to 0 or more, and below 1")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(
                f"lora.targets {self.targets!r} is no regular expression ({error}); e.g. "
                r"video_encoder\..*(in|out)_proj"
            ) from error


def adaptable_layers(model: nn.Module) -> list[str]:
    """Name what LoRA can be for in a model's encoders.

    That is linear layers and, of PyTorch's attention, which reads the weights of what is inside of
    it without calling that, the joint projection. (What peft has for the whole of it adds to frozen
    weights and subtracts again, after which they are others.)
    """
    names, attentions = (
        [],
        [
            (name, part)
            for name, part in model.named_modules()
            if isinstance(part, nn.MultiheadAttention)
        ],
    )
    inside = tuple(f"{name}." for name, _ in attentions)
    for name, part in model.named_modules():
        if isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            names.append(f"{name}.{_JOINT}")
        elif isinstance(part, nn.Linear) and not name.startswith(inside):
            names.append(name)
    return [name for name in names if name.startswith(tuple(f"{part}." for part in ENCODERS))]


def kinds_of(names: Sequence[str], shown: int = 12) -> str:
    """List layers, those that differ in numbers alone as one."""
    kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in names))
    return ", ".join(kinds[:shown]) + (" ..." if len(kinds) > shown else "")


def add_adapters(model: nn.Module, lora: Lora) -> list[str]:
    """Freeze the encoders of a model, and put trained matrices beside their layers, in place.

    Args:
        model: Has a ``video_encoder`` and perhaps a ``text_encoder``.
        lora: Which layers, and how.

    Returns:
        Names of the layers.

    Raises:
        ValueError: If no layer has such a name, an attention is among them and there is dropout, or
            ``peft`` is not installed.
    """
    there = adaptable_layers(model)
    chosen = [name for name in there if re.fullmatch(lora.targets, name)]
    if not chosen:
        raise ValueError(
            f"lora.targets {lora.targets!r} is the whole name of no linear layer; there are "
            f"{kinds_of(there)}"
        )
    joint = [name for name in chosen if name.endswith(f".{_JOINT}")]
    if joint and lora.dropout:
        raise ValueError(
            f"lora.dropout is {lora.dropout}, and attention reads {kinds_of(joint)} where nothing "
            "can be dropped; set lora.dropout to 0, or choose other lora.targets"
        )
    for part in ENCODERS:
        if encoder := getattr(model, part, None):
            encoder.requires_grad_(False)
            own = [name.removeprefix(f"{part}.") for name in chosen if name.startswith(f"{part}.")]
            _inject(encoder, own, lora)
    for name in chosen:
        layer = model.get_submodule(name.removesuffix(f".{_JOINT}"))
        layer.register_buffer("alpha", torch.tensor([float(lora.alpha)]))
    return chosen


def _inject(encoder: nn.Module, names: Sequence[str], lora: Lora) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError('peft is not installed: pip install "vmm-video[lora]"') from error
    joint = [name for name in names if name.endswith(f".{_JOINT}")]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="|".join(re.escape(name) for name in names if name not in joint),
        target_parameters=joint,
    )
    if names:
        inject_adapter_in_model(config, encoder)


def whole_weight(layer: nn.Linear) -> Tensor:
    """Give the weight of a layer that is not called, with its adapter: (out, in)."""
    adapted: Any = getattr(layer, "get_delta_weight", None)
    weight: Tensor = layer.weight if adapted is None else layer.weight + adapted("default")
    return weight


def merge_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add trained matrices to the weights that they are beside, under the names without LoRA.

    Args:
        state: Weights of any shape, with or without such.

    Raises:
        ValueError: If one of the tensors of an adapted layer is missing, or has another shape.
    """
    merged = dict(state)
    for layer in [key.removesuffix(_A) for key in state if key.endswith(_A)]:
        base = f"{layer}{_BASE}"
        name = next((n for n in ("weight", _JOINT) if base + n in merged), "weight")
        first, second, alpha, weight = (
            merged.pop(key, None) for key in (layer + _A, layer + _B, layer + _ALPHA, base + name)
        )
        if first is None or second is None or alpha is None or weight is None:
            raise ValueError(f"{layer}: a part of its LoRA is missing; take a whole checkpoint")
        out, inner = _shape(second)
        rank, width = _shape(first)
        if inner != rank or _shape(weight) != (out, width) or alpha.numel() != 1 or not rank:
            raise ValueError(f"{layer}: its LoRA has other shapes than its weight; it is damaged")
        precise = torch.promote_types(weight.dtype, torch.float32)
        change = second.to(precise) @ first.to(precise) * (alpha.item() / rank)
        merged[f"{layer}.{name}"] = (weight.to(precise) + change).to(weight.dtype)
        for other in [key for key in merged if key.startswith(base)]:
            merged[f"{layer}.{other.removeprefix(base)}"] = merged.pop(other)
    return merged


def _shape(matrix: Tensor) -> tuple[int, int]:
    return (matrix.shape[0], matrix.shape[1]) if matrix.ndim == 2 else (-1, -1)
