"""What a model says of every moment of the videos: curves of relevance, and what a head finds.

Every video is encoded once for all of its sentences, and once more with its frames in random
order. Shape legend: S frames, E is the width of the joint space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vmm.data.faults import BadSample, BadSamples, SampleError
from vmm.evaluation.common.frames import Frames, read_frames, settings_of
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.models import Encoder
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.grounding.frame_vectors import edges_of, per_frame, seed_of, text_vectors
from vmm.evaluation.grounding.head import MomentHead
from vmm.evaluation.grounding.options import Options
from vmm.evaluation.grounding.protocols import MomentFile, MomentQuery, cut
from vmm.evaluation.grounding.store import FrameStore
from vmm.evaluation.grounding.training import Lesson

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 64


class VideoCurves(NamedTuple):
    """What is kept of a video: plain numbers, in the order of its sentences."""

    problem: str | None
    """Why the video could not be read; then there is nothing else."""
    edges: list[float]
    """(S + 1,) seconds between which each frame counts."""
    curves: list[list[float]]
    """(S,) cosine of each frame with the sentence."""
    shuffled: list[list[float]]
    """The same of the frames in random order, by their places."""
    windows: list[list[list[float]]]
    """Start, end and score of what the head finds, best first; none without a head."""
    inside: list[list[float]]
    """(S,) how sure the head is of each frame."""


_NOTHING: tuple[list[Any], ...] = ([], [], [], [], [])


class Looking(NamedTuple):
    """How a model looks at videos."""

    encoder: Encoder
    num_frames: int | None
    rate: float | None
    """Frames per second, where their number is not given."""
    window: int | None

    @classmethod
    def of(cls, encoder: Encoder, options: Options) -> Looking:
        """Look as it is asked for."""
        return cls(encoder, options.num_frames, options.rate, options.window)

    def card(self) -> dict[str, Any]:
        """Describe it."""
        return {"num_frames": self.num_frames, "fps": self.rate, "window": self.window}

    def frames(self, media: AnnotatedClips, number: int) -> Frames:
        """Read the frames of a video."""
        clip = settings_of(self.encoder.clip, self.num_frames)
        return read_frames(media.film(number), clip, self.rate)


def score_videos(
    looking: Looking,
    queries: Sequence[MomentQuery],
    media: AnnotatedClips,
    head: MomentHead | None,
    journal: Journal,
) -> list[VideoCurves]:
    """Score all sentences, going on where an earlier call was killed.

    Args:
        looking: At which frames, with which model.
        queries: All of them.
        media: Has every video under its number.
        head: A trained one.
        journal: Keeps finished videos.

    Raises:
        ValueError: If a score is NaN, or the model tells no moments.
    """
    done = {number: VideoCurves(*entry) for number, entry in journal.entries().items()}
    if done:
        logger.info("%d of %d videos were scored before; going on", len(done), len(media))
    bad = BadSamples()
    for number, asked in _by_video(queries, len(media), done, "videos"):
        done[number] = _score_video(looking, asked, media, number, head, bad)
        journal.add(number, done[number])
    return [done[number] for number in range(len(media))]


def _by_video(
    queries: Sequence[MomentQuery], videos: int, done: dict[int, Any], title: str
) -> Iterator[tuple[int, list[MomentQuery]]]:
    """Give the videos that are not done with their sentences, under a progress bar."""
    of_video: list[list[MomentQuery]] = [[] for _ in range(videos)]
    for query in queries:
        of_video[query.video].append(query)
    with tqdm(desc=title, total=videos, initial=len(done), unit="video") as bar:
        for number, asked in enumerate(of_video):
            if number not in done:
                yield number, asked
                bar.update()


def _try_frames(
    looking: Looking, media: AnnotatedClips, number: int, key: str, bad: BadSamples
) -> tuple[Frames | None, str | None]:
    """Read a video's frames, or note why it cannot be read."""
    try:
        return looking.frames(media, number), None
    except SampleError as error:
        bad.add(BadSample("", key, error.reason, error.detail))
        return None, error.reason
    except OSError as error:
        bad.add(BadSample("", key, "unreadable", str(error)))
        return None, "unreadable"


@torch.inference_mode()
def _score_video(
    looking: Looking,
    queries: Sequence[MomentQuery],
    media: AnnotatedClips,
    number: int,
    head: MomentHead | None,
    bad: BadSamples,
) -> VideoCurves:
    key = queries[0].key
    frames, problem = _try_frames(looking, media, number, key, bad)
    if frames is None:
        return VideoCurves(problem, *_NOTHING)
    shuffled = frames.shuffled(seed_of(media.film(number)))
    encoder, window = looking.encoder, looking.window
    texts = text_vectors(encoder, [query.text for query in queries])
    vectors = per_frame(encoder, frames, window)
    edges = edges_of(frames, looking.rate)
    found = [] if head is None else head.find(vectors, texts, edges)
    return VideoCurves(
        None,
        edges.tolist(),
        _numbers(texts @ vectors.T, key),
        _numbers(texts @ per_frame(encoder, shuffled, window).T, key),
        [windows.round(4).tolist() for windows, _ in found],
        [inside.round(6).tolist() for _, inside in found],
    )


def _numbers(curves: Tensor, key: str) -> list[list[float]]:
    if not bool(curves.isfinite().all()):
        raise ValueError(
            f"the scores of sentence {key!r} and others of its video hold NaN or infinity: the "
            "model's weights or its precision are broken"
        )
    return [[round(value, 6) for value in row] for row in curves.tolist()]


@torch.inference_mode()
def encode_training(
    looking: Looking, file: MomentFile, media: AnnotatedClips, store: FrameStore
) -> list[Lesson]:
    """Encode the videos of a training split, going on where an earlier call was killed.

    Args:
        looking: At which frames, with which model.
        file: What is shown.
        media: Has every video under its number.
        store: Keeps finished videos.

    Returns:
        A lesson of every sentence whose video can be read and has a moment in it.
    """
    bad = BadSamples()
    for number, asked in _by_video(file.queries, len(media), store.videos, "training videos"):
        frames, problem = _try_frames(looking, media, number, asked[0].key, bad)
        if frames is None:
            store.add(number, problem, np.zeros(0), None)
            continue
        vectors = per_frame(looking.encoder, frames, looking.window)
        store.add(number, None, edges_of(frames, looking.rate), vectors)
    lessons = []
    vectors_of = store.vectors()
    for i in range(0, len(file.queries), _TEXTS_AT_ONCE):
        some = file.queries[i : i + _TEXTS_AT_ONCE]
        texts = text_vectors(looking.encoder, [query.text for query in some])
        for query, text in zip(some, texts, strict=True):
            if query.video not in vectors_of:
                continue
            edges = torch.tensor(store.videos[query.video].edges)
            moments = cut(query.moments, edges[-1].item())
            if moments:
                centres = (edges[:-1] + edges[1:]) / (2 * edges[-1])
                shares = torch.tensor(moments) / edges[-1]
                lessons.append(Lesson(query.video, vectors_of[query.video], text, centres, shares))
    return lessons
