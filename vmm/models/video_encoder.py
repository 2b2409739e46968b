"""The interface of every video encoder: what the tasks, the evaluation and the export call.

Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vmm.models.joint_projection import JointProjection
from vmm.types import VideoFeatures


class VideoEncoder(nn.Module, ABC):
    """Base of all video encoders; recipes name a subclass, tasks see only this.

    Args:
        embed_dim: Width D of tokens and pooled features.
        num_frames: Frames per clip the encoder is configured for.
        image_size: Side of the square frames, pixels.
        patch_size: Side of one patch, pixels.
        tubelet_size: Frames per token along time.

    Raises:
        ValueError: If a size is below 1 or the sizes do not divide each other.
    """

    num_taps: int = 1
    """Layers K whose features the alignment loss reads."""

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        image_size: int,
        patch_size: int,
        tubelet_size: int = 1,
    ) -> None:
        super().__init__()
        sizes = {
            "embed_dim": embed_dim,
            "num_frames": num_frames,
            "image_size": image_size,
            "patch_size": patch_size,
            "tubelet_size": tubelet_size,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        if image_size % patch_size:
            raise ValueError(
                f"image_size {image_size} is not a multiple of patch_size {patch_size}; "
                "change one of them"
            )
        if num_frames % tubelet_size:
            raise ValueError(
                f"num_frames {num_frames} is not a multiple of tubelet_size {tubelet_size}; "
                "change one of them"
            )
        self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.image_size = image_size
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size

    @property
    def num_patches(self) -> int:
        """Patches N of one frame at ``image_size``."""
        return (self.image_size // self.patch_size) ** 2

    @abstractmethod
    def forward(
        self,
        video: Tensor,
        dropped: Tensor | None = None,
        keep_temporal: bool = False,
        with_taps: bool = False,
    ) -> VideoFeatures:
        """Encode clips; an image is a clip with T = 1.

        Args:
            video: (B, T, C, H, W) float.
            dropped: (B, 1 + T * N) bool, True = hidden, class token (never hidden) first, then
                frame-major patches. Every row hides the same number of tokens. It must be drawn
                for this grid: one of as many tokens in other steps and patches is not told apart.
            keep_temporal: Pool every frame apart, P = T, instead of the clip, P = 1.
            with_taps: Also return the features that the alignment loss reads.

        Returns:
            Tokens, pooled features and, if asked for, the taps.

        Raises:
            ValueError: If a shape does not fit, or rows of ``dropped`` hide unequal numbers.
        """

    def unread(self, tokens: bool, pooled: bool) -> list[nn.Module]:
        """Name the parts that no loss reaches; by default none.

        Args:
            tokens: Whether a loss reads the tokens; the taps are always read.
            pooled: Whether a loss reads the pooled features, which are made of the tokens.
        """
        return []

    def load_pretrained(self) -> object:
        """Load published weights that the constructor's arguments name; by default none."""
        return None

    def joint_projection(self) -> JointProjection | None:
        """What those weights map pooled features to a joint space with; by default nothing."""
        return None

    def exported_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that an exported folder states, as JSON can hold them.

        Args:
            given: Those of the recipe, which are the default.
        """
        return dict(given)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the standard recipe leaves without weight decay."""
        return set()

    def layer_names(self) -> list[tuple[str, ...]]:
        """Name how the parameters of each layer begin, from what embeds the input on.

        What is named nowhere comes after the last layer. By default none: then no layer can have a
        learning rate of its own.
        """
        return []

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit a state dict of another frame count or image size to this encoder's.

        Tensors of any shape may come.
        """
        return state
