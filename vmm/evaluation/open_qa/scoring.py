"""Questions asked of a trained answer decoder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from vmm.data.loader import init_worker
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.results import count_problems
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips
from vmm.evaluation.open_qa.questions import OpenQuestion
from vmm.models.answer import AnswerList, AnswerModel
from vmm.models.text_interface import VisionKV

TOP = 5
"""Answers that are kept of each question."""


class Reply(NamedTuple):
    """What the model says to a question."""

    answers: list[int]
    """Places in the list, the best first, at most ``TOP``."""
    scores: list[float]
    """Their log-probabilities."""
    blank: int
    """Its best answer to the same question about a blank video."""


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

    Raises:
        ValueError: If not one video can be read.
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
            replies += _reply(model, answers, part, seen, blank)
        journal.add(sample.number, {"problem": None, "replies": replies})
    return _by_question(journal.entries(), of_video, len(questions))


def _reply(
    model: AnswerModel, answers: AnswerList, texts: list[str], seen: VisionKV, blank: VisionKV
) -> Iterator[Reply]:
    """Answer some questions about one video, and about a blank one."""
    tokens = model.text_encoder.tokenize(texts, next(model.parameters()).device)
    right = model.rank(model.read(tokens, seen), answers, TOP)
    unseen = model.rank(model.read(tokens, blank), answers, 1)
    for best, other in zip(right, unseen, strict=True):
        yield Reply(best.answers.tolist(), best.scores.tolist(), int(other.answers[0]))


def _by_question(
    entries: dict[int, Any], of_video: dict[int, list[int]], number: int
) -> tuple[list[Reply | None], Counter[str]]:
    problems = count_problems([entry["problem"] for entry in entries.values()], "videos")
    found: list[Reply | None] = [None] * number
    for video, entry in entries.items():
        for question, reply in zip(of_video[video], entry["replies"], strict=False):
            found[question] = Reply(*reply)
    return found, problems


def _as_it_is(sample: Any) -> Any:
    return sample
