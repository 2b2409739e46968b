"""What a frozen teacher is: it says what the tokens of clips mean, and perhaps where it looks.

Shape legend: see ``vmm.types``; K layers, E width of the teacher's tokens, F frames in a flat
batch, W width of a tower.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmm.types import TeacherFeatures

logger = logging.getLogger(__name__)

Saliency = Literal["class", "received"]
"""Where an image model looks: the attention of its class token to each patch, or that which each
patch receives from all tokens; both of the last layer, mean over heads."""

Triple = tuple[float, float, float]
Statistics = tuple[Triple, Triple]
"""Mean and standard deviation of pixels, per channel, of values in [0, 1]."""

_USUAL: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, by which clips are normalised."""


class Part(NamedTuple):
    """Columns of a teacher's tokens that one model gave."""

    width: int
    """Columns; those of parts lie side by side."""
    weight: float
    """Of the distance to them."""
    class_token: bool
    """Whether the first token is of the whole clip, and not only there for its place."""
    name: str = ""
    """Of the model among several."""


class Teacher(nn.Module, ABC):
    """Base of all teachers; recipes name a subclass. It stays frozen and in evaluation mode.

    Building it only stores the arguments, so that a recipe can be looked at without weights.
    """

    clip_statistics = _USUAL
    """Mean and standard deviation by which the clips that it sees are normalised."""

    @property
    @abstractmethod
    def output_dim(self) -> int:
        """Width E of its tokens."""

    @property
    @abstractmethod
    def layers(self) -> list[int]:
        """Numbers of the K layers that it gives, shallow to deep, from 0."""

    @property
    def looks(self) -> bool:
        """Whether it says where it looks, which masks of kind ``attention`` need."""
        return False

    @property
    def parts(self) -> list[Part]:
        """The models that its tokens are of."""
        return [Part(self.output_dim, 1.0, True)]

    @abstractmethod
    def build(self) -> None:
        """Build what it is made of, with random weights."""

    @abstractmethod
    def load(self) -> None:
        """Build it and load its weights."""

    @abstractmethod
    def forward(self, video: Tensor) -> TeacherFeatures:
        """Look at clips (B, T, C, H, W), normalised by ``clip_statistics``."""

    def freeze(self) -> Self:
        """Let nothing of it learn."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the student does."""
        return super().train(False)


class Seen(NamedTuple):
    """What an image model makes of frames."""

    patches: list[Tensor]
    """(F, N, W) of each layer."""
    first: list[Tensor] | None
    """(F, W) class token of each layer; None if there is none."""
    attention: Tensor | None
    """(F, N), if it is asked where it looks."""


class FrameTeacher(Teacher):
    """An image model that looks at every frame on its own.

    Args:
        name: Of the model.
        pretrained: Its weights; what is said of no weights, the subclass knows.
        image_size: Side of the frames that it sees, pixels; others are resized.
        num_layers: Layers K whose tokens it gives, counted from the last; as many as the student
            has taps (its ``num_taps``).
        layer_interval: Distance between two of them.
        final_norm: Apply the model's final norm to every layer.
        saliency: Where it looks, see ``Saliency``; None = that is not asked.
        mean: Of the pixels that its weights want; None = as its own files say.
        std: As ``mean``.

    Raises:
        ValueError: If a number is below 1, or only one of ``mean`` and ``std`` is given.
    """

    def __init__(
        self,
        name: str,
        pretrained: str | bool | None,
        image_size: int,
        num_layers: int,
        layer_interval: int,
        final_norm: bool,
        saliency: Saliency | None,
        mean: Triple | None,
        std: Triple | None,
    ) -> None:
        super().__init__()
        check_numbers(image_size=image_size, num_layers=num_layers, layer_interval=layer_interval)
        if (mean is None) != (std is None):
            raise ValueError(f"mean is {mean} and std is {std}; give both or neither")
        self.name = name
        self.pretrained = pretrained
        self.image_size = image_size
        self.num_layers = num_layers
        self.layer_interval = layer_interval
        self.final_norm = final_norm
        self.saliency = saliency
        self.statistics = None if mean is None or std is None else statistics_of(mean, std)
        self.built = False

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of its layers."""

    @property
    @abstractmethod
    def class_token(self) -> bool:
        """Whether it has a class token."""

    @abstractmethod
    def own_statistics(self) -> Statistics | None:
        """Mean and std of the pixels that the model's own files want, if they say it."""

    @abstractmethod
    def look(self, frames: Tensor) -> Seen:
        """Look at frames (F, C, image_size, image_size), normalised as the weights want them."""

    @property
    def layers(self) -> list[int]:
        """See ``Teacher``.

        Raises:
            ValueError: If the model has no such layer.
        """
        return chosen_layers(self.depth, self.num_layers, self.layer_interval, self.name)

    @property
    def looks(self) -> bool:
        """Whether ``saliency`` is stated."""
        return self.saliency is not None

    @property
    def parts(self) -> list[Part]:
        """One, of which the first token is of the whole clip if there is a class token."""
        return [Part(self.output_dim, 1.0, self.class_token)]

    def check(self) -> None:
        """Refuse what the model does not have, before it is asked.

        Raises:
            ValueError: If there are no such layers, or no class token that looks.
        """
        _ = self.layers
        if self.saliency == "class" and not self.class_token:
            raise ValueError(
                f"teacher {self.name} has no class token, so saliency cannot be class; set it to "
                "received, the attention that each patch gets from all others, or to null"
            )

    def ready(self) -> None:
        """Freeze what has been built, and remember which pixels it wants."""
        self.statistics = self.statistics or self.own_statistics()
        self.built = True
        self.freeze()

    @torch.no_grad()
    def forward(self, video: Tensor) -> TeacherFeatures:
        """Look at every frame of clips (B, T, C, H, W), normalised by ``clip_statistics``.

        Raises:
            ValueError: If ``load`` was not called.
        """
        if not self.built:
            raise ValueError(f"teacher {self.name} has no weights yet; call load() first")
        b, t = video.shape[:2]
        wanted = self.statistics or self.clip_statistics
        frames = renormalised(video.flatten(0, 1), self.clip_statistics, wanted)
        patches, first, attention = self.look(resized(frames, self.image_size))
        if first is None:  # nothing is of the whole frame: the place is kept by the mean
            first = [x.mean(1) for x in patches]
        tokens = [
            join_frames(torch.cat([c[:, None], x], 1).view(b, t, 1 + x.shape[1], -1))
            for c, x in zip(first, patches, strict=True)
        ]
        return TeacherFeatures(
            torch.stack(tokens, 1), None if attention is None else attention.view(b, t, -1)
        )


