"""What to know before believing a number: moments outside videos, splits that share videos, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from vmm.data.annotations.media import stem
from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.common.results import unreadable
from vmm.evaluation.grounding.protocols import (
    ODD,
    OUTSIDE,
    MomentFile,
    MomentQuery,
    published_size,
)
from vmm.evaluation.grounding.scoring import VideoCurves
from vmm.text_output import number_of

_SLACK = 1.0
"""Seconds by which a moment may end after its video: files round, and containers differ."""


def lint_file(dataset: str, file: MomentFile, training: MomentFile | None) -> list[Finding]:
    """Look at the annotations alone; before anything is scored.

    Args:
        dataset: Name of the set.
        file: What is asked.
        training: The training split, if it is known.
    """
    return [
        *_size(dataset, file), *_odd(file), *_outside(file), *_repeated(file.queries),
        *_shared(file, training),
    ]  # fmt: skip


def lint_videos(
    queries: Sequence[MomentQuery], videos: Sequence[VideoCurves], coverage: str
) -> list[Finding]:
    """Look at the videos as they were read, and at what the model made of them."""
    return [
        *_missing(queries, videos, coverage), *_too_short(queries, videos),
        *_coarse(queries, videos), *_level(videos),
    ]  # fmt: skip


def _size(dataset: str, file: MomentFile) -> Iterator[Finding]:
    sizes = DATASETS[dataset].sizes
    number = len(file.queries) + sum(file.left_out.values())
    if sizes and published_size(dataset, number) is None:
        known = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield Finding(
            "other-sentences",
            f"{number_of(number, 'sentence')}; the published splits have {known}",
            "the numbers cannot be put beside published ones",
        )


def _odd(file: MomentFile) -> Iterator[Finding]:
    if file.odd:
        total = len(file.queries) + sum(file.left_out.values())
        yield Finding(
            "odd-sentences",
            f"{file.left_out[ODD]} of {total} rows cannot be asked: blank sentences, moments that "
            f"end before they begin; the first is {file.odd[0]}",
            "they are left out",
        )


def _outside(file: MomentFile) -> Iterator[Finding]:
    if number := file.left_out.get(OUTSIDE):
        yield Finding(
            "moments-after-the-end",
            f"the moments of {number_of(number, 'sentence')}"
            " begin after the end of the video as the file "
            "gives its length",
            "these sentences are left out",
        )
    if file.beyond:
        yield Finding(
            "moments-beyond-the-end",
            f"a moment of {number_of(file.beyond, 'sentence')}"
            " ends after the video as the file gives its "
            "length",
            "it counts up to the end of the video, as in published numbers",
        )


def _repeated(queries: Sequence[MomentQuery]) -> Iterator[Finding]:
    seen = Counter((q.video, " ".join(q.text.lower().split())) for q in queries)
    extra = sum(seen.values()) - len(seen)
    if extra:
        yield Finding(
            "repeated-sentences",
            f"{number_of(extra, 'sentence is', 'sentences are')} said of the same video before",
            "with equal moments they count more often than once, with others at most one can be "
            "found first",
        )


def _shared(file: MomentFile, training: MomentFile | None) -> Iterator[Finding]:
    if training is None:
        return
    known = {stem(item.media) for item in training.videos}
    shared = [item.media for item in file.videos if stem(item.media) in known]
    if shared:
        yield Finding(
            "videos-in-both-splits",
            f"{len(shared)} of {len(file.videos)} videos are in the training split, too, the "
            f"first is {shared[0]!r}",
            "what is trained on it knows their moments",
        )


def _missing(
    queries: Sequence[MomentQuery], videos: Sequence[VideoCurves], coverage: str
) -> Iterator[Finding]:
    problems = Counter(video.problem for video in videos if video.problem)
    lost = sum(videos[query.video].problem is not None for query in queries)
    asked = lost, len(queries), "sentences"
    yield from unreadable(problems, len(videos), "videos", coverage, asked)


def _too_short(queries: Sequence[MomentQuery], videos: Sequence[VideoCurves]) -> Iterator[Finding]:
    late = []
    for query in queries:
        edges = videos[query.video].edges
        if edges and any(end > edges[-1] + _SLACK for _, end in query.moments):
            late.append(query)
    if late:
        yield Finding(
            "shorter-videos",
            f"a moment of {number_of(len(late), 'sentence')}"
            f" ends more than {_SLACK:g} s after the video that "
            f"was read, the first is {late[0].key!r}",
            "another file than the one that was annotated, or a part of it; such a moment cannot "
            "be found whole",
        )


def _coarse(queries: Sequence[MomentQuery], videos: Sequence[VideoCurves]) -> Iterator[Finding]:
    moments = [
        (end - start, float(np.diff(videos[q.video].edges).max()))
        for q in queries
        if videos[q.video].edges
        for start, end in q.moments
    ]
    short = sum(length < step for length, step in moments)
    if short:
        yield Finding(
            "coarse-frames",
            f"{short} of {len(moments)} moments are shorter than the time between two frames that "
            "are looked at",
            "they can hardly be found; raise --fps or --num-frames",
        )


def _level(videos: Sequence[VideoCurves]) -> Iterator[Finding]:
    curves = [curve for video in videos for curve in video.curves]
    level = sum(max(curve) == min(curve) for curve in curves)
    if level:
        yield Finding(
            "level-curves",
            f"{level} of {len(curves)} curves are level: every frame is as relevant as any other",
            "the whole video is proposed for these",
        )
