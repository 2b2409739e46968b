"""Multiple-choice questions about long videos, with everything an accuracy must be compared with.

    python -m eval.long_video_qa --run RUN --dataset egoschema --annotations questions.json \
        --media videos/ --fps 1
    python -m eval.long_video_qa --model open_clip:ViT-B-32:openai --num-frames 16 --dataset ...

Every option becomes a text, and the video's best text is the answer: by the cosine (similarity),
by the matching head, and by the published mixture of both. A video is seen whole, in one pass of
any length, or in windows. Beside it stand blind answers, a blank video, frames in random order,
the longest and the shortest option, the most frequent position and chance, with errors clustered
by video. An evaluation that was stopped goes on from the videos it had scored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from eval.command import add_model, folder_for, new_parser, run_command, versions
from eval.models import Encoder, VmmEncoder, load_encoder
from eval.qa import lint, results
from eval.qa.journal import Journal
from eval.qa.measure import METHODS, OptionScores, measure, split_scores
from eval.qa.page import build_page, write_timelines
from eval.qa.questions import SETS, Prompt, Question, QuestionFile, read_questions
from eval.qa.scores import (
    Aggregate,
    VideoScores,
    Viewing,
    score_videos,
    temperature_of,
    viewing_card,
)
from eval.sources import AnnotatedClips
from vmm import __version__
from vmm.command_line import positive, whole
from vmm.export.run import load_run
from vmm.ops.tuning.cpu_setup import tune_cpu

logger = logging.getLogger(__name__)


def run_qa(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Evaluate as the command line asks, write the result files, and give the result.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    viewing = Viewing(options.num_frames, options.fps, options.window, options.aggregate)
    file = read_questions(options.dataset, options.annotations, options.prompt, options.ids)
    findings = lint.lint_questions(options.dataset, file.questions, file.odd)
    for finding in findings:
        logger.warning("%s: %s; %s", finding.code, finding.message, finding.effect)
    if options.device == "cpu":
        for sentence in tune_cpu().values():
            logger.info(sentence)
    encoder = _encoder(options)
    media = AnnotatedClips(file.videos, options.media, encoder.clip)
    out = folder_for(options, f"qa_{options.dataset}", encoder.name)
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "scores", _depends_on(encoder, file, media, viewing))
    videos = score_videos(encoder, file.questions, media, viewing, journal)
    if all(video.problem for video in videos):
        reason = Counter(video.problem for video in videos).most_common(1)[0][0]
        raise ValueError(
            f"not one of {len(videos)} videos can be read (mostly: {reason}); the log says more"
        )
    scores = split_scores(file.questions, videos, temperature_of(encoder))
    asked, theirs = _measured(file.questions, scores, options.coverage)
    numbers = _numbers(asked, theirs, videos)
    if asked:
        findings += lint.lint_answers(asked, theirs, numbers["headline"])
    headline = numbers["headline"] or _best_method(scores)
    result = {
        "schema": results.SCHEMA,
        "name": options.name or encoder.name,
        "command": command,
        "model": encoder.identity(),
        "data": _describe_data(options, file, videos, len(asked)),
        "settings": _describe_settings(options, encoder, file, viewing),
        **numbers,
        "findings": lint.as_dicts(findings),
        "questions": _describe_questions(file.questions, scores, videos, headline),
        "versions": versions(),
    }
    _write(out, result, media, encoder, viewing, options.dataset)
    journal.remove()
    return result


def _encoder(options: argparse.Namespace) -> Encoder:
    if options.model:
        return load_encoder(
            options.model, options.num_frames, options.device, options.trust_remote_code
        )
    run = load_run(options.run, options.checkpoint)
    return VmmEncoder.of_run(run, options.device, run.clip)


def _depends_on(
    encoder: Encoder, file: QuestionFile, media: AnnotatedClips, viewing: Viewing
) -> dict[str, Any]:
    return {
        "model": encoder.identity(),
        "clip": asdict(encoder.clip),
        "questions": _hash(file.questions),
        "media": media.fingerprint(),
        "viewing": asdict(viewing),
        "versions": [__version__, torch.__version__],
    }


def _hash(questions: Sequence[Question]) -> str:
    text = json.dumps([[q.key, q.video, q.text, q.options, q.answer, q.prompts] for q in questions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _measured(
    questions: Sequence[Question], scores: Sequence[OptionScores], coverage: str
) -> tuple[list[Question], list[OptionScores]]:
    """Keep the questions that count, with their scores."""
    kept = [
        (q, s)
        for q, s in zip(questions, scores, strict=True)
        if q.answer is not None and (s.views or coverage == "strict")
    ]
    return [q for q, _ in kept], [s for _, s in kept]


def _numbers(
    questions: Sequence[Question], scores: Sequence[OptionScores], videos: Sequence[VideoScores]
) -> dict[str, Any]:
    if questions:
        return measure(questions, scores, [video.duration for video in videos])
    names = ("headline", "accuracy", "minus_blank", "controls", "by_type", "by_duration",
             "mean_over_types", "verdict")  # fmt: skip
    return dict.fromkeys(names)


def _best_method(scores: Sequence[OptionScores]) -> str:
    known = next(s.views["video"] for s in scores if s.views)
    return next(method for method in reversed(METHODS) if method in known)


def _describe_data(
    options: argparse.Namespace,
    file: QuestionFile,
    videos: Sequence[VideoScores],
    measured: int,
) -> dict[str, Any]:
    problems = Counter(video.problem for video in videos if video.problem)
    known = SETS[options.dataset]
    return {
        "test_set": known.title,
        "mean_over_types": known.mean_over_types,
        "hash": _hash(file.questions),
        "files": [Path(options.annotations).name, Path(options.media).name],
        "questions": len(file.questions),
        "measured": measured,
        "hidden": sum(question.answer is None for question in file.questions),
        "left_out": file.left_out,
        "videos": {
            "listed": len(videos),
            "readable": len(videos) - problems.total(),
            "unreadable": problems.total(),
            "problems": dict(problems),
        },
    }


def _describe_settings(
    options: argparse.Namespace, encoder: Encoder, file: QuestionFile, viewing: Viewing
) -> dict[str, Any]:
    clip = encoder.clip
    return {
        **viewing_card(viewing, encoder),
        "prompt": file.prompt,
        "coverage": options.coverage,
        "image_size": clip.image_size,
        "fit": clip.fit,
        "decoder": clip.decoder,
        "temperature": temperature_of(encoder),
        "device": options.device,
    }


def _describe_questions(
    questions: Sequence[Question],
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
            }
        )
    return described


def _write(
    out: Path,
    result: dict[str, Any],
    media: AnnotatedClips,
    encoder: Encoder,
    viewing: Viewing,
    dataset: str,
) -> None:
    (out / results.FILE_NAME).write_text(json.dumps(result), encoding="utf-8")
    written = [results.FILE_NAME, "report.html", "timelines/"]
    if result["data"]["hidden"]:
        column = SETS[dataset].id_column
        results.write_submission(out / results.SUBMISSION, column, result["questions"])
        written.append(results.SUBMISSION)
    write_timelines(out, result, media, encoder.clip)
    build_page(out / "report.html", result, out)
    logger.info("wrote %s in %s", ", ".join(written), out)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("eval.long_video_qa", __doc__, "run directory of `vmm fit`, stage 2")
    add_model(parser)
    add = parser.add_argument
    add("--dataset", choices=SETS, required=True, help="whose questions")
    add("--annotations", type=Path, required=True, help="official file of the questions")
    add("--media", required=True, help="folder of the videos, or their shards")
    add("--ids", type=Path, help="list of the questions to keep")
    add("--prompt", choices=get_args(Prompt),
        help="text of an option: question and option joined, the question with \"Is it "
        "'option'\", the option alone, or the file's own statement (default: that, or "
        "joined)")  # fmt: skip
    add(
        "--num-frames",
        type=whole(1),
        help="frames over the whole video (default: as trained, or 8)",
    )
    add("--fps", type=positive, help="frames per second instead, however many these are")
    add("--window", type=whole(1), help="see so many frames at a time (default: all in one pass)")
    add("--aggregate", choices=get_args(Aggregate), default="mean",
        help="how windows become one score: mean, max or log-sum-exp of their scores, or the mean "
        "of their embeddings (default: mean)")  # fmt: skip
    add("--coverage", choices=("strict", "available"), default="strict",
        help="questions about unreadable videos are wrong (strict), or dropped")  # fmt: skip
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the evaluation and print its tables; status 2 for a mistake in what it was given."""
    return run_command("eval.long_video_qa", _parser(), run_qa, results.qa_table, args)


if __name__ == "__main__":
    sys.exit(main())
