"""RandAugment and AutoAugment: operations on the colours and the shape of whole frames.

Cubuk et al., arXiv 1909.13719 and 1805.09501, with the operations and ranges of timm, whose
notation names them: ``rand-m7-n4-mstd0.5-inc1`` or ``v0``. What is done is drawn once for a clip
and done to all of its frames alike. Pillow does the work: timm's own classes draw from generators
of the process, which no sample can own, and importing it imports torchvision.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

_MOST = 10.0
"""The strongest magnitude."""
_OP_PROBABILITY = 0.5
_SHIFT = 0.45
"""Largest share of the picture's side that it is moved by."""

Fill = tuple[int, int, int]
Operation = Callable[[Image.Image, float, Fill], Image.Image]


class Step(NamedTuple):
    """One operation of a clip."""

    name: str
    amount: float
    """In the operation's own unit."""


def _affine(matrix: Callable[[float, int, int], tuple[float, ...]]) -> Operation:
    def transform(picture: Image.Image, amount: float, fill: Fill) -> Image.Image:
        data = matrix(amount, *picture.size)
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            data,
            resample=Image.Resampling.BICUBIC,
            fillcolor=fill,
        )

    return transform


def _solarize_add(picture: Image.Image, amount: float, fill: Fill) -> Image.Image:
    table = [min(255, i + int(amount)) if i < 128 else i for i in range(256)]
    return picture.point(table * 3)


_OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda p, _, __: ImageOps.autocontrast(p),
    "Equalize": lambda p, _, __: ImageOps.equalize(p),
    "Invert": lambda p, _, __: ImageOps.invert(p),
    "Rotate": lambda p, a, f: p.rotate(a, resample=Image.Resampling.BICUBIC, fillcolor=f),
    "Posterize": lambda p, a, _: p if a >= 8 else ImageOps.posterize(p, int(a)),
    "Solarize": lambda p, a, _: ImageOps.solarize(p, int(a)),
    "SolarizeAdd": _solarize_add,
    "Color": lambda p, a, _: ImageEnhance.Color(p).enhance(a),
    "Contrast": lambda p, a, _: ImageEnhance.Contrast(p).enhance(a),
    "Brightness": lambda p, a, _: ImageEnhance.Brightness(p).enhance(a),
    "Sharpness": lambda p, a, _: ImageEnhance.Sharpness(p).enhance(a),
    "ShearX": _affine(lambda a, w, h: (1, a, 0, 0, 1, 0)),
    "ShearY": _affine(lambda a, w, h: (1, 0, 0, a, 1, 0)),
    "TranslateX": _affine(lambda a, w, h: (1, 0, a * w, 0, 1, 0)),
    "TranslateY": _affine(lambda a, w, h: (1, 0, 0, 0, 1, a * h)),
}

_SIGNED: dict[str, float] = {
    "Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": _SHIFT, "TranslateY": _SHIFT,
}  # fmt: skip
"""Operation -> its largest amount, which goes either way."""
_ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")


def _amount(name: str, magnitude: float, sign: int, increasing: bool) -> float:
    """Turn a magnitude in [0, 10] into the unit of an operation."""
    share = magnitude / _MOST
    if name in _SIGNED:
        return sign * share * _SIGNED[name]
    if name in _ENHANCING:
        return max(0.1, 1 + sign * 0.9 * share) if increasing else 0.1 + 1.8 * share
    if name == "Posterize":
        return 4 - int(share * 4) if increasing else int(share * 4)
    if name == "Solarize":
        level = min(256, int(share * 256))
        return 256 - level if increasing else level
    return min(128, int(share * 110)) if name == "SolarizeAdd" else 0.0


class RandAugment(NamedTuple):
    """``num_ops`` operations of all, with replacement, each done half of the time.

    They get stronger with the magnitude ("increasing"; else some get weaker).
    """

    magnitude: float
    num_ops: int
    magnitude_std: float
    increasing: bool

    def draw(self, generator: torch.Generator) -> list[Step]:
        """Draw what is done to a clip."""
        names, steps = list(_OPERATIONS), []
        for _ in range(self.num_ops):
            place, does, sign = _uniform(3, generator)
            normal = torch.randn((), dtype=torch.float64, generator=generator, device="cpu")
            magnitude = self.magnitude + self.magnitude_std * normal.item()
            name = names[int(place * len(names))]
            if does < _OP_PROBABILITY:
                magnitude = min(max(magnitude, 0.0), _MOST)
                side = 1 if sign < 0.5 else -1
                steps.append(Step(name, _amount(name, magnitude, side, self.increasing)))
        return steps


