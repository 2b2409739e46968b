"""Frames to network input: the same crop and flip for every frame of a clip.

Published protocol: training takes a random resized crop; evaluation squashes the whole frame to a
square, without cropping. Both resize with bicubic interpolation and round to uint8 before
normalising. The published code does not antialias (``antialias=False``) and works in float; the
default here does, since a frame that is made smaller otherwise loses or invents fine detail, and
works in uint8, which is several times faster.

Both have the bits of torchvision's v2 functions (tests show it), which take longer to import than
torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.data.auto_augment import auto_augment, parse_policy
from vmm.data.decode import Decoder
from vmm.data.sampling import Sampling, choose_frames
from vmm.data.times import MAX_RATE

Fit = Literal["squash", "crop"]
Interpolation = Literal["bicubic", "bilinear"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_ERASED = (0.02, 1 / 3)
_ERASED_RATIOS = (0.3, 1 / 0.3)
# What a mirror makes wrong: "left", "rightmost", "leftwards", "clockwise".
_SIDED = re.compile(r"\b(left|right|((counter|anti)-?)?clockwise)", re.IGNORECASE)


@dataclass(frozen=True)
class ClipSettings:
    """How a video becomes network input; one object serves training, evaluation and export.

    Args:
        num_frames: Frames per clip.
        image_size: Side of the square frames, pixels.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        sampling: Which frames make a clip, see ``vmm.data.sampling``.
        fps: Frames per second of the sampling "fps".
        stride: Frames from one to the next of the sampling "dense".
        auto_augment: Operations on the whole frames of training clips, in timm's notation; see
            ``vmm.data.auto_augment``.
        crop_scale: Range of the area that a training crop keeps, as a share of the frame.
        flip: Mirror half of the training clips, but none whose caption names a side.
        flip_sided: Mirror also clips whose captions say left or right, as published.
        random_erasing: Share of the training clips of which a box is replaced by noise.
        aug_repeats: How often a sample that was read once is augmented; all copies are in the batch
            of a training step, side by side.
        fit: How evaluation makes frames square: "squash" them, as published, or resize the short
            side and "crop" the centre, which keeps shapes but loses the margins.
        crop_pct: Share of the short side that the fit "crop" keeps.
        interpolation: How frames are resized, in training and evaluation.
        antialias: Average over the pixels that fall together when a frame is made smaller.
            Published: False.
        decoder: What decodes videos.
        isolate_decode: Decode in a process of its own that may hang or crash, for data that nobody
            has checked.

    Raises:
        ValueError: If a value is out of range.
    """

    num_frames: int
    image_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sampling: Sampling = "random"
    fps: float | None = None
    stride: int = 1
    auto_augment: str | None = None
    crop_scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = False
    flip_sided: bool = False
    random_erasing: float = 0.0
    aug_repeats: int = 1
    fit: Fit = "squash"
    crop_pct: float = 1.0
    interpolation: Interpolation = "bicubic"
    antialias: bool = True
    decoder: Decoder = "pyav"
    isolate_decode: bool = False

    def __post_init__(self) -> None:
        counts = (self.num_frames, self.image_size)
        if any(not isinstance(n, int | np.integer) or n is True or n < 1 for n in counts):
            raise ValueError(
                f"num_frames {self.num_frames} and image_size {self.image_size} must be positive "
                "whole numbers"
            )
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale {self.crop_scale} is no range inside (0, 1]; give e.g. (0.5, 1.0)"
            )
        if self.sampling not in get_args(Sampling) or self.fit not in get_args(Fit):
            raise ValueError(
                f"sampling {self.sampling!r} must be one of {get_args(Sampling)} and fit "
                f"{self.fit!r} one of {get_args(Fit)}"
            )
        if (self.fps is not None) != (self.sampling == "fps") or (
            self.fps is not None and not 0 < self.fps <= MAX_RATE
        ):
            raise ValueError(
                f"fps {self.fps} does not go with sampling {self.sampling!r}; set fps to a rate "
                f"above 0, at most {MAX_RATE}, together with sampling 'fps', and leave it out "
                "otherwise"
            )
        centred = len(self.mean) == 3 and all(0 <= x <= 1 for x in self.mean)
        if not (centred and len(self.std) == 3 and all(0 < x <= 1 for x in self.std)):
            raise ValueError(
                f"mean {self.mean} and std {self.std} must be three numbers each, of values in "
                "[0, 1]; divide those of values in 0 to 255 by 255"
            )
        if (
            not isinstance(self.stride, int | np.integer)
            or self.stride < 1
            or (self.stride > 1 and self.sampling != "dense")
        ):
            raise ValueError(
                f"stride {self.stride} does not go with sampling {self.sampling!r}; set it to 1, 2 "
                "or more together with sampling 'dense', and leave it out otherwise"
            )
        self._check_augmentation()
        if self.flip_sided and not self.flip:
            raise ValueError("flip_sided says which clips `flip` may mirror; set flip too")

    def _check_augmentation(self) -> None:
        if self.auto_augment is not None:
            parse_policy(self.auto_augment)
        if not 0 <= self.random_erasing <= 1 or not 0 < self.crop_pct <= 1:
            raise ValueError(
                f"random_erasing {self.random_erasing} and crop_pct {self.crop_pct} are shares; "
                "give numbers from 0 to 1, e.g. 0.25 and 0.875"
            )
        if self.crop_pct < 1 and self.fit != "crop":
            raise ValueError(
                f"crop_pct {self.crop_pct} is for frames that are cropped; set fit to crop too"
            )
        if self.aug_repeats < 1 or self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"aug_repeats {self.aug_repeats} must be at least 1 and interpolation "
                f"{self.interpolation!r} one of {get_args(Interpolation)}"
            )

    def with_frames(self, num_frames: int | None) -> ClipSettings:
        """Return the same settings for another number of frames; None = for as many."""
        return self if num_frames is None else replace(self, num_frames=num_frames)

    def choose(
        self,
        times: np.ndarray,
        generator: torch.Generator | None = None,
        clip: int = 0,
        num_clips: int = 1,
    ) -> list[int]:
        """Choose frames: drawn for training if a generator is given, else those of evaluation.

        Args:
            times: (V,) seconds at which the frames of the video are shown.
            generator: Source of the training draws.
            clip: Which clip of the video, in evaluation; from 0.
            num_clips: Clips per video, in evaluation.
        """
        return choose_frames(
            times,
            self.num_frames,
            self.sampling,
            generator,
            fps=self.fps,
            stride=self.stride,
            clip=clip,
            num_clips=num_clips,
        )


def augmented(
    frames: Tensor, settings: ClipSettings, generator: torch.Generator, captions: Sequence[str]
) -> list[Tensor]:
    """Augment a clip as often as the settings say, see ``train_transform``.

    Args:
        frames: (T, C, H, W) uint8.
        settings: Sizes and ranges.
        generator: Source of the draws.
        captions: All captions of the clip.

    Returns:
        (T, C, image_size, image_size) each.
    """
    copies = range(settings.aug_repeats)
    return [train_transform(frames, settings, generator, captions) for _ in copies]


def train_transform(
    frames: Tensor, settings: ClipSettings, generator: torch.Generator, captions: Sequence[str]
) -> Tensor:
    """Augment colours and shape, crop at random, resize, perhaps mirror, perhaps erase.

    All of it, but the noise of what is erased, is the same for all frames. Bytes are left to be
    normalised where the clip is used: they are a quarter of what goes from process to process.

    Args:
        frames: (T, C, H, W) uint8.
        settings: Sizes and ranges.
        generator: Source of the draws.
        captions: All captions of the clip: if one names a side, the clip is not mirrored unless
            the settings say so. The draws do not depend on them.

    Returns:
        (T, C, image_size, image_size) uint8; float32, normalised, if the settings erase: no bytes
        hold the noise.
    """
    if settings.auto_augment is not None:
        frames = auto_augment(frames, settings.auto_augment, settings.mean, generator)
    height, width = frames.shape[-2:]
    top, left, h, w = random_crop_box(height, width, settings.crop_scale, generator)
    size = settings.image_size
    pixels = _resize(frames[..., top : top + h, left : left + w], (size, size), settings)
    if (
        settings.flip
        and _uniform(generator) < 0.5
        and (settings.flip_sided or not any(_SIDED.search(caption) for caption in captions))
    ):
        pixels = pixels.flip(-1)
    if not settings.random_erasing:
        return pixels
    return random_erase(normalise(pixels, settings), settings.random_erasing, generator)


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), dtype=torch.float32, generator=generator, device="cpu").item()


def random_erase(pixels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Perhaps replace a box, the same in all frames, by normal noise (arXiv 1708.04896).

    Area uniform from 0.02 to 1/3 of the frame, log aspect ratio uniform between 0.3 and 1 / 0.3.

    Args:
        pixels: (T, C, H, W) float32, normalised; changed in place.
        probability: Of erasing.
        generator: Source of the draws; none is made if the probability is 0.

    Returns:
        The same tensor.
    """
    draw = _uniform(generator) if probability else 1.0
    if draw >= probability:
        return pixels
    height, width = pixels.shape[-2:]
    low, high = (math.log(ratio) for ratio in _ERASED_RATIOS)
    for _ in range(10):
        draws = torch.rand(4, dtype=torch.float64, generator=generator, device="cpu").tolist()
        area = height * width * (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * draws[0])
        ratio = math.exp(low + (high - low) * draws[1])
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w < width and 0 < h < height:
            top, left = int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1))
            box = pixels[..., top : top + h, left : left + w]
            noise = torch.randn(box.shape, dtype=box.dtype, generator=generator, device="cpu")
            box.copy_(noise)
            break
    return pixels


