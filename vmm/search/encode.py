"""Videos to vectors in an index: only what is new or has changed, killed and resumed at will."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from tqdm import tqdm

import vmm.export.auto_model  # noqa: F401  else transformers warns of the encoder's config.json
from vmm.data.decode import DecodeError
from vmm.data.isolation import IsolatedDecoder
from vmm.data.times import end_of
from vmm.data.transforms import ClipSettings
from vmm.export.encoder import Floats, VideoTextEncoder
from vmm.search.index import Index
from vmm.search.parts import Record
from vmm.search.sources import Source, digest_of, find_sources
from vmm.search.windows import DecodeParts, Span, load_moments, spans_of

_FLUSH_S = 20.0
_MAX_MOMENTS = 4096
_TIMEOUT_S = 300.0
"""A video counts as hung that takes longer for one step: its list of frames, or a moment."""


class Share(NamedTuple):
    """Which of several processes that fill one index this is; each has its share of the videos."""

    number: int = 0
    """From 0."""
    of: int = 1


_ALL = Share()


@dataclass
class Counts:
    """What a run did, in videos; those with a problem count as encoded."""

    encoded: int = 0
    unchanged: int = 0
    removed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.encoded + other.encoded,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
        )


def clip_of(encoder: VideoTextEncoder, num_frames: int | None) -> ClipSettings:
    """Return how a moment becomes the encoder's input."""
    return encoder.clip.with_frames(num_frames)