_V0 = """
Equalize .8 1 ShearY .8 4; Color .4 9 Equalize .6 3; Color .4 1 Rotate .6 8;
Solarize .8 3 Equalize .4 7; Solarize .4 2 Solarize .6 2; Color .2 0 Equalize .8 8;
Equalize .4 8 SolarizeAdd .8 3; ShearX .2 9 Rotate .6 8; Color .6 1 Equalize 1 2;
Invert .4 9 Rotate .6 0; Equalize 1 9 ShearY .6 3; Color .4 7 Equalize .6 0;
Posterize .4 6 AutoContrast .4 7; Solarize .6 8 Color .6 9; Solarize .2 4 Rotate .8 9;
Rotate 1 7 TranslateY .8 9; ShearX 0 0 Solarize .8 4; ShearY .8 0 Color .6 4;
Color 1 0 Rotate .6 2; Equalize .8 4 Equalize 0 8; Equalize 1 4 AutoContrast .6 2;
ShearY .4 7 SolarizeAdd .6 7; Posterize .8 2 Solarize .6 10; Solarize .6 8 Equalize .6 1;
Color .8 6 Rotate .4 5
"""
"""The 25 pairs of operations found for ImageNet: name, probability, magnitude, twice."""


class AutoAugment:
    """One of 25 pairs of operations, each done with its own probability ("v0")."""

    def __init__(self) -> None:
        self.pairs: list[list[tuple[str, float, float]]] = []
        for pair in _V0.split(";"):
            words = pair.split()
            triples = (words[:3], words[3:])
            self.pairs.append([(name, float(p), float(m)) for name, p, m in triples])

    def draw(self, generator: torch.Generator) -> list[Step]:
        """Draw what is done to a picture."""
        place, *draws = _uniform(5, generator)
        steps = []
        chosen = self.pairs[int(place * len(self.pairs))]
        for (name, probability, magnitude), does, sign in zip(
            chosen, draws[:2], draws[2:], strict=True
        ):
            if does < probability:
                side = 1 if sign < 0.5 else -1
                steps.append(Step(name, _amount(name, magnitude, side, increasing=False)))
        return steps


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    draws = torch.rand(count, dtype=torch.float64, generator=generator, device="cpu")
    return [float(draw) for draw in draws]


@lru_cache
def parse_policy(words: str) -> RandAugment | AutoAugment:
    """Read a policy in timm's notation.

    Args:
        words: ``v0``, or ``rand`` and, between dashes, ``m`` and the magnitude (0 to 10; 10), ``n``
            and the number of operations (2), ``mstd`` and the standard deviation of the magnitude
            (0), ``inc1`` for the increasing operations.

    Raises:
        ValueError: If it is none.
    """
    if words == "v0":
        return AutoAugment()
    name, *parts = words.split("-")
    found: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"(mstd|m|n|inc)(\d+(?:\.\d*)?)", part)
        if match is None or match[1] in found:
            break
        found[match[1]] = float(match[2])
    magnitude, count = found.get("m", _MOST), found.get("n", 2.0)
    if (
        name != "rand"
        or len(found) < len(parts)
        or not 0 <= magnitude <= _MOST
        or not 1 <= count <= 100
        or count != int(count)
        or not math.isfinite(found.get("mstd", 0.0))
    ):
        raise ValueError(
            f"auto_augment {words!r} is no policy that is known; give v0, or for example "
            "rand-m7-n4-mstd0.5-inc1"
        )
    return RandAugment(magnitude, int(count), found.get("mstd", 0.0), bool(found.get("inc")))


def auto_augment(
    frames: Tensor, policy: str, mean: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Draw operations and do them to all frames of a clip.

    Args:
        frames: (T, 3, H, W) uint8.
        policy: See ``parse_policy``.
        mean: Per channel, of values in [0, 1]: the colour of what comes in from outside.
        generator: Source of the draws.

    Returns:
        (T, 3, H, W) uint8.
    """
    return apply_steps(frames, parse_policy(policy).draw(generator), mean)


def apply_steps(frames: Tensor, steps: Sequence[Step], mean: Sequence[float]) -> Tensor:
    """Do operations to all frames (T, 3, H, W) uint8, see ``auto_augment``."""
    if not steps:
        return frames
    red, green, blue = (min(255, round(255 * value)) for value in mean)
    changed = []
    for frame in frames.permute(0, 2, 3, 1).contiguous().numpy():
        picture = Image.fromarray(frame)
        for step in steps:
            picture = _OPERATIONS[step.name](picture, step.amount, (red, green, blue))
        changed.append(np.asarray(picture))
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)
