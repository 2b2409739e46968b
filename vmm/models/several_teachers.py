"""Several teachers at once, each with a head of the student and a weight of its own.

Shape legend: see ``vmm.models.teacher``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vmm.models.teacher import Part, Teacher
from vmm.types import TeacherFeatures


class SeveralTeachers(Teacher):
    """Teachers side by side: the student has a head for each, and the distances are added.

    Args:
        members: By name, in whose order they are kept. All give as many layers as the student has
            taps.
        weights: Of each one's distance; those that are not named have 1.
        looks_by: Name of the one whose attention guides masks; None = the first that says where it
            looks.

    Raises:
        ValueError: If there is none, or a name or weight is wrong.
    """

    def __init__(
        self,
        members: dict[str, Teacher],
        weights: dict[str, float] | None = None,
        looks_by: str | None = None,
    ) -> None:
        super().__init__()
        weights = weights or {}
        strange = sorted({*weights, *([looks_by] if looks_by else [])} - set(members))
        if not members or strange:
            what = f"no teacher is called {strange[0]!r}" if strange else "there is no teacher"
            raise ValueError(f"{what}; members are {', '.join(members) or 'none'}")
        if unfit := [name for name in members if not name.isidentifier()]:
            raise ValueError(f"the name {unfit[0]!r} of a teacher must be of letters and digits")
        odd = {n: w for n, w in weights.items() if not (0 < w < math.inf)}
        if odd:
            raise ValueError(f"weights of teachers must be above 0, not {odd}; leave one out")
        members = dict(sorted(members.items()))  # a recipe that was saved has them in that order
        self.members = nn.ModuleDict(members)
        self.weights = {name: weights.get(name, 1.0) for name in members}
        able = [name for name, one in members.items() if one.looks]
        if looks_by is not None and looks_by not in able:
            raise ValueError(
                f"teacher {looks_by} does not say where it looks; state its saliency, or set "
                "looks_by to another one"
            )
        self.looks_by = looks_by or next(iter(able), None)

    def _all(self) -> list[Teacher]:
        return [one for one in self.members.values() if isinstance(one, Teacher)]

    @property
    def output_dim(self) -> int:
        """Width of all tokens side by side."""
        return sum(one.output_dim for one in self._all())

    @property
    def layers(self) -> list[int]:
        """Those of the first.

        Raises:
            ValueError: If another gives more or fewer.
        """
        numbers = {
            name: len(one.layers) for name, one in zip(self.weights, self._all(), strict=True)
        }
        if len(set(numbers.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in numbers.items())
            raise ValueError(
                f"all teachers must give as many layers as the student has taps: {said}"
            )
        return self._all()[0].layers

    @property
    def looks(self) -> bool:
        """Whether one does."""
        return self.looks_by is not None

    @property
    def parts(self) -> list[Part]:
        """Those of all."""
        return [
            part._replace(weight=part.weight * weight, name=f"{name}_{part.name}".strip("_"))
            for (name, weight), one in zip(self.weights.items(), self._all(), strict=True)
            for part in one.parts
        ]

    def build(self) -> None:
        """Build all."""
        for one in self._all():
            one.build()

    def load(self) -> None:
        """Load all."""
        for one in self._all():
            one.clip_statistics = self.clip_statistics
            one.load()

    @torch.no_grad()
    def forward(self, video: Tensor) -> TeacherFeatures:
        """Ask all about clips (B, T, C, H, W).

        Raises:
            ValueError: If they see other patches.
        """
        found = {name: one(video) for name, one in zip(self.weights, self._all(), strict=True)}
        lengths = {name: features.tokens.shape[2] for name, features in found.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(
                f"the teachers see patches of other grids (tokens of a clip: {said}); choose "
                "image_size of each so that image_size / patch size is the student's"
            )
        tokens = torch.cat([features.tokens for features in found.values()], -1)
        attention = None if self.looks_by is None else found[self.looks_by].attention
        return TeacherFeatures(tokens, attention)
