"""What a model says of every option: with the video, with its frames shuffled, without any.

Every video is encoded once for all of its questions (and once more with shuffled frames), in one
pass or in windows. Shape legend: see ``vmm.types``; M counts the texts of a video's options, S the
steps of time or windows, E is the width of the joint space.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from vmm.data.faults import BadSample, BadSamples, SampleError
from vmm.evaluation.common.frames import Frames, read_frames, settings_of, windows
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.models import CaptionVectors, ChoiceMatcher, Encoder, LongEncoder
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.long_video_qa.protocols import ChoiceQuestion
from vmm.evaluation.long_video_qa.viewing import Aggregate, Viewing

logger = logging.getLogger(__name__)

VIEWS = ("video", "shuffled", "blank")
_USUAL_TEMPERATURE = 0.07
_WINDOWS_AT_ONCE = 8
_MOST_POINTS = 120


class Seen(NamedTuple):
    """What a model says of some texts about a video, (M,) each."""

    similarity: Tensor
    """Cosines."""
    match: Tensor | None
    """Logits of "they belong together", minus those of the contrary; None without a head."""
    timeline: Tensor
    """(M, S) cosines of every step or window."""


class VideoScores(NamedTuple):
    """What is kept of a video: plain numbers, in the order of its questions and their options."""

    problem: str | None
    """Why the video could not be read; then there are no views."""
    blind: list[float]
    """Cosine of each option's text with its question's, no video."""
    views: dict[str, dict[str, list[float]]]
    """View of ``VIEWS`` -> "similarity" and, with a matching head, "match"."""
    timeline: list[list[float]]
    """Of the view "video"."""
    seconds: list[float]
    """When its points are."""
    duration: float | None
    """Length of the video, seconds."""


def score_videos(
    encoder: Encoder,
    questions: Sequence[ChoiceQuestion],
    media: AnnotatedClips,
    viewing: Viewing,
    journal: Journal,
) -> list[VideoScores]:
    """Score all options with their videos, going on where an earlier call was killed.

    Args:
        encoder: The model.
        questions: All of them.
        media: Has every video under its number.
        viewing: How to look.
        journal: Keeps finished videos.

    Returns:
        Scores of every video.

    Raises:
        ValueError: If a score is NaN.
    """
    of_video: list[list[ChoiceQuestion]] = [[] for _ in range(len(media))]
    for question in questions:
        of_video[question.video].append(question)
    done = {number: VideoScores(*entry) for number, entry in journal.entries().items()}
    if done:
        logger.info("%d of %d videos were scored before; going on", len(done), len(media))
    bad = BadSamples()
    with tqdm(desc="videos", total=len(media), initial=len(done), unit="video") as bar:
        for number, asked in enumerate(of_video):
            if number not in done:
                done[number] = _score_video(encoder, asked, media, number, viewing, bad)
                journal.add(number, done[number])
                bar.update()
    return [done[number] for number in range(len(media))]


@torch.inference_mode()
def _score_video(
    encoder: Encoder,
    questions: Sequence[ChoiceQuestion],
    media: AnnotatedClips,
    number: int,
    viewing: Viewing,
    bad: BadSamples,
) -> VideoScores:
    texts = encoder.encode_texts([prompt for q in questions for prompt in q.prompts])
    blind = _blind(encoder, questions, texts)
    try:
        film = media.film(number)
        frames = read_frames(film, settings_of(encoder.clip, viewing.num_frames), viewing.fps)
        seed = int.from_bytes(_digest(film)[:4], "big")
    except SampleError as error:
        bad.add(BadSample("", questions[0].key, error.reason, error.detail))
        return VideoScores(error.reason, blind, {}, [], [], None)
    except OSError as error:
        bad.add(BadSample("", questions[0].key, "unreadable", str(error)))
        return VideoScores("unreadable", blind, {}, [], [], None)
    views = {"video": frames, "shuffled": frames.shuffled(seed), "blank": frames.blank()}
    seen = {name: look(encoder, view, texts, viewing) for name, view in views.items()}
    kept: dict[str, dict[str, list[float]]] = {}
    for name, found in seen.items():
        kept[name] = {"similarity": _numbers(found.similarity, questions[0].key)}
        if found.match is not None:
            kept[name]["match"] = _numbers(found.match, questions[0].key)
    points = _fewer(seen["video"].timeline)
    steps = len(points[0])
    places = [round(i * (len(frames.seconds) - 1) / max(steps - 1, 1)) for i in range(steps)]
    return VideoScores(
        None,
        blind,
        kept,
        [[round(v, 4) for v in row] for row in points.tolist()],
        [round(float(frames.seconds[place]), 3) for place in places],
        frames.duration,
    )


def _digest(film: bytes | Path) -> bytes:
    if isinstance(film, bytes):
        return hashlib.sha256(film).digest()
    with film.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def look(encoder: Encoder, frames: Frames, texts: CaptionVectors, viewing: Viewing) -> Seen:
    """Score texts with the frames of one video.

    Args:
        encoder: The model.
        frames: What it sees.
        texts: M texts, encoded.
        viewing: In one pass, or in windows and how these become one score.
    """
    projected = F.normalize(texts.projected.float().cpu(), dim=-1)
    if viewing.window is None:
        vectors, tokens = _whole(encoder, frames)
        timeline = projected @ F.normalize(vectors.float().cpu(), dim=-1).T
        return Seen(timeline.mean(1), _match(encoder, texts, tokens), timeline)
    embeddings, parts = [], []
    cut = windows(frames, viewing.window)
    for i in range(0, len(cut), _WINDOWS_AT_ONCE):
        clips = [torch.cat(list(w.portions(encoder.clip))) for w in cut[i : i + _WINDOWS_AT_ONCE]]
        encoded = encoder.encode_videos(torch.stack(clips))
        embeddings.append(F.normalize(encoded.projected.float().cpu(), dim=-1).mean(1))
        parts += [None] * len(clips) if encoded.tokens is None else list(encoded.tokens)
    unit = torch.cat(embeddings)  # (S, E), the mean of the unit vectors of each window
    timeline = projected @ unit.T
    if viewing.aggregate == "embeddings":
        whole = F.normalize(unit.mean(0), dim=-1)
        kept = [part for part in parts if part is not None]
        return Seen(
            projected @ whole, _match(encoder, texts, torch.cat(kept) if kept else None), timeline
        )
    temperature = temperature_of(encoder)
    similarity = temperature * aggregate(timeline / temperature, viewing.aggregate)
    matches = [_match(encoder, texts, part) for part in parts]
    known = [match for match in matches if match is not None]
    match = aggregate(torch.stack(known, 1), viewing.aggregate) if known else None
    return Seen(similarity, match, timeline)


def aggregate(scores: Tensor, how: Aggregate) -> Tensor:
    """Make one score of those of several windows: (M, S) to (M,)."""
    if how == "max":
        return scores.amax(1)
    if how == "lse":
        return scores.logsumexp(1) - torch.tensor(float(scores.shape[1])).log()
    return scores.mean(1)


def temperature_of(encoder: Encoder) -> float:
    """Give the learned temperature of a model, or CLIP's start value if it does not say."""
    return encoder.temperature if isinstance(encoder, ChoiceMatcher) else _USUAL_TEMPERATURE


