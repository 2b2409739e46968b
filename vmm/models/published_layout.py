"""Key names of the published checkpoints: which family a file is, and its keys under our names.

One ``Layout`` per family holds all rules; import and export read the same ones. The families and
their keys: https://huggingface.co/OpenGVLab/VideoMamba.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Family = Literal[
    "image_classifier", "video_classifier", "masked_pretrain", "video_text", "clip_visual"
]

_STRIPPED = ("module.", "backbone.", "encoder.")  # what wrappers put before every key
_TIED = "text_encoder.cls.predictions.decoder."
_POSITION_IDS = r"\.embeddings\.position_ids$"


@dataclass(frozen=True)
class Layout:
    """How the keys of one family correspond to ours.

    Attributes:
        renamed: (published prefix, our prefix); the first that matches counts, in both directions.
        dropped: Regular expressions of published keys that have no place here, with the reason.
        new: Regular expressions of our keys that files of this family may lack, with the reason.
        part: Prefix of these weights in a larger file, of which the others are left out.
    """

    renamed: tuple[tuple[str, str], ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    new: Mapping[str, str] = field(default_factory=dict)
    part: str = ""

    def ours(self, key: str) -> str | None:
        """Our name of a published key; None if the layout has no place for it."""
        return _replace_prefix(key, self.renamed)

    def published(self, key: str) -> str:
        """The published name of one of our keys.

        Raises:
            ValueError: If the family has no such key.
        """
        name = _replace_prefix(key, [(ours, theirs) for theirs, ours in self.renamed])
        if name is None:
            raise ValueError(f"the published layout has no place for {key}")
        return name


_CLASSIFIER = (
    ("norm_f.", "video_encoder.norm."),
    ("head.", "head."),
    ("", "video_encoder."),
)

LAYOUTS: dict[Family, Layout] = {
    "image_classifier": Layout(
        renamed=_CLASSIFIER,
        dropped={r"^distill_head\.": "the self-distillation head served training only"},
        new={r"temporal_pos_embedding$": "images have no time; zero, as published"},
    ),
    "video_classifier": Layout(renamed=_CLASSIFIER),
    "masked_pretrain": Layout(
        renamed=(("clip_decoder.", "align_head.decoders."), ("", "video_encoder."))
    ),
    "video_text": Layout(
        renamed=(
            ("vision_encoder.clip_decoder.", "align_head.decoders."),
            ("vision_encoder.", "video_encoder."),
            ("text_encoder.bert.", "text_encoder.bert."),
            ("text_encoder.cls.", "text_encoder.cls."),
            # Downstream models have a bare BERT.
            ("text_encoder.", "text_encoder.bert."),
            ("vision_proj.", "vision_proj."),
            ("text_proj.", "text_proj."),
            ("itm_head.", "itm_head."),
            ("temp", "temperature"),
        ),
        dropped={
            r"^clip_teacher\.": "the frozen teacher serves training only",
            _POSITION_IDS: "a constant",
            re.escape(_TIED): "tied to the word embeddings and the output bias",
        },
        new={
            r"^text_encoder\.cls\.": "the file has no language-model head; it stays random",
        },
    ),
    "clip_visual": Layout(renamed=(("", "visual."),), part="visual."),
}


def unwrap_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes that wrappers put before every key; tensors have any shape."""
    result = dict(state)
    for prefix in _STRIPPED:
        if result and all(key.startswith(prefix) for key in result):
            result = {key.removeprefix(prefix): value for key, value in result.items()}
    return result


