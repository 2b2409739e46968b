"""What published image-text models bring along besides their towers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class JointProjection(NamedTuple):
    """How the model that a tower comes from maps its pooled features to the joint space.

    E is the width of that space, D of the pooled features.
    """

    source: str
    """The file, for messages."""
    weight: Tensor
    """(E, D)."""
    bias: Tensor | None = None
    """(E,)."""
    temperature: float | None = None
    """What that model divides cosines by."""
