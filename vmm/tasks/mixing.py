"""Mixup and cutmix: each sample of a batch is mixed with another one, and so is its target.

Zhang et al., arXiv 1710.09412; Yun et al., arXiv 1905.04899. As in the published fine-tuning,
sample i of a process' batch is mixed with sample B - 1 - i, all with one share and one box, which
is the same in all frames. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed in training.

    Args:
        mixup_alpha: Of the Beta distribution of a sample's share, 0 = no mixup.
        cutmix_alpha: The same of cutmix, where the share is that of the area.
        prob: Share of the batches that are mixed.
        switch_prob: Share of those in which cutmix is taken, if both are there.

    Raises:
        ValueError: If a number is out of range.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5

    def __post_init__(self) -> None:
        alphas, shares = (self.mixup_alpha, self.cutmix_alpha), (self.prob, self.switch_prob)
        if not all(0 <= x < math.inf for x in alphas) or not all(0 <= x <= 1 for x in shares):
            raise ValueError(
                f"{self}: mixup_alpha and cutmix_alpha must be 0 or more, prob and switch_prob "
                "from 0 to 1"
            )

    def __bool__(self) -> bool:
        """Whether anything is ever mixed."""
        return bool(self.prob and (self.mixup_alpha or self.cutmix_alpha))

    def __call__(
        self, video: Tensor, targets: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch, or leave it.

        Args:
            video: (B, T, C, H, W) float32.
            targets: (B, K) float32.
            rng: Source of the draws.

        Returns:
            The same shapes; the arguments are unchanged.
        """
        if not self or rng.random() >= self.prob:
            return video, targets
        cut = self.cutmix_alpha > 0
        if cut and self.mixup_alpha > 0:
            cut = rng.random() < self.switch_prob
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share = float(rng.beta(alpha, alpha))
        if cut:
            height, width = video.shape[-2:]
            top, bottom, left, right = _box(height, width, share, rng)
            mixed = video.clone()
            mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (height * width)
        else:
            mixed = video.lerp(video.flip(0), 1 - share)
        return mixed, targets.lerp(targets.flip(0), 1 - share)


def _box(
    height: int, width: int, share: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a box of a share 1 - ``share`` of the picture around any point, cut off at the edges."""
    sides = [int(side * math.sqrt(1 - share)) for side in (height, width)]
    edges = []
    for side, length in zip(sides, (height, width), strict=True):
        centre = int(rng.integers(length))
        edges += [max(0, centre - side // 2), min(length, centre + side // 2)]
    top, bottom, left, right = edges
    return top, bottom, left, right
