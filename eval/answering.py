"""Open questions about videos, asked of a trained answer decoder, and what came of it."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from eval.findings import Finding
from eval.qa.journal import Journal
from eval.sources import AnnotatedClips, ShardClips
from vmm.data.annotations.media import MediaError
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_annotations
from vmm.data.decode import DecodeError
from vmm.data.loader import init_worker
from vmm.data.schema import questions_of
from vmm.data.transforms import ClipSettings
from vmm.metrics import bootstrap_interval
from vmm.models.answer import AnswerList, AnswerModel
from vmm.models.text_encoder import VisionKV, clean_caption

logger = logging.getLogger(__name__)

TOP = 5
"""Answers that are kept of each question."""

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


class Reply(NamedTuple):
    """What the model says to a question."""

    answers: list[int]
    """Places in the list, the best first, at most ``TOP``."""
    scores: list[float]
    """Their log-probabilities."""
    blank: int
    """Its best answer to the same question about a blank video."""


def read_open_questions(
    dataset: str, annotations: Path, media: str, clip: ClipSettings
) -> tuple[AnnotatedClips, list[OpenQuestion]]:
    """Read questions with their videos, each video once.

    Args:
        dataset: Name in ``DATASETS``.
        annotations: The official file.
        media: Folder or shards of the videos.
        clip: How a video becomes the model's input.

    Raises:
        ValueError: If a file cannot be read or no answer is public.
    """
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
        except (DecodeError, MediaError) as error:
            logger.warning("its questions are unknown, left out: %s", error)
            continue
        for place, question in enumerate(questions_of(metadata)):
            name = question.id or f"{number}-{place}"
            kind = _kind(question.kind, question.text, "")
            questions.append(OpenQuestion(name, number, question.text, question.answers, kind))
    if not questions:
        raise ValueError(
            "no sample's JSON asks a question; make shards of a question set with "
            "`python -m data_prep.make_shards`, or the demo's again with data_prep.synthesize"
        )
    return questions


def _kind(named: object, text: str, dataset: str) -> str:
    """What a question asks for, in the data set's words, or by its first word."""
    if isinstance(named, str) and named:
        known = dataset == "activitynet-qa" and named.isdecimal() and int(named) < 9
        return _ACTIVITYNET_KINDS[int(named)] if known else named
    first = text.lower().split()[0] if text.split() else ""
    return first if first in _ASKING else "other"


