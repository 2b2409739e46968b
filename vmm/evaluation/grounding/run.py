"""Moments and highlights of videos that sentences describe, with all they must be compared with.

    options = Options(run=Path("runs/x"), dataset="charades-sta", annotations=..., media=...)
    result = evaluate(options)
    result.numbers["metrics"]["curve"]["R1@0.5"]

Windows come from the curve of a sentence's relevance over a video's frames, and on request from a
small head that is trained on a training split. Beside them stand windows that look at nothing, and
the curve of the frames in random order, with errors clustered by video.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.results import clip_card, content_hash, count_problems, versions
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.grounding import lint
from vmm.evaluation.grounding.frame_vectors import text_vectors
from vmm.evaluation.grounding.head import RECORD, WEIGHTS, MomentHead
from vmm.evaluation.grounding.measure import Answers, answers_of, measure
from vmm.evaluation.grounding.metrics import best_iou
from vmm.evaluation.grounding.options import Options
from vmm.evaluation.grounding.page import write_page
from vmm.evaluation.grounding.proposals import Prior
from vmm.evaluation.grounding.protocols import SETS, MomentFile, MomentQuery, read_moments
from vmm.evaluation.grounding.results import SUBMISSION, GroundingResult, write_submission
from vmm.evaluation.grounding.scoring import Looking, VideoCurves, encode_training, score_videos
from vmm.evaluation.grounding.store import FrameStore
from vmm.evaluation.grounding.training import train_head
from vmm.runs import sha256
from vmm.version import __version__

logger = logging.getLogger(__name__)

_WINDOWS_KEPT = 5


def evaluate(options: Options, command: str = f"{__name__}.evaluate(...)") -> GroundingResult:
    """Evaluate, and write the result file, the windows that were found, and the page.

    An evaluation that was stopped goes on from the videos it had scored.

    Args:
        options: What is asked of which model.
        command: Said in the result to have measured it.

    Raises:
        ValueError: If the model, the head or the data cannot be used.
    """
    annotations, folder = options.official()
    file = read_moments(options.moments, annotations, options.ids)
    training = None
    if options.train_annotations is not None:
        training = read_moments(options.moments, options.train_annotations)
    findings = lint.lint_file(options.moments, file, training)
    for finding in findings:
        logger.warning("%s: %s; %s", finding.code, finding.message, finding.effect)
    options.prepare()
    looking = Looking.of(options.open_encoder(), options)
    encoder = looking.encoder
    media = AnnotatedClips(file.videos, folder, encoder.clip)
    out = options.folder(f"grounding_{options.moments}", encoder.name)
    head, described = _head(options, looking, training, out)
    depends_on = _depends_on(looking, file, media) | {"head": described}
    journal = Journal(out / "scores", depends_on)
    videos = score_videos(looking, file.queries, media, head, journal)
    prior = _prior(training)
    answers = answers_of(file.queries, videos, prior)
    findings += lint.lint_videos(file.queries, videos, options.coverage)
    asked, theirs = _measured(file.queries, answers, options.coverage)
    numbers = measure(asked, theirs, SETS[options.moments].headline) if asked else None
    result = GroundingResult(
        name=options.name or encoder.name,
        command=command,
        model=encoder.identity(),
        data=_describe_data(options, file, training, videos) | {"measured": len(asked)},
        settings={
            **clip_card(encoder.clip, sampled=False), **looking.card(), "head": described,
            "coverage": options.coverage, "device": options.device,
        },
        findings=findings,
        queries=_describe_queries(file.queries, answers, videos),
        numbers=numbers,
        versions=versions(),
    )  # fmt: skip
    names = [item.media for item in file.videos]
    write_submission(out / SUBMISSION, file.queries, names, answers)
    written = result.write(out).name
    write_page(out / "report.html", result, media, encoder.clip)
    logger.info("wrote %s, %s and report.html in %s", written, SUBMISSION, out)
    journal.remove()
    return result


def _depends_on(looking: Looking, file: MomentFile, media: AnnotatedClips) -> dict[str, Any]:
    return {
        "model": looking.encoder.identity(),
        "clip": asdict(looking.encoder.clip),
        "sentences": _hash(file.queries),
        "media": media.fingerprint(),
        "looking": looking.card(),
        "versions": [__version__, torch.__version__],
    }


def _hash(queries: Sequence[MomentQuery]) -> str:
    return content_hash([list(query) for query in queries])


def _head(
    options: Options, looking: Looking, training: MomentFile | None, out: Path
) -> tuple[MomentHead | None, dict[str, Any] | None]:
    """Load a head, or train one: with what is said of it in the result."""
    if options.head is None:
        return None, None
    made_for = {"model": looking.encoder.identity()["sha256"], "looking": looking.card()}
    if not (options.head / RECORD).is_file():
        if options.head.exists() and (not options.head.is_dir() or any(options.head.iterdir())):
            raise ValueError(f"--head {options.head} holds something else; give another folder")
        _train(options, looking, training, out, made_for)
    head, record = MomentHead.load(options.head)
    for name, what in (("model", "another model"), ("looking", "other frames or windows")):
        if record.get(name) != made_for[name]:
            raise ValueError(
                f"the head in {options.head} was trained on {what} ({record.get(name)}, not "
                f"{made_for[name]}); give another --head, where one is trained"
            )
    return head, {"sha256": sha256(options.head / WEIGHTS), **record["training"]}


def _train(
    options: Options,
    looking: Looking,
    training: MomentFile | None,
    out: Path,
    made_for: dict[str, Any],
) -> None:
    if training is None or options.train_media is None:
        raise ValueError(
            f"there is no head in {options.head} yet; give --train-annotations and --train-media, "
            "from which it is trained"
        )
    assert options.head is not None
    shown = training._replace(queries=[query for query in training.queries if query.moments])
    media = AnnotatedClips(shown.videos, options.train_media, looking.encoder.clip)
    width = text_vectors(looking.encoder, [shown.queries[0].text]).shape[1]
    store = FrameStore(out / "scores", _depends_on(looking, shown, media), width)
    head, told = train_head(encode_training(looking, shown, media, store))
    head.save(options.head, made_for | {"training": told})
    store.remove()


def _prior(training: MomentFile | None) -> Prior | None:
    if training is None:
        return None
    moments = [(q.duration, m) for q in training.queries if q.duration for m in q.moments]
    if not moments:
        logger.warning("no training moment has a known length of its video: no prior is measured")
        return None
    return Prior(moments)


def _measured(
    queries: Sequence[MomentQuery], answers: Sequence[Answers], coverage: str
) -> tuple[list[MomentQuery], list[Answers]]:
    """Keep the sentences that count, with what was found."""
    kept = [
        (query, found)
        for query, found in zip(queries, answers, strict=True)
        if query.moments and (found or coverage == "strict")
    ]
    return [query for query, _ in kept], [found for _, found in kept]


def _describe_data(
    options: Options,
    file: MomentFile,
    training: MomentFile | None,
    videos: Sequence[VideoCurves],
) -> dict[str, Any]:
    problems = count_problems([video.problem for video in videos], "videos")
    known = SETS[options.moments]
    return {
        "test_set": known.title,
        "ranges": known.ranges,
        "hash": _hash(file.queries),
        "files": options.files(),
        "queries": len(file.queries),
        "hidden": sum(not query.moments for query in file.queries),
        "left_out": file.left_out,
        "beyond": file.beyond,
        "training": 0 if training is None else len(training.queries),
        "videos": {
            "listed": len(videos),
            "readable": len(videos) - problems.total(),
            "unreadable": problems.total(),
            "problems": dict(problems),
        },
    }


def _describe_queries(
    queries: Sequence[MomentQuery], answers: Sequence[Answers], videos: Sequence[VideoCurves]
) -> list[dict[str, Any]]:
    described, taken = [], [0] * len(videos)
    for query, own in zip(queries, answers, strict=True):
        video, place = videos[query.video], taken[query.video]
        taken[query.video] += 1
        found = own.get("head") or own.get("curve")
        windows = [] if found is None else found.windows[:_WINDOWS_KEPT].tolist()
        described.append(
            {
                "key": query.key,
                "video": query.video,
                "text": query.text,
                "moments": query.moments,
                "windows": [[round(v, 4) for v in window] for window in windows],
                "iou": None if found is None or not query.moments
                else best_iou(found.windows[:, :2], query.true, 1),
                "problem": video.problem,
                "curve": [] if video.problem else [round(v, 4) for v in video.curves[place]],
                "seconds": [round(second, 3) for second in video.edges],
            }
        )  # fmt: skip
    return described