def check_numbers(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ValueError: With the name and the number.
    """
    for what, number in numbers.items():
        if number < 1:
            raise ValueError(f"{what} {number} must be at least 1")


def chosen_layers(depth: int, count: int, interval: int, name: str) -> list[int]:
    """Number layers at equal distances, the last one included, shallow to deep, from 0.

    Raises:
        ValueError: If there are not so many.
    """
    layers = [depth - 1 - k * interval for k in reversed(range(count))]
    if layers[0] < 0:
        raise ValueError(
            f"{count} layers at interval {interval} do not fit into the {depth} of teacher {name}; "
            "lower num_layers or layer_interval"
        )
    return layers


def say_random(name: str) -> None:
    """Say that a teacher knows nothing."""
    logger.warning(
        "TEACHER %s HAS RANDOM WEIGHTS: this is a smoke run, the student learns noise", name
    )


def resized(frames: Tensor, side: int) -> Tensor:
    """Resize frames (F, C, H, W) to squares of ``side`` pixels, where they are no such."""
    if frames.shape[-2:] == (side, side):
        return frames
    return F.interpolate(frames.float(), size=side, mode="bicubic", align_corners=False)


def statistics_of(mean: Sequence[float], std: Sequence[float]) -> Statistics:
    """Take what a file or a recipe says of pixels.

    Raises:
        ValueError: If these are not three numbers each, or a deviation is not above 0.
    """
    try:
        (r, g, b), (x, y, z) = map(float, mean), map(float, std)
    except (TypeError, ValueError) as error:
        raise ValueError(f"mean {mean} and std {std} must be three numbers each") from error
    if min(x, y, z) <= 0:
        raise ValueError(f"std {std} must be above 0")
    return (r, g, b), (x, y, z)


def renormalised(frames: Tensor, given: Statistics, wanted: Statistics) -> Tensor:
    """Normalise frames (F, C, H, W) by another mean and standard deviation."""
    if given == wanted:
        return frames
    (mean, std), (mean_wanted, std_wanted) = (
        [frames.new_tensor(values)[:, None, None] for values in pair] for pair in (given, wanted)
    )
    return (frames * std + (mean - mean_wanted)) / std_wanted


def join_frames(x: Tensor) -> Tensor:
    """(B, T, 1 + N, W) to (B, 1 + T * N, W): the class tokens meant over frames, then patches."""
    return torch.cat([x[:, :, 0].mean(1, keepdim=True), x[:, :, 1:].flatten(1, 2)], dim=1)


def saliency_of(attention: Tensor, kind: Saliency, num_patches: int) -> Tensor:
    """Say where a layer looks.

    Args:
        attention: (F, h, L, L) after the softmax, queries before keys; patches are the last tokens.
        kind: See ``Saliency``.
        num_patches: N.

    Returns:
        (F, N) float32, non-negative.
    """
    rows = attention[:, :, 0] if kind == "class" else attention.mean(2)
    return rows.float().mean(1)[:, -num_patches:]
