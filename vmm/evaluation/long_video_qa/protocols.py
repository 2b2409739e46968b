"""Multiple-choice questions about videos, from official files, and what a model reads of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_with_odd_rows
from vmm.text_output import number_of

Prompt = Literal["joined", "is-it", "option", "statement"]

_LENGTHS = ((60, "under 1 minute"), (180, "1 to 3 minutes"), (900, "3 to 15 minutes"),
            (3600, "15 to 60 minutes"), (float("inf"), "over an hour"))  # fmt: skip


ODD = "something odd in the file"
"""Why rows are left out that are not as the others."""


class QuestionSet(NamedTuple):
    """A test set as papers use it."""

    title: str
    id_column: str = "id"
    """What the file to submit calls a question."""
    type_groups: dict[str, str] = {}  # noqa: RUF012  # never changed
    """First letter of a question's type -> the type that tables have."""
    mean_over_types: str | None = None
    """What tables call the mean of the types' accuracies, where they give it."""


SETS: dict[str, QuestionSet] = {
    "msrvtt-mc": QuestionSet("MSRVTT-MC"),
    "egoschema": QuestionSet("EgoSchema", "q_uid"),
    "mlvu": QuestionSet("MLVU", mean_over_types="M-Avg"),
    "longvideobench": QuestionSet("LongVideoBench"),
    "videomme": QuestionSet("Video-MME, without subtitles", "question_id"),
    "lvbench": QuestionSet("LVBench", "uid"),
    "nextqa": QuestionSet("NExT-QA", "qid", {"C": "causal", "T": "temporal", "D": "descriptive"}),
    "questions": QuestionSet("questions"),
}
"""Name on the command line -> test set. ``questions`` is any file of that layout."""


class ChoiceQuestion(NamedTuple):
    """A question with options about one video."""

    key: str
    video: int
    """Number of the video."""
    text: str
    options: list[str]
    answer: int | None
    """Position of the right option; None where it is not public."""
    kind: str
    duration: str | float | None
    """What the file says of the video: seconds, or a word."""
    prompts: list[str]
    """What a model reads, one text per option."""


class QuestionFile(NamedTuple):
    """The questions of a file."""

    questions: list[ChoiceQuestion]
    videos: list[Annotation]
    """One item per video."""
    prompt: Prompt
    left_out: dict[str, int]
    """Reason -> questions that cannot be asked."""
    odd: list[str] = []  # noqa: RUF012  # never changed
    """What is wrong with each of these that is odd in the file."""


def read_questions(
    dataset: str, path: Path, prompt: Prompt | None = None, ids: Path | None = None
) -> QuestionFile:
    """Read a test set.

    Args:
        dataset: A name of ``SETS``.
        path: The official file, or the folder of a set that comes in several.
        prompt: How question and option become a text; None = the file's own statements where it
            has them, else both joined.
        ids: List of the questions or videos to keep.

    Raises:
        ValueError: If a file is missing or not of this kind, or no question has options.
    """
    if dataset not in SETS:
        raise ValueError(f"there is no question set {dataset!r}; known are {', '.join(SETS)}")
    items, odd = read_with_odd_rows(path, dataset, ids=ids)
    asked = [item for item in items if item.metadata.get("options")]
    if not asked:
        raise ValueError(
            f"not one of {number_of(len(items), 'question')}"
            f" in {path} has options; open questions are "
            "measured by `vmm eval open-qa`"
        )
    prompt = prompt or _usual_prompt(asked)
    numbers: dict[str, int] = {}
    videos: list[Annotation] = []
    questions = []
    left_out = Counter({"no options": len(items) - len(asked), ODD: len(odd)})
    # Of a published set every question counts, and whoever keeps the answers wants all of them.
    published = bool(DATASETS[dataset].sizes)
    for item in asked:
        options, hidden = item.metadata["options"], item.metadata["answer"] is None
        if len(set(options)) < 2 and not (published or hidden):
            left_out["one option, or equal options"] += 1
            continue
        if item.media not in numbers:
            numbers[item.media] = len(videos)
            videos.append(item)
        questions.append(_question(item, numbers[item.media], prompt, SETS[dataset]))
    if not questions:
        raise ValueError(f"every question in {path} has one option, or equal options")
    return QuestionFile(questions, videos, prompt, dict(+left_out), odd)


def published_size(dataset: str, number: int) -> str | None:
    """Name the published split that has so many questions, None if there is none.

    Questions that are odd in its official file may be left out or not.
    """
    known = DATASETS[dataset]
    return next(
        (name for name, n in known.sizes.items() if number in (n, n - known.odd.get(name, 0))), None
    )


def length_class(duration: str | float | None) -> str:
    """Sort a video's length, in seconds or as a word, into few classes."""
    if duration is None:
        return "unknown"
    if isinstance(duration, str):
        return duration
    return next(name for limit, name in _LENGTHS if duration < limit)


def _usual_prompt(items: Sequence[Annotation]) -> Prompt:
    return "statement" if all(item.metadata.get("statements") for item in items) else "joined"


def _question(item: Annotation, video: int, prompt: Prompt, known: QuestionSet) -> ChoiceQuestion:
    said = item.metadata
    options = [str(option) for option in said["options"]]
    text, kind = str(said.get("question") or ""), str(said.get("question_type") or "all")
    kind = known.type_groups.get(kind[:1], kind)
    return ChoiceQuestion(
        key=item.key,
        video=video,
        text=text,
        options=options,
        answer=said.get("answer"),
        kind=kind,
        duration=_duration(said),
        prompts=_prompts(item.key, text, options, prompt, said),
    )


def _duration(said: dict[str, Any]) -> str | float | None:
    """Take the group of lengths that a set names, else the length in seconds."""
    length = said.get("duration_group", said.get("duration"))
    try:
        seconds = float(length)  # type: ignore[arg-type]
        return seconds if math.isfinite(seconds) else None
    except (TypeError, ValueError, OverflowError):
        return length if isinstance(length, str) and length else None


def _prompts(
    key: str, question: str, options: list[str], prompt: Prompt, said: dict[str, Any]
) -> list[str]:
    if prompt == "joined":
        return [f"{question} {option}".strip() for option in options]
    if prompt == "is-it":  # the baseline of EgoSchema's authors
        return [f"{question} Is it '{option.lower()}'".strip() for option in options]
    if prompt == "option":
        return options
    if prompt != "statement":
        raise ValueError(f"there is no prompt {prompt!r}; use one of {', '.join(get_args(Prompt))}")
    statements = said.get("statements")
    if not isinstance(statements, list) or len(statements) != len(options):
        raise ValueError(
            f"question {key!r} has no statement for each of its {len(options)} options; use "
            "--prompt joined"
        )
    return [str(statement) for statement in statements]
