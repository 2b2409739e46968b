"""Open questions about videos, from official files and from shards."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import read_annotations
from vmm.data.faults import SampleError
from vmm.data.schema import questions_of
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips
from vmm.evaluation.open_qa.protocols import OPEN_SETS

logger = logging.getLogger(__name__)

# What ActivityNet-QA's type numbers stand for (Yu et al. 2019, arXiv 1906.02467).
_ACTIVITYNET_KINDS = (
    "motion", "spatial relation", "temporal relation", "yes or no", "colour", "object", "location",
    "number", "other",
)  # fmt: skip
_ASKING = ("what", "who", "how", "when", "where", "which", "why", "is", "does", "are", "do")


class OpenQuestion(NamedTuple):
    """A question with a known answer."""

    id: str
    video: int
    """Number of its video."""
    text: str
    answers: list[str]
    """What people answered, repeated as often as they did."""
    kind: str


def read_open_questions(
    dataset: str, annotations: Path, media: str, clip: ClipSettings
) -> tuple[AnnotatedClips, list[OpenQuestion]]:
    """Read questions with their videos, each video once.

    Args:
        dataset: Name in ``OPEN_SETS``.
        annotations: The official file.
        media: Folder or shards of the videos.
        clip: How a video becomes the model's input.

    Raises:
        ValueError: If the name is unknown, a file cannot be read or no answer is public.
    """
    if dataset not in OPEN_SETS:
        known = ", ".join(OPEN_SETS)
        raise ValueError(f"there is no set of open questions {dataset!r}; known are {known}")
    items = read_annotations(annotations, dataset)
    videos: dict[str, Annotation] = {}
    numbers: dict[str, int] = {}
    questions = []
    for item in items:
        answer = item.metadata.get("answer")
        if not isinstance(answer, str):
            continue
        number = numbers.setdefault(item.media, len(numbers))
        videos.setdefault(item.media, item._replace(key=item.media, captions=[], metadata={}))
        text = str(item.metadata["question"])
        kind = _kind(item.metadata.get("question_type"), text, dataset)
        questions.append(OpenQuestion(item.key, number, text, [answer], kind))
    if not questions:
        raise ValueError(f"{annotations} holds no answers, so there is nothing to compare with")
    return AnnotatedClips(list(videos.values()), media, clip), questions


def questions_in_shards(clips: ShardClips) -> list[OpenQuestion]:
    """Take the questions that samples' JSON asks.

    Raises:
        ValueError: If there is none.
    """
    questions = []
    for number in range(len(clips)):
        try:
            metadata = clips.metadata(number)[1]
        except SampleError as error:
            logger.warning("its questions are unknown, left out: %s", error)
            continue
        for place, question in enumerate(questions_of(metadata)):
            name = question.id or f"{number}-{place}"
            kind = _kind(question.kind, question.text, "")
            questions.append(OpenQuestion(name, number, question.text, question.answers, kind))
    if not questions:
        raise ValueError(
            "no sample's JSON asks a question; make shards of a question set with "
            "`vmm shards make`, or the demo's again with `vmm shards demo`"
        )
    return questions


def _kind(named: object, text: str, dataset: str) -> str:
    """What a question asks for, in the data set's words, or by its first word."""
    if isinstance(named, str) and named:
        known = dataset == "activitynet-qa" and named.isdecimal() and int(named) < 9
        return _ACTIVITYNET_KINDS[int(named)] if known else named
    first = text.lower().split()[0] if text.split() else ""
    return first if first in _ASKING else "other"
