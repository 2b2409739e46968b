"""Open questions about videos: accuracy of a trained answer decoder, with its controls.

    result = evaluate(Options(run=Path("runs/x"), shards="data/demo/test-*.tar"))
    result.numbers["accuracy"]["value"]

The run is one of recipes/answer_qa.yaml: it was trained on questions and answers, so its numbers
are never zero-shot. Each question gets the most probable answer of the list, exactly, and is right
if its words are those of a known answer. Beside it: the same question about a blank video, and
always the most frequent right answer to questions of that kind.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmm.data.annotations.questions import read_answer_list
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.findings import Finding, texts_lost
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.models import describe_model
from vmm.evaluation.common.results import clip_card, content_hash, unreadable, versions
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips
from vmm.evaluation.common.strips import strips
from vmm.evaluation.open_qa.lint import lint_questions
from vmm.evaluation.open_qa.measure import Judged, judge, measure
from vmm.evaluation.open_qa.options import Options
from vmm.evaluation.open_qa.page import write_page, wrong_replies
from vmm.evaluation.open_qa.protocols import OPEN_SETS
from vmm.evaluation.open_qa.questions import (
    OpenQuestion,
    questions_in_shards,
    read_open_questions,
)
from vmm.evaluation.open_qa.results import OpenQaResult
from vmm.evaluation.open_qa.scoring import Reply, ask
from vmm.models.answer import AnswerModel
from vmm.runs import TrainedModel, load_model

logger = logging.getLogger(__name__)


def evaluate(options: Options, command: str = f"{__name__}.evaluate(...)") -> OpenQaResult:
    """Evaluate, and write the result file and its page.

    An evaluation that was stopped goes on from the videos it had asked about.

    Args:
        options: What is asked of which model.
        command: Said in the result to have measured it.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    options.prepare()
    run = load_model(options.given_run(), AnswerModel, options.checkpoint)
    model = run.model.to(options.device)
    listed = options.answers or Path(run.config["model"]["init_args"]["answers"])
    answers = model.answer_list(read_answer_list(listed))
    clips, questions = _questions(options, run.clip)
    out = options.folder(f"open_qa_{options.dataset or 'shards'}", "")
    journal = _journal(out, run, clips, questions, answers.texts)
    replies, problems = ask(
        model, answers, clips, questions, journal, options.batch_size, options.num_workers
    )
    videos = len({question.video for question in questions})
    lost = sum(reply is None for reply in replies), len(replies), "questions"
    missed = unreadable(problems, videos, "videos", options.coverage, lost)
    if options.coverage == "available":
        answered = [number for number, reply in enumerate(replies) if reply is not None]
        questions = [questions[number] for number in answered]
        replies = [replies[number] for number in answered]
    judged = judge(questions, replies, answers.texts)
    numbers = measure(questions, judged)
    encoder = type(model.video_encoder).__name__
    result = OpenQaResult(
        name=options.name or f"{encoder}, answer decoder",
        command=command,
        model=describe_model(
            f"{encoder} with an answer decoder", model, run.checkpoint.name, run.sha256
        ),
        data=_describe_data(options, questions, problems, listed, answers.texts),
        settings=_describe_settings(options, run.clip),
        numbers=numbers,
        findings=[
            *missed,
            *lint_questions(options.dataset, questions, answers, numbers),
            *_lost(model, [question.text for question in questions]),
        ],
        replies=_describe_replies(questions, replies, judged, answers.texts),
        versions=versions(),
    )
    path = result.write(out)
    drawn = strips(clips, (questions[number].video for number in wrong_replies(result)))
    shown = {n: drawn.get(questions[n].video, "not shown") for n in wrong_replies(result)}
    write_page(out / "open_qa.html", result, shown)
    journal.remove()
    logger.info("wrote %s and open_qa.html", path)
    return result


def _lost(model: AnswerModel, questions: list[str]) -> list[Finding]:
    effect = "questions that differ there only get one answer: the accuracy is too low"
    return texts_lost(model.text_encoder.check_captions(questions), effect)


def _questions(
    options: Options, clip: ClipSettings
) -> tuple[AnnotatedClips | ShardClips, list[OpenQuestion]]:
    if options.dataset is not None:
        return read_open_questions(options.dataset, *options.official(), clip)
    clips = ShardClips(options.given_shards(), clip)
    return clips, questions_in_shards(clips)


def _journal(
    out: Path,
    run: TrainedModel[AnswerModel],
    clips: AnnotatedClips | ShardClips,
    questions: Sequence[OpenQuestion],
    answers: Sequence[str],
) -> Journal:
    depends_on = {
        "checkpoint": run.sha256,
        "clip": asdict(run.clip),
        "data": clips.fingerprint(),
        "questions": questions,
        "answers": answers,
        "versions": versions(),
    }
    return Journal(out / "replies", depends_on)


def _describe_replies(
    questions: Sequence[OpenQuestion],
    replies: Sequence[Reply | None],
    judged: Judged,
    answers: Sequence[str],
) -> list[dict[str, Any]]:
    return [
        {
            "id": question.id,
            "question": question.text,
            "kind": question.kind,
            "answers": question.answers,
            "said": [answers[a] for a in reply.answers] if reply else None,
            "right": bool(right),
        }
        for question, reply, right in zip(questions, replies, judged.model, strict=True)
    ]


def _describe_data(
    options: Options,
    questions: Sequence[OpenQuestion],
    problems: Counter[str],
    listed: Path,
    answers: Sequence[str],
) -> dict[str, Any]:
    return {
        "test_set": "shards" if options.dataset is None else OPEN_SETS[options.dataset],
        "split_hash": content_hash([[q.id, q.text, *q.answers] for q in questions]),
        "files": options.files(),
        "questions": len(questions),
        "videos": len({question.video for question in questions}),
        "unreadable": problems.total(),
        "problems": dict(problems),
        "answer_list": listed.name,
        "answers": len(answers),
        "answers_hash": content_hash(list(answers)),
    }


def _describe_settings(options: Options, clip: ClipSettings) -> dict[str, Any]:
    coverage = {
        "strict": "strict: questions about unreadable videos are wrong",
        "available": "available: questions about unreadable videos are dropped",
    }
    return {**clip_card(clip), "coverage": coverage[options.coverage], "device": options.device}
