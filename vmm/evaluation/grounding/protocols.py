"""Test sets of moments and highlights: what is asked, and what is true."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_with_odd_rows
from vmm.evaluation.grounding.metrics import Floats

OUTSIDE = "moments after the end of the video"
"""Why sentences are left out whose moments are not in the video as the file gives its length."""
ODD = "something odd in the file"


class MomentSet(NamedTuple):
    """A test set as papers use it."""

    title: str
    headline: str
    """The number that comes first in its papers."""
    ranges: bool = False
    """Whether its papers break down by the lengths of moments."""


SETS: dict[str, MomentSet] = {
    "moments": MomentSet("moments", "R1@0.5", ranges=True),
    "charades-sta": MomentSet("Charades-STA", "R1@0.5"),
    "activitynet-moments": MomentSet("ActivityNet Captions", "R1@0.5"),
    "qvhighlights": MomentSet("QVHighlights", "mAP", ranges=True),
}
"""Name on the command line -> test set. ``moments`` is any file of that layout."""


class MomentQuery(NamedTuple):
    """A sentence about one video."""

    key: str
    video: int
    """Number of the video."""
    text: str
    moments: list[list[float]]
    """[start, end] in seconds; none where they are not public."""
    duration: float | None
    """Seconds of the video as the file has it."""
    clips: list[int] = []  # noqa: RUF012  # never changed
    """Numbers of clips of two seconds that have marks."""
    marks: list[list[int]] = []  # noqa: RUF012  # never changed
    """Of each of these the marks of all annotators, 0 to 4."""

    @property
    def true(self) -> Floats:
        """(M, 2) the moments."""
        return np.array(self.moments, dtype=np.float64).reshape(-1, 2)


class MomentFile(NamedTuple):
    """The sentences of a file."""

    queries: list[MomentQuery]
    videos: list[Annotation]
    """One item per video."""
    left_out: dict[str, int]
    """Reason -> sentences that cannot be asked."""
    odd: list[str]
    """What is wrong with each of these that is odd in the file."""
    beyond: int
    """Sentences with a moment that ends after the video as the file has it, and is cut there."""


def read_moments(dataset: str, path: Path, ids: Path | None = None) -> MomentFile:
    """Read a test set, or its training split.

    A moment that ends after the video's length in the file ends there, as it is for the published
    numbers of Charades-STA and ActivityNet Captions; one that begins after it is left out.

    Args:
        dataset: A name of ``SETS``.
        path: The official file.
        ids: List of the sentences or videos to keep.

    Raises:
        ValueError: If the file is missing or not of this kind, or holds no sentence.
    """
    if dataset not in SETS:
        raise ValueError(f"there is no set of moments {dataset!r}; known are {', '.join(SETS)}")
    items, odd = read_with_odd_rows(path, dataset, ids=ids)
    numbers: dict[str, int] = {}
    videos: list[Annotation] = []
    queries = []
    left_out, beyond = Counter({ODD: len(odd)}), 0
    for item in items:
        said = item.metadata
        moments = cut(said["moments"], said.get("duration"))
        if said["moments"] and not moments:
            left_out[OUTSIDE] += 1
            continue
        beyond += moments != said["moments"]
        if item.media not in numbers:
            numbers[item.media] = len(videos)
            videos.append(item)
        queries.append(_query(item, numbers[item.media], moments))
    if not queries:
        raise ValueError(f"every moment in {path} begins after the end of its video")
    return MomentFile(queries, videos, dict(+left_out), odd, beyond)


def cut(moments: list[list[float]], duration: float | None) -> list[list[float]]:
    """End moments where the video ends, and leave out those that begin after it."""
    if duration is None:
        return moments
    return [[start, min(end, duration)] for start, end in moments if start < duration]


def published_size(dataset: str, number: int) -> str | None:
    """Name the published split that has so many sentences, with its odd ones or without."""
    known = DATASETS[dataset]
    return next(
        (name for name, n in known.sizes.items() if number in (n, n - known.odd.get(name, 0))), None
    )


def _query(item: Annotation, video: int, moments: list[list[float]]) -> MomentQuery:
    said: dict[str, Any] = item.metadata
    return MomentQuery(
        key=item.key,
        video=video,
        text=item.captions[0],
        moments=moments,
        duration=said.get("duration"),
        clips=said.get("relevant_clip_ids", []),
        marks=said.get("saliency_scores", []),
    )
