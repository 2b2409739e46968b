"""Multiple-choice questions about long videos, with everything an accuracy must be compared with.

    result = evaluate(Options(run=Path("runs/x"), dataset="egoschema", annotations=..., media=...))
    result.numbers["accuracy"]["similarity"]

Every option becomes a text, and the video's best text is the answer: by the cosine (similarity),
by the matching head, and by the published mixture of both. A video is seen whole, in one pass of
any length, or in windows. Beside it stand blind answers, a blank video, frames in random order,
the longest and the shortest option, the most frequent position and chance, with errors clustered
by video.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vmm.evaluation.common.encoding import check_texts
from vmm.evaluation.common.findings import texts_lost
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.models import Encoder
from vmm.evaluation.common.results import (
    clip_card,
    content_hash,
    count_problems,
    unreadable,
    versions,
)
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.long_video_qa import lint
from vmm.evaluation.long_video_qa.measure import METHODS, OptionScores, measure, split_scores
from vmm.evaluation.long_video_qa.options import Options
from vmm.evaluation.long_video_qa.page import write_page, write_timelines
from vmm.evaluation.long_video_qa.protocols import (
    SETS,
    ChoiceQuestion,
    QuestionFile,
    read_questions,
)
from vmm.evaluation.long_video_qa.results import SUBMISSION, QaResult, write_submission
from vmm.evaluation.long_video_qa.scoring import (
    VideoScores,
    score_videos,
    temperature_of,
    viewing_card,
)
from vmm.version import __version__

logger = logging.getLogger(__name__)

_LOST = "options that differ there only are one to the model: the accuracy is too low"


def evaluate(options: Options, command: str = f"{__name__}.evaluate(...)") -> QaResult:
    """Evaluate, and write the result file, its pictures and its page.

    An evaluation that was stopped goes on from the videos it had scored.

    Args:
        options: What is asked of which model.
        command: Said in the result to have measured it.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    annotations, folder = options.official()
    viewing = options.viewing
    file = read_questions(options.questions, annotations, options.prompt, options.ids)
    findings = lint.lint_questions(options.questions, file.questions, file.odd)
    for finding in findings:
        logger.warning("%s: %s; %s", finding.code, finding.message, finding.effect)
    options.prepare()
    encoder = options.open_encoder()
    prompts = [prompt for question in file.questions for prompt in question.prompts]
    findings += texts_lost(check_texts(encoder, prompts), _LOST)
    media = AnnotatedClips(file.videos, folder, encoder.clip)
    out = options.folder(f"qa_{options.questions}", encoder.name)
    journal = Journal(out / "scores", _depends_on(encoder, file, media, options))
    videos = score_videos(encoder, file.questions, media, viewing, journal)
    data = _describe_data(options, file, videos)
    scores = split_scores(file.questions, videos, temperature_of(encoder))
    lost = sum(not score.views for score in scores)
    asked_of_all = lost, len(scores), "questions"
    problems = data["videos"]["problems"]
    findings += unreadable(problems, len(videos), "videos", options.coverage, asked_of_all)
    asked, theirs = _measured(file.questions, scores, options.coverage)
    numbers, headline = None, _best_method(scores)
    if asked:
        numbers = measure(asked, theirs, [video.duration for video in videos])
        headline = numbers["headline"]
        findings += lint.lint_answers(asked, theirs, headline)
    result = QaResult(
        name=options.name or encoder.name,
        command=command,
        model=encoder.identity(),
        data=data | {"measured": len(asked)},
        settings=_describe_settings(options, encoder, file),
        findings=findings,
        questions=_describe_questions(file.questions, scores, videos, headline),
        numbers=numbers,
        versions=versions(),
    )
    _write(out, result, media, encoder, options.questions)
    journal.remove()
    return result


def _depends_on(
    encoder: Encoder, file: QuestionFile, media: AnnotatedClips, options: Options
) -> dict[str, Any]:
    return {
        "model": encoder.identity(),
        "clip": asdict(encoder.clip),
        "questions": _hash(file.questions),
        "media": media.fingerprint(),
        "viewing": asdict(options.viewing),
        "versions": [__version__, torch.__version__],
    }


def _hash(questions: Sequence[ChoiceQuestion]) -> str:
    return content_hash(
        [[q.key, q.video, q.text, q.options, q.answer, q.prompts] for q in questions]
    )


def _measured(
    questions: Sequence[ChoiceQuestion], scores: Sequence[OptionScores], coverage: str
) -> tuple[list[ChoiceQuestion], list[OptionScores]]:
    """Keep the questions that count, with their scores."""
    kept = [
        (q, s)
        for q, s in zip(questions, scores, strict=True)
        if q.answer is not None and (s.views or coverage == "strict")
    ]
    return [q for q, _ in kept], [s for _, s in kept]


def _best_method(scores: Sequence[OptionScores]) -> str:
    known = next(s.views["video"] for s in scores if s.views)
    return next(method for method in reversed(METHODS) if method in known)


def _describe_data(
    options: Options, file: QuestionFile, videos: Sequence[VideoScores]
) -> dict[str, Any]:
    problems = count_problems([video.problem for video in videos], "videos")
    known = SETS[options.questions]
    return {
        "test_set": known.title,
        "mean_over_types": known.mean_over_types,
        "hash": _hash(file.questions),
        "files": options.files(),
        "questions": len(file.questions),
        "hidden": sum(question.answer is None for question in file.questions),
        "left_out": file.left_out,
        "videos": {
            "listed": len(videos),
            "readable": len(videos) - problems.total(),
            "unreadable": problems.total(),
            "problems": dict(problems),
        },
    }


def _describe_settings(options: Options, encoder: Encoder, file: QuestionFile) -> dict[str, Any]:
    return {
        **clip_card(encoder.clip, sampled=False),
        **viewing_card(options.viewing, encoder),
        "prompt": file.prompt,
        "coverage": options.coverage,
        "temperature": temperature_of(encoder),
        "device": options.device,
    }


def _describe_questions(
    questions: Sequence[ChoiceQuestion],
    scores: Sequence[OptionScores],
    videos: Sequence[VideoScores],
    headline: str,
) -> list[dict[str, Any]]:
    described = []
    for question, own in zip(questions, scores, strict=True):
        values = own.views.get("video", {}).get(headline)
        described.append(
            {
                "key": question.key,
                "video": question.video,
                "question": question.text,
                "options": question.options,
                "answer": question.answer,
                "chosen": None if values is None else values.index(max(values)),
                "kind": question.kind,
                "problem": videos[question.video].problem,
                "scores": own.views,
                "blind": own.blind,
                "timeline": own.timeline,
                "seconds": videos[question.video].seconds,
                "duration": videos[question.video].duration,
            }
        )
    return described


def _write(
    out: Path, result: QaResult, media: AnnotatedClips, encoder: Encoder, dataset: str
) -> None:
    written = [result.write(out).name, "report.html", "timelines/"]
    if result.data["hidden"]:
        write_submission(out / SUBMISSION, SETS[dataset].id_column, result.questions)
        written.append(SUBMISSION)
    write_timelines(out, result, media, encoder.clip)
    write_page(out / "report.html", result, out)
    logger.info("wrote %s in %s", ", ".join(written), out)