def eval_transform(frames: Tensor, settings: ClipSettings, place: float | None = None) -> Tensor:
    """Make the whole frames, or their centres, square and normalise.

    Args:
        frames: (T, C, H, W) uint8.
        settings: Size, fit, mean and std.
        place: Where along the longer side the fit "crop" cuts, from 0 to 1; None = the centre.

    Returns:
        (T, C, image_size, image_size) float32.
    """
    return normalise(fit_frames(frames, settings, place), settings)


def fit_frames(frames: Tensor, settings: ClipSettings, place: float | None = None) -> Tensor:
    """Make the whole frames, or a part of them, square.

    Args:
        frames: (T, C, H, W) uint8.
        settings: Size and fit.
        place: As for ``eval_transform``.

    Returns:
        (T, C, image_size, image_size) uint8.
    """
    size = settings.image_size
    if settings.fit == "squash":
        return _resize(frames, (size, size), settings)
    height, width = frames.shape[-2:]
    short, resized = min(height, width), int(size / settings.crop_pct)
    h, w = resized * height // short, resized * width // short
    # The published code rounds the place of the centre, and cuts off that of other crops.
    top, left = (round(n / 2) if place is None else int(n * place) for n in (h - size, w - size))
    pixels = _resize(frames, (h, w), settings)
    return pixels[..., top : top + size, left : left + size]