def encode_videos(
    index: Index,
    encoder: VideoTextEncoder,
    inputs: Sequence[Path],
    *,
    share: Share = _ALL,
    batch_size: int = 8,
    flush_seconds: float = _FLUSH_S,
    progress: bool = False,
) -> Counts:
    """Bring an index up to date with some videos.

    New and changed videos are encoded, begun ones from where they were left; those that were in
    the inputs and are there no longer are forgotten. What cannot be encoded is recorded in the
    index with the reason, also if decoding it hangs or crashes: a process of its own does that.

    Args:
        index: To change.
        encoder: The one that the index was made with.
        inputs: See ``find_sources``.
        share: Which part of the videos this process does.
        batch_size: Moments that are encoded at once.
        flush_seconds: Seconds of work that are lost if the process is killed.
        progress: Show a progress bar on stderr.

    Raises:
        ValueError: If an input does not exist, or the encoder is another one.
    """
    index.check_encoder(encoder.fingerprint, str(encoder.folder))
    found, problems = find_sources(inputs)
    counts = Counts()
    writer = _Writer(index, encoder, batch_size, flush_seconds)
    _note_problems(index, writer, problems, share)
    roots = [path.resolve() for path in inputs]
    known = [s for s in index.videos if any(r in (s.path, *s.path.parents) for r in roots)]
    gone = set(known) - set(found) - set(problems)
    gone = {source for source in gone if source.share(share.of) == share.number}
    counts.removed = len(gone)
    writer.flush(sorted(gone))
    todo = []
    for source in found:
        if source.share(share.of) == share.number:
            if _is_unchanged(index, source):
                counts.unchanged += 1
            else:
                todo.append(source)
    sizes = _sizes(todo)
    with (
        closing(IsolatedDecoder(_TIMEOUT_S)) as decoder,
        tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        clips = _Clips(clip_of(encoder, index.settings.num_frames), decoder.parts)
        for source, size in zip(todo, sizes, strict=True):
            _encode(index, clips, writer, source, lambda part, n=size: bar.update(n * part))  # type: ignore[misc]
            counts.encoded += 1
            bar.set_postfix(videos=counts.encoded, refresh=False)
    writer.flush()
    return counts


class _Writer:
    """Encodes moments in batches and writes them now and then.

    Args:
        index: Gets the parts.
        encoder: Makes the vectors.
        batch_size: Moments that are encoded at once.
        flush_seconds: Time from part to part.
    """

    def __init__(
        self, index: Index, encoder: VideoTextEncoder, batch_size: int, flush_seconds: float
    ) -> None:
        self._index, self._encoder = index, encoder
        self._batch_size, self._flush_seconds = batch_size, flush_seconds
        self._records: list[Record] = []  # ``count`` and ``first`` tell what is not written yet
        self._clips: list[Tensor] = []
        self._spans: list[Span] = []
        self._vectors: list[Floats] = []
        self._written = time.monotonic()

    def begin(self, record: Record) -> None:
        """Turn to a video; its moments follow."""
        self._records.append(record)

    def add(self, span: Span, clip: Tensor) -> None:
        """Take a moment of the current video."""
        record = self._records[-1]
        self._records[-1] = replace(record, count=record.count + 1)
        self._spans.append(span)
        self._clips.append(clip)
        if len(self._clips) >= self._batch_size:
            self._encode()
            self._flush_if_late()

    def finish(self, seconds: float, problem: str = "") -> None:
        """End the current video."""
        record = self._records[-1]
        self._records[-1] = replace(record, seconds=seconds, done=True, problem=problem)
        self._flush_if_late()

    def flush(self, removed: Sequence[Source] = ()) -> None:
        """Write all that there is."""
        self._encode()
        if self._records or removed:
            self._index.add(self._records, self._spans, self._vectors, removed)
        self._records = [
            replace(record, first=record.first + record.count, count=0)
            for record in self._records
            if not record.done
        ]
        self._spans, self._vectors = [], []
        self._written = time.monotonic()

    def _flush_if_late(self) -> None:
        late = time.monotonic() - self._written > self._flush_seconds
        if late or len(self._spans) >= _MAX_MOMENTS:
            self.flush()

    def _encode(self) -> None:
        if self._clips:
            try:
                rows = self._encoder.encode_video(self._clips, batch_size=len(self._clips))
            except ValueError as error:
                raise ValueError(f"in the moments up to {self._place()}: {error}") from error
            self._vectors += list(rows)
            self._clips = []

    def _place(self) -> str:
        """Say where the writer is."""
        return f"{self._spans[-1][1]:.1f} s of {self._records[-1].source}"


class _Clips(NamedTuple):
    """How moments become clips."""

    settings: ClipSettings
    decode: DecodeParts


def _encode(
    index: Index,
    clips: _Clips,
    writer: _Writer,
    source: Source,
    advance: Callable[[float], object],
) -> None:
    """Encode the moments of a video that the index lacks.

    Args:
        index: To change.
        clips: How moments become clips.
        writer: Takes the moments.
        source: The video.
        advance: Called with the share of the video that was done.
    """
    record, seconds, problem = Record(str(source.path), source.member), 0.0, ""
    content: bytes | Path = b""
    try:
        size, mtime_ns = source.stamp()
        content = source.content()
        record = replace(record, size=size, mtime_ns=mtime_ns, digest=digest_of(content))
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    known = index.videos.get(source)
    if known is not None and known.record.digest == record.digest:
        record = replace(record, first=known.record.count)
        if known.record.done and record.digest:  # touched, not changed
            writer.begin(record)
            writer.finish(known.record.seconds, known.record.problem)
            advance(1.0)
            return
    writer.begin(record)
    total, settings, end, left = 1, index.settings, 0.0, 1.0

    def plan(times: np.ndarray) -> list[Span]:
        nonlocal seconds, total
        seconds = end_of(times) - float(times[0])
        spans = spans_of(times, settings.window, settings.stride)
        total = len(spans)
        return spans[record.first :]

    try:
        if not problem:
            for span, frames in load_moments(content, plan, *clips):
                writer.add(span, frames)
                advance(1 / total)
                left, end = left - 1 / total, span[1]
    except (DecodeError, OSError) as error:
        problem = f"{error}; found up to {end:.1f} s" if end else str(error)
    writer.finish(seconds, problem)
    advance(left)


def _note_problems(
    index: Index, writer: _Writer, problems: dict[Source, str], share: Share
) -> None:
    for source, problem in problems.items():
        known = index.videos.get(source)
        mine = source.share(share.of) == share.number
        if mine and (known is None or known.record.problem != problem):
            writer.begin(Record(str(source.path), source.member))
            writer.finish(0.0, problem)


def _is_unchanged(index: Index, source: Source) -> bool:
    known = index.videos.get(source)
    if known is None or not known.record.done or not known.record.digest:
        return False
    try:
        return source.stamp() == (known.record.size, known.record.mtime_ns)
    except OSError:
        return False


def _sizes(sources: Sequence[Source]) -> list[float]:
    """Return about how much work each video is, in bytes: a shard's samples are alike."""
    samples = Counter(source.path for source in sources)
    sizes = {}
    for path, count in samples.items():
        with suppress(OSError):
            sizes[path] = path.stat().st_size / count
    return [sizes.get(source.path, 0.0) for source in sources]