def _whole(encoder: Encoder, frames: Frames) -> tuple[Tensor, Tensor | None]:
    """Encode a video in one pass: (P, E), and its tokens (L, D) for a matching head."""
    if isinstance(encoder, LongEncoder) and encoder.takes_long_videos:
        vectors = encoder.encode_long(frames.portions(encoder.clip), len(frames.seconds))
    else:
        vectors = encoder.encode_videos(torch.cat(list(frames.portions(encoder.clip)))[None])
    return vectors.projected[0], None if vectors.tokens is None else vectors.tokens[0]


def _match(encoder: Encoder, texts: CaptionVectors, tokens: Tensor | None) -> Tensor | None:
    if tokens is None or texts.states is None or not isinstance(encoder, ChoiceMatcher):
        return None
    logits = encoder.match_logits(texts.states, tokens)
    return logits[:, 1] - logits[:, 0]


def _blind(
    encoder: Encoder, questions: Sequence[ChoiceQuestion], texts: CaptionVectors
) -> list[float]:
    """Compare every option's text with its question's: what can be guessed without a video."""
    asked = encoder.encode_texts([question.text or "?" for question in questions]).projected
    rows = [row for row, q in enumerate(questions) for _ in q.prompts]
    cosines = F.cosine_similarity(asked[rows].float(), texts.projected.float())
    return _numbers(cosines, questions[0].key)


def _numbers(scores: Tensor, key: str) -> list[float]:
    if not bool(scores.isfinite().all()):
        raise ValueError(
            f"the scores of the options of question {key!r} hold NaN or infinity: the model's "
            "weights or its precision are broken"
        )
    values: list[float] = scores.tolist()
    return values


def _fewer(timeline: Tensor) -> Tensor:
    """Average neighbouring points until few enough are left to be drawn: (M, S) to (M, s)."""
    if timeline.shape[1] <= _MOST_POINTS:
        return timeline
    return F.adaptive_avg_pool1d(timeline, _MOST_POINTS)


def viewing_card(viewing: Viewing, encoder: Encoder) -> dict[str, Any]:
    """Describe how videos are looked at."""
    frames = encoder.clip.with_frames(viewing.num_frames).num_frames
    return {
        "num_frames": None if viewing.fps is not None else frames,
        "fps": viewing.fps,
        "window": viewing.window,
        "aggregate": viewing.aggregate if viewing.window else None,
    }
