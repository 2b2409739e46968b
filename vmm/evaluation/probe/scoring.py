"""From features of clips to what every probe says of the test clips.

Shape legend: see ``vmm.types``; N training clips, M test clips, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vmm.evaluation.common.encoding import refuse_broken
from vmm.evaluation.common.features import Clip, FeatureStore
from vmm.evaluation.common.results import count_problems
from vmm.evaluation.probe import attentive
from vmm.evaluation.probe.options import Probe
from vmm.evaluation.probe.readers import (
    NEIGHBOURS,
    STRENGTHS,
    Reading,
    hold_out,
    read_by_neighbours,
    read_linearly,
)

_CHUNK = 256
_READERS = {"linear": read_linearly, "knn": read_by_neighbours}
_FITS = {
    "linear": len(STRENGTHS) + 1,
    "knn": len(NEIGHBOURS) + 1,
    "attentive": 2 * attentive.EPOCHS,
}


class Encoded(NamedTuple):
    """Clips after encoding."""

    clips: list[Clip]
    rows: Tensor
    """(n,) int64, numbers of those that can be read and have a label."""
    vectors: Tensor
    """(n, D) float32."""
    tokens: Tensor | None
    """(clips, L, D) float32, on disk; None of a model without."""

    @classmethod
    def of(cls, store: FeatureStore, labels: Tensor, what: str, keeps_tokens: bool) -> Self:
        """Read features.

        Args:
            store: That holds them.
            labels: (clips,) int64; -1 = none.
            what: The clips are, in the plural.
            keeps_tokens: Whether it holds tokens.

        Raises:
            ValueError: If not one clip could be read, or a feature is NaN.
        """
        clips = [clip for _, clip in sorted(store.finished().items())]
        count_problems([clip.problem for clip in clips], what)
        readable = torch.tensor([clip.problem is None for clip in clips])
        rows = (readable & (labels >= 0)).nonzero().flatten()
        vectors = store.read("projected")[rows].mean(1)
        refuse_broken(vectors, what, [clips[row].key for row in rows.tolist()])
        return cls(clips, rows, vectors, store.read("tokens") if keeps_tokens else None)


class Lesson(NamedTuple):
    """One model's features, and the labels to learn."""

    train: Encoded
    test: Encoded
    labels: Tensor
    """(n,) int64 of the training clips in ``train.rows``."""
    videos: Tensor
    """(n,) int64, their videos."""


def read_all(lesson: Lesson, probes: Sequence[Probe], seed: int, what: str) -> dict[Probe, Reading]:
    """Fit all probes on the training clips, and let them read the test clips.

    Args:
        lesson: Features and labels.
        probes: Which; the attentive one is left out where there are no tokens.
        seed: See ``Options``.
        what: Whose features they are, for the progress bars.
    """
    labels = lesson.labels.numpy()
    parts = hold_out(labels, lesson.videos.numpy(), seed)
    train, test = standardised(lesson.train.vectors, lesson.test.vectors)
    found: dict[Probe, Reading] = {}
    for probe in probes:
        if probe == "attentive" and lesson.train.tokens is None:
            continue
        with tqdm(desc=f"{probe} probe, {what}", total=_FITS[probe], unit="fit") as bar:

            def advance(bar: Any = bar) -> None:
                bar.update()

            if probe == "attentive":
                found[probe] = _read_attentively(lesson, parts, seed, advance)
            else:
                read = _READERS[probe]
                found[probe] = read(train.numpy(), labels, test.numpy(), parts, advance)
    return found


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Give features the mean 0 and the variance 1 over the training clips, where they vary.

    Args:
        train: (N, D).
        test: (M, D).

    Returns:
        Both in float64.
    """
    train, test = train.double(), test.double()
    mean, scale = train.mean(0), train.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * train.abs().amax(0).clamp(min=1e-12), scale, torch.inf)
    return (train - mean) / scale, (test - mean) / scale


def _read_attentively(
    lesson: Lesson, parts: tuple[np.ndarray, np.ndarray], seed: int, advance: attentive.Advance
) -> Reading:
    mean, scale = _statistics(lesson.train)
    train, test = (
        attentive.Tokens(part.tokens, part.rows, mean, scale)
        for part in (lesson.train, lesson.test)
        if part.tokens is not None
    )
    fitted, held = (torch.from_numpy(part) for part in parts)
    probe, epochs, right = attentive.fit_attentive(
        train, lesson.labels, (fitted, held), seed, advance
    )
    scores = attentive.score(probe, test, torch.arange(len(test.rows)))
    keys = [lesson.test.clips[row].key for row in lesson.test.rows.tolist()]
    refuse_broken(scores, "test clips", keys)
    edge = epochs == attentive.EPOCHS
    return Reading(scores.double().numpy(), {"epochs": epochs}, right, edge)


def _statistics(part: Encoded) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation of every channel over all tokens, (D,) each.

    Raises:
        ValueError: If a token is NaN.
    """
    assert part.tokens is not None
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for rows in torch.split(part.rows, _CHUNK):
        tokens = part.tokens[rows].double()
        refuse_broken(tokens, "training clips", [part.clips[row].key for row in rows.tolist()])
        total, squares = total + tokens.sum((0, 1)), squares + tokens.square().sum((0, 1))
        count += tokens.shape[0] * tokens.shape[1]
    mean = total / count
    scale = (squares / count - mean.square()).clamp(min=0).sqrt()
    scale = torch.where(scale > 1e-6 * mean.abs().clamp(min=1e-12), scale, torch.inf)
    return mean.float(), scale.float()