def recognise(keys: Iterable[str], source: str, patch_dims: int | None = None) -> Family:
    """Tell the family of a file from its keys.

    Args:
        keys: Of the file, unwrapped.
        source: For the message.
        patch_dims: Dimensions of ``patch_embed.proj.weight``, 4 for images; None if it has none.

    Raises:
        ValueError: If it is none of the families.
    """
    names = set(keys)

    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in names)

    if has(r"^vision_encoder\.layers\.\d+\.mixer\.") and has(r"^text_encoder\."):
        return "video_text"
    if has(r"^layers\.\d+\.mixer\.A_b_log$"):
        if has(r"^clip_decoder\."):
            return "masked_pretrain"
        if "head.weight" in names:
            return "image_classifier" if patch_dims == 4 else "video_classifier"
    if has(r"(^|^visual\.)class_embedding$") and has(r"(^|^visual\.)conv1\.weight$"):
        return "clip_visual"
    some = ", ".join(sorted(names)[:4]) or "none"
    raise ValueError(
        f"{source} is of no published family (its {len(names)} keys start with {some}); vmm knows "
        "VideoMamba image and video classifiers, stage-1 and stage-2 files and CLIP image towers"
    )


def split_published(
    state: Mapping[str, Tensor], family: Family, source: str
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Rename the keys of a file and take out those that have no place here.

    Tensors may have any shape, which stays.

    Returns:
        Tensors under our names; published name of each; dropped published keys with the reason.

    Raises:
        ValueError: If a derived tensor is not what it should be derived from, a weight is no finite
            floating-point tensor, or two keys mean the same.
    """
    layout = LAYOUTS[family]
    _check_derived(state, source)
    kept: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    dropped: dict[str, str] = {}
    partial = layout.part and any(key.startswith(layout.part) for key in state)
    for key, value in state.items():
        why = next((text for rule, text in layout.dropped.items() if re.search(rule, key)), None)
        if partial and not key.startswith(layout.part):
            why = f"not part of {layout.part[:-1]}"
        if why is not None:
            dropped[key] = why
            continue
        ours = layout.ours(key.removeprefix(layout.part))
        if ours is None:
            raise ValueError(f"{source} is damaged: {key} belongs to no part of a {family} file")
        if ours in kept:
            raise ValueError(f"{source} is damaged: {key} and {names[ours]} are the same weight")
        if not value.is_floating_point() or not value.isfinite().all():
            raise ValueError(f"{source} is damaged: {key} is not finite floating-point numbers")
        kept[ours], names[ours] = value, key
    return kept, names, dropped


def join_published(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Give a state dict of ours its published key names, derived tensors included.

    Tensors may have any shape, which stays.

    Raises:
        ValueError: If the family has no place for a key.
    """
    layout = LAYOUTS[family]
    result = {layout.published(key): value for key, value in state.items()}
    if family == "video_text":
        words = result["text_encoder.bert.embeddings.word_embeddings.weight"]
        result[f"{_TIED}weight"] = words
        result[f"{_TIED}bias"] = result["text_encoder.cls.predictions.bias"]
        positions = len(result["text_encoder.bert.embeddings.position_embeddings.weight"])
        result["text_encoder.bert.embeddings.position_ids"] = torch.arange(
            positions, device=words.device
        )[None]
    return result


def _check_derived(state: Mapping[str, Tensor], source: str) -> None:
    """Make sure that what is dropped as derived really says nothing of its own."""
    for part, origin in (
        ("weight", "text_encoder.bert.embeddings.word_embeddings.weight"),
        ("bias", "text_encoder.cls.predictions.bias"),
    ):
        copy, own = state.get(_TIED + part), state.get(origin)
        if copy is not None and own is not None and not torch.equal(copy, own):
            raise ValueError(f"{source}: {_TIED}{part} differs from {origin}; here they are one")
    for key, value in state.items():
        if re.search(_POSITION_IDS, key) and not torch.equal(
            value.flatten(), torch.arange(value.numel(), dtype=value.dtype, device=value.device)
        ):
            raise ValueError(f"{source}: {key} is not 0, 1, 2, ...; positions are counted here")


def _replace_prefix(key: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        whole = old and not old.endswith(".")  # a single tensor, not a module
        if key == old if whole else key.startswith(old):
            return new + key[len(old) :]
    return None
