"""Frames to network input: the same crop and flip for every frame of a clip.

Published protocol: training takes a random resized crop; evaluation squashes the whole frame to a
square, without cropping. Both resize the uint8 frames with bicubic interpolation and round to uint8
before normalising. The published code does not antialias (``antialias=False``); the default here
does, since a frame that is made smaller otherwise loses or invents fine detail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.data.sampling import Sampling, TrainSampling, frame_indices

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ASPECT_RATIOS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class ClipSettings:
    """How a video becomes network input; one object serves training, evaluation and export.

    Args:
        num_frames: Frames per clip.
        image_size: Side of the square frames, pixels.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        sampling: Which frames training takes; evaluation always takes the middle ones.
        crop_scale: Range of the area that a training crop keeps, as a share of the frame.
        flip: Mirror half of the training clips. Off by default: captions say left and right.
        antialias: Average over the pixels that fall together when a frame is made smaller.

    Raises:
        ValueError: If a value is out of range.
    """

    num_frames: int
    image_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sampling: TrainSampling = "random"
    crop_scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = False
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.image_size < 1:
            raise ValueError(
                f"num_frames {self.num_frames} and image_size {self.image_size} must be positive"
            )
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale {self.crop_scale} is no range inside (0, 1]; give e.g. (0.5, 1.0)"
            )

    def choose(
        self,
        available: int,
        generator: torch.Generator | None = None,
        frames: int | None = None,
    ) -> list[int]:
        """Choose frame indices: for training if a generator is given, else the middle ones.

        Args:
            available: Frames of the video.
            generator: Source of the training draws.
            frames: Take this many instead of ``num_frames``.
        """
        rule: Sampling = "middle" if generator is None else self.sampling
        return frame_indices(available, frames or self.num_frames, rule, generator)


def train_transform(frames: Tensor, settings: ClipSettings, generator: torch.Generator) -> Tensor:
    """Crop at random, resize, perhaps mirror, normalise.

    Args:
        frames: (T, C, H, W) uint8.
        settings: Sizes and ranges.
        generator: Source of the draws.

    Returns:
        (T, C, image_size, image_size) float32.
    """
    height, width = frames.shape[-2:]
    top, left, h, w = random_crop_box(height, width, settings.crop_scale, generator)
    pixels = _resize(frames[..., top : top + h, left : left + w], settings)
    if settings.flip and torch.rand((), generator=generator).item() < 0.5:
        pixels = pixels.flip(-1)
    return _normalise(pixels, settings)


def eval_transform(frames: Tensor, settings: ClipSettings) -> Tensor:
    """Squash to a square and normalise.

    Args:
        frames: (T, C, H, W) uint8.
        settings: Size, mean and std.

    Returns:
        (T, C, image_size, image_size) float32.
    """
    return _normalise(_resize(frames, settings), settings)


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
        draws = torch.rand(4, dtype=torch.float64, generator=generator).tolist()
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
        ratio = math.exp(low + (high - low) * draws[1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w
    w = min(width, round(height * _ASPECT_RATIOS[1]))
    h = min(height, round(width / _ASPECT_RATIOS[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _resize(frames: Tensor, settings: ClipSettings) -> Tensor:
    """Resize (T, C, H, W) uint8 to a square of whole numbers in 0 to 255, as float32.

    In float: the uint8 kernel of torch, which torchvision's v2 transforms use, gives other pixels.
    """
    pixels, size = frames.float(), settings.image_size
    if pixels.shape[-2:] == (size, size):
        return pixels
    pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=settings.antialias)
    return pixels.clamp_(0, 255).round_()


def _normalise(pixels: Tensor, settings: ClipSettings) -> Tensor:
    """Return ``(x / 255 - mean) / std`` of (T, C, H, W) values in 0 to 255."""
    mean = torch.tensor(settings.mean).view(-1, 1, 1)
    std = torch.tensor(settings.std).view(-1, 1, 1)
    return ((pixels / 255 - mean) / std).contiguous()
