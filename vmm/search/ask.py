"""Look through a video that is not in the index."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vmm.data.cut_off import refuse_part
from vmm.data.decode import DecodeError, decode_parts
from vmm.data.times import end_of
from vmm.search import shots
from vmm.search.encode import clip_of
from vmm.search.parts import Floats, Spans
from vmm.search.query import Hit, Searcher, distinct
from vmm.search.sources import Source
from vmm.search.windows import DecodeParts, Span, load_moments, spans_of

WINDOWS_IN_ALL = 4
"""A video is cut into at least so many windows, if nobody says how long they are."""
_POINTS = 24
_MOST = 5000
_BATCH = 8


class Answer(NamedTuple):
    """What was found in a video.

    Attributes:
        hits: The best moments, of which no two overlap.
        spans: (n, 2) start and end of every moment, seconds.
        cosines: (n,) float32, of the query's vector and theirs.
        problem: Why the rest of the video could not be read; empty if all of it was.
    """

    hits: list[Hit]
    spans: Spans
    cosines: Floats
    problem: str = ""


def look_through(
    searcher: Searcher,
    vector: Floats,
    video: Path,
    *,
    window: float | None = None,
    stride: float | None = None,
    top: int = 3,
    decode: DecodeParts = decode_parts,
) -> Answer:
    """Compare a vector with all moments of a video that is not in the index.

    The video is cut as those of the index are: into overlapping windows, or from cut to cut.

    Args:
        searcher: Has the encoder.
        vector: (E,) as for ``Searcher.search``.
        video: The file.
        window: Length of a moment, seconds; None = that of the index, or a quarter of the video if
            that is shorter. In an index of shots, longer shots become equal pieces.
        stride: From start to start, seconds; None = half a window, or less, so that a curve of the
            moments has two dozen points where the video has as many frames.
        top: How many moments to find.
        decode: Where to decode.

    Raises:
        ValueError: If the video cannot be read, or has too many moments; for an index of shots, if
            there is a stride or the library that finds cuts is missing.
    """
    settings = searcher.index.settings
    usual, cuts = settings.window, list[float]()
    if settings.shots:
        shots.check_installed("ask an index of windows")
        if stride is not None:
            raise ValueError(
                f"stride {stride:g} is for moments that overlap, and shots do not; leave it out"
            )

    def chosen(times: np.ndarray) -> list[Span]:
        if settings.shots:
            return plan_shots(times, cuts, usual, window)
        return plan(times, usual, window, stride)

    frames = clip_of(searcher.encoder, settings.num_frames)
    moments = load_moments(video, chosen, frames, decode)
    spans: list[Span] = []
    cosines: list[float] = []
    problem = ""
    try:
        if settings.shots:
            cuts += shots.find_cuts(video, decode)
        for batch in _batches(moments):
            spans += [span for span, _ in batch]
            clips = [clip for _, clip in batch]
            cosines += (searcher.encoder.encode_video(clips) @ vector).tolist()
        refuse_part(video)
    except (DecodeError, OSError) as error:
        if not spans:
            raise ValueError(f"cannot read {video.name}: {error}; try another file") from error
        problem = f"only the first {spans[-1][1]:.1f} s can be read: {error}"
    times, scores = np.array(spans), np.array(cosines, np.float32)
    rows = distinct(scores, np.zeros(len(scores), np.int32), times, top, np.zeros(1, int))
    hits = [Hit(Source(video), *spans[row], cosines[row]) for row in rows]
    return Answer(hits, times, scores, problem)


def plan(times: np.ndarray, usual: float, window: float | None, stride: float | None) -> list[Span]:
    """Cut a video into moments, see ``look_through``.

    Args:
        times: (V,) seconds at which the frames are shown.
        usual: Window of the index, seconds.
        window: The one that is wanted, seconds.
        stride: The one that is wanted, seconds.

    Raises:
        ValueError: If there are too many.
    """
    seconds = end_of(times) - float(times[0])
    frame = seconds / len(times)
    length = _length(seconds, frame, usual, window)
    step = max(min(length / 2, (seconds - length) / (_POINTS - 1)), frame)
    step = step if stride is None else stride
    _check_number((seconds - length) / step, seconds, length)
    return spans_of(times, length, step)


def plan_shots(
    times: np.ndarray, cuts: list[float], usual: float, window: float | None
) -> list[Span]:
    """Cut a video into its shots, see ``look_through``.

    Args:
        times: (V,) seconds at which the frames are shown.
        cuts: Of ``shots.find_cuts``.
        usual: Longest moment of the index, seconds.
        window: The one that is wanted, seconds.

    Raises:
        ValueError: If there are too many.
    """
    seconds = end_of(times) - float(times[0])
    frame = seconds / len(times)
    longest = max(_length(seconds, frame, usual, window), frame)
    _check_number(seconds / longest, seconds, longest)
    spans = shots.split(float(times[0]), cuts, end_of(times), longest)
    if len(spans) > _MOST:
        raise ValueError(f"this video has {len(spans)} shots, more than {_MOST}; ask a part of it")
    return spans


def _length(seconds: float, frame: float, usual: float, window: float | None) -> float:
    return min(usual, max(seconds / WINDOWS_IN_ALL, frame)) if window is None else window


def _check_number(number: float, seconds: float, length: float) -> None:
    if number > _MOST:
        raise ValueError(
            f"this video of {seconds:.0f} s has more than {_MOST} moments of {length:g} s; "
            f"choose a window of {np.ceil(2 * seconds / _MOST):.0f} s or more"
        )


def _batches(moments: Iterator[tuple[Span, Tensor]]) -> Iterator[list[tuple[Span, Tensor]]]:
    """Yield moments together; what came before an error is yielded before it is raised."""
    ended = False
    while not ended:
        batch: list[tuple[Span, Tensor]] = []
        fault: DecodeError | OSError | None = None
        try:
            for moment in islice(moments, _BATCH):
                batch.append(moment)
        except (DecodeError, OSError) as error:
            fault = error
        if batch:
            yield batch
        if fault is not None:
            raise fault
        ended = len(batch) < _BATCH
