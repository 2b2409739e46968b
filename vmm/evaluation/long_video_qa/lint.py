"""What to know before believing an accuracy: answers that can be guessed, questions that repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.common.clustered import clustered_mean
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.long_video_qa.measure import WITHOUT_VIDEO, OptionScores, chances
from vmm.evaluation.long_video_qa.protocols import ChoiceQuestion, published_size
from vmm.text_output import number_of

# How far from chance a guess must be to be worth a word. The most frequent position is chosen by
# looking at the answers, so more is asked of it.
_ERRORS = {"blind": 3.0, "longest": 3.0, "shortest": 3.0, "majority": 4.0}
_POINTS = 2.0


def lint_questions(
    dataset: str, questions: Sequence[ChoiceQuestion], odd: Sequence[str] = ()
) -> list[Finding]:
    """Look at the questions alone; before anything is scored.

    Args:
        dataset: Name of the set.
        questions: Those that are asked.
        odd: What is wrong with each row that was left out.
    """
    return [
        *_size(dataset, questions), *_odd(dataset, questions, odd), *_repeated(questions),
        *_equal_options(questions),
    ]  # fmt: skip


def lint_answers(
    questions: Sequence[ChoiceQuestion], scores: Sequence[OptionScores], headline: str
) -> list[Finding]:
    """Look at answers and scores.

    Args:
        questions: Those with a known answer.
        scores: Of these.
        headline: The method that is looked at.
    """
    return [*_guessable(questions, scores), *_tied(questions, scores, headline)]


def _size(dataset: str, questions: Sequence[ChoiceQuestion]) -> Iterator[Finding]:
    sizes = DATASETS[dataset].sizes
    if sizes and published_size(dataset, len(questions)) is None:
        known = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield Finding(
            "other-questions",
            f"{number_of(len(questions), 'question')}; the published sets have {known}",
            "the accuracy cannot be put beside published ones",
        )


def _odd(
    dataset: str, questions: Sequence[ChoiceQuestion], odd: Sequence[str]
) -> Iterator[Finding]:
    if not odd:
        return
    split = published_size(dataset, len(questions) + len(odd))
    known = DATASETS[dataset].odd.get(split or "", 0)
    official = (
        f"the official file of {split} has these {known}, and everybody's accuracy counts them as "
        "wrong or leaves them out"
        if len(odd) == known
        else f"{known} are known in the official files; the others are this file's own"
    )
    asked = number_of(len(questions) + len(odd), "question")
    yield Finding(
        "odd-questions",
        f"{len(odd)} of {asked} cannot be asked, the first is {odd[0]}",
        f"they are left out; {official}",
    )


def _repeated(questions: Sequence[ChoiceQuestion]) -> Iterator[Finding]:
    seen = Counter((q.video, q.text, *sorted(q.options)) for q in questions)
    extra = sum(seen.values()) - len(seen)
    if extra:
        yield Finding(
            "repeated-questions",
            f"{number_of(extra, 'question is', 'questions are')}"
            " asked of the same video with the same options before",
            "they count more often than once",
        )


def _equal_options(questions: Sequence[ChoiceQuestion]) -> Iterator[Finding]:
    odd = [q for q in questions if len(set(q.options)) < len(q.options)]
    if odd:
        yield Finding(
            "equal-options",
            f"{number_of(len(odd), 'question has', 'questions have')}"
            f" an option twice, the first is {odd[0].key!r}",
            "two equal options share the chance of being chosen, so at most half is right",
        )


def _guessable(
    questions: Sequence[ChoiceQuestion], scores: Sequence[OptionScores]
) -> Iterator[Finding]:
    clusters = torch.tensor([question.video for question in questions])
    chance = chances(questions, lambda row: [0.0] * len(questions[row].options))
    positions = Counter(question.answer for question in questions)
    most = positions.most_common(1)[0][0]

    def guess(name: str, row: int) -> list[float]:
        options = questions[row].options
        lengths = [float(len(option)) for option in options]
        return {
            "blind": scores[row].blind,
            "longest": lengths,
            "shortest": [-length for length in lengths],
            "majority": [float(place == most) for place in range(len(options))],
        }[name]

    for name, errors in _ERRORS.items():
        right = chances(questions, lambda row, name=name: guess(name, row))  # type: ignore[misc]
        gain = clustered_mean(right - chance, clusters)
        if gain.mean > _POINTS and gain.error is not None and gain.errors_above_zero > errors:
            yield Finding(
                f"guessable-{name}",
                f"{WITHOUT_VIDEO[name]} is right in {_mean(right)} %, chance is {_mean(chance)} %",
                "that much of an accuracy says nothing about videos",
            )


def _tied(
    questions: Sequence[ChoiceQuestion], scores: Sequence[OptionScores], headline: str
) -> Iterator[Finding]:
    seen = [s.views["video"][headline] for s in scores if s.views]
    tied = sum(len(set(row)) == 1 for row in seen)
    if tied:
        yield Finding(
            "tied-options",
            f"in {tied} of {number_of(len(seen), 'question')} all options have the same score",
            "these count as chance",
        )


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):.1f}"