def random_crop_box(
    height: int, width: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Draw the box of a random resized crop ("Inception crop", Szegedy et al. 2015).

    Area uniform in ``scale``, log aspect ratio uniform between 3/4 and 4/3; after ten boxes that
    do not fit, the largest centred one with an allowed ratio.

    Args:
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        scale: Range of the area, as a share of the frame.
        generator: Source of the draws.

    Returns:
        (top, left, height, width), pixels.
    """
    low, high = (math.log(ratio) for ratio in _ASPECT_RATIOS)
    for _ in range(10):
        draws = torch.rand(4, dtype=torch.float64, generator=generator, device="cpu").tolist()
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
        ratio = math.exp(low + (high - low) * draws[1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w
    w = min(width, round(height * _ASPECT_RATIOS[1]))
    h = min(height, round(width / _ASPECT_RATIOS[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _resize(frames: Tensor, size: tuple[int, int], settings: ClipSettings) -> Tensor:
    """Resize (T, C, H, W) uint8 to (height, width), also uint8."""
    mode = settings.interpolation
    if settings.antialias or frames.shape[-2:] == size:
        return F.interpolate(frames, size, mode=mode, antialias=True)
    pixels = frames.contiguous().float()  # decoders put channels last, which resizes slower
    return F.interpolate(pixels, size, mode=mode).clamp_(0, 255).round_().byte()


def normalise(pixels: Tensor, settings: ClipSettings) -> Tensor:
    """Turn bytes into what an encoder sees, with the same bits on every device.

    Args:
        pixels: (..., C, H, W) uint8.
        settings: Mean and std.

    Returns:
        ``(x / 255 - mean) / std`` (..., C, H, W) float32.
    """
    assert pixels.dtype == torch.uint8
    # Filled where the pixels are: a copy to a GPU would wait for it. And a GPU that divides by a
    # number multiplies by its rounded inverse.
    most, mean, std = (
        torch.cat([torch.full((1, 1, 1), x, dtype=torch.float32, device=pixels.device) for x in xs])
        for xs in ((255.0,), settings.mean, settings.std)
    )
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return values.div_(most).sub_(mean).div_(std)