@torch.inference_mode()
def ask(
    model: AnswerModel,
    answers: AnswerList,
    clips: AnnotatedClips | ShardClips,
    questions: Sequence[OpenQuestion],
    journal: Journal,
    batch_size: int,
    num_workers: int,
) -> tuple[list[Reply | None], Counter[str]]:
    """Ask every question about its video and about a blank one.

    A video is decoded and encoded once for all its questions.

    Args:
        model: In evaluation mode.
        answers: The list to rank.
        clips: The videos.
        questions: All questions.
        journal: Keeps what is finished.
        batch_size: Questions read at once.
        num_workers: Processes that decode.

    Returns:
        The replies, None where the video cannot be read; reasons -> such videos.
    """
    of_video: dict[int, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        of_video[question.video].append(number)
    finished = journal.entries()
    missing = [video for video in of_video if video not in finished]
    loader = DataLoader(
        Subset(clips, missing),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=init_worker,
    )
    device = next(model.parameters()).device
    blank: VisionKV | None = None
    for sample in tqdm(loader, desc="videos", unit="video"):
        if sample.video is None:
            journal.add(sample.number, {"problem": sample.problem, "replies": []})
            continue
        video = sample.video[None].to(device)
        blank = blank or model.see(torch.zeros_like(video))
        texts = [questions[number].text for number in of_video[sample.number]]
        seen = model.see(video)
        replies: list[Reply] = []
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            tokens = model.text_encoder.tokenize(part, device)
            right = model.rank(model.read(tokens, seen.repeated(len(part))), answers, TOP)
            unseen = model.rank(model.read(tokens, blank.repeated(len(part))), answers, 1)
            replies += [
                Reply(r.answers.tolist(), r.scores.tolist(), int(b.answers[0]))
                for r, b in zip(right, unseen, strict=True)
            ]
        journal.add(sample.number, {"problem": None, "replies": replies})
    found: list[Reply | None] = [None] * len(questions)
    problems: Counter[str] = Counter()
    for video, entry in journal.entries().items():
        if entry["problem"] is not None:
            problems[entry["problem"]] += 1
        for number, reply in zip(of_video[video], entry["replies"], strict=False):
            found[number] = Reply(*reply)
    return found, problems


def _as_it_is(sample: Any) -> Any:
    return sample


class Judged(NamedTuple):
    """Which answers are right, 1 or 0 of each question, (Q,) float64 each."""

    model: Tensor
    top: Tensor
    """Whether a right answer is among the first ``TOP``."""
    blank: Tensor
    frequent: Tensor
    """Always the most frequent right answer to questions of this kind, in this very set."""


def judge(
    questions: Sequence[OpenQuestion], replies: Sequence[Reply | None], answers: Sequence[str]
) -> Judged:
    """Compare answers by their words, after cleaning; a question without a reply is wrong."""
    listed = [clean_caption(answer) for answer in answers]
    right = [{clean_caption(answer) for answer in question.answers} for question in questions]
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for question, known in zip(questions, right, strict=True):
        given[question.kind].update(sorted(known))
    frequent = {kind: counts.most_common(1)[0][0] for kind, counts in given.items()}

    def column(values: Iterator[bool]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64)

    pairs = list(zip(replies, right, strict=True))
    return Judged(
        column(r is not None and listed[r.answers[0]] in known for r, known in pairs),
        column(r is not None and any(listed[a] in known for a in r.answers) for r, known in pairs),
        column(r is not None and listed[r.blank] in known for r, known in pairs),
        column(frequent[q.kind] in known for q, known in zip(questions, right, strict=True)),
    )


def measure(questions: Sequence[OpenQuestion], judged: Judged) -> dict[str, Any]:
    """Turn judgements into percentages with 95 % intervals, drawn over videos.

    Returns:
        ``accuracy``, ``top_5``, ``blank`` and ``frequent``, each ``value`` and ``interval``;
        ``gain``, the accuracy less that of the better control, paired by question; ``by_kind``.
    """
    videos = torch.tensor([question.video for question in questions])

    def described(values: Tensor, rows: Tensor) -> dict[str, Any]:
        return {
            "value": 100 * values[rows].mean().item(),
            "interval": bootstrap_interval(100 * values[rows], videos[rows]),
        }

    def all_of(rows: Tensor) -> dict[str, Any]:
        names = ("accuracy", "top_5", "blank", "frequent")
        return {n: described(v, rows) for n, v in zip(names, judged, strict=True)}

    everything = torch.ones(len(questions), dtype=torch.bool)
    numbers = all_of(everything)
    control = max(("blank", "frequent"), key=lambda name: float(numbers[name]["value"]))
    gain = judged.model - (judged.blank if control == "blank" else judged.frequent)
    by_kind = {}
    for kind in sorted({question.kind for question in questions}):
        rows = torch.tensor([question.kind == kind for question in questions])
        by_kind[kind] = {"questions": int(rows.sum()), **all_of(rows)}
    return numbers | {"control": control, "gain": described(gain, everything), "by_kind": by_kind}


def lint_questions(
    dataset: str | None,
    questions: Sequence[OpenQuestion],
    answers: AnswerList,
    numbers: dict[str, Any],
) -> list[Finding]:
    """List what is off with an evaluation of open questions."""
    findings = []
    listed = {clean_caption(answer) for answer in answers.texts}
    beyond = sum(not listed & {clean_caption(a) for a in q.answers} for q in questions)
    if beyond:
        findings.append(
            Finding(
                "answer-list",
                f"no right answer to {beyond} of {len(questions)} questions is in the list",
                f"no model can be above {100 - 100 * beyond / len(questions):.1f} %",
            )
        )
    alike = len(answers.texts) - len(set(map(tuple, answers.tokens.input_ids.tolist())))
    if alike:
        findings.append(
            Finding(
                "equal-answers",
                f"{alike} answers of the list are the same word pieces as another one",
                "the model cannot tell them apart; the one that stands first is said",
            )
        )
    sizes = DATASETS[dataset].sizes if dataset else {}
    if sizes and len(questions) not in sizes.values():
        splits = ", ".join(f"{name} {size}" for name, size in sizes.items())
        findings.append(
            Finding(
                "size",
                f"{len(questions)} questions, the published splits have {splits}",
                "on a part of a split the number is not the published one's peer",
            )
        )
    if numbers["gain"]["interval"][0] <= 0:
        findings.append(
            Finding(
                "no-help",
                f"the accuracy is not clearly above the better control ({numbers['control']})",
                "nothing shows that the model uses the video",
            )
        )
    return findings
