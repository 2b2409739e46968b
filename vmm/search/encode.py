"""Videos to vectors in an index: only what is new or has changed, killed and resumed at will."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import vmm.export.auto_model  # noqa: F401  else transformers warns of the encoder's config.json
from vmm.data.cut_off import refuse_part
from vmm.data.decode import DecodeError
from vmm.data.isolation import IsolatedDecoder
from vmm.data.times import end_of
from vmm.data.transforms import ClipSettings
from vmm.export.encoder import VideoTextEncoder
from vmm.search import shots
from vmm.search.index import Index
from vmm.search.parts import Record
from vmm.search.sources import NothingThereError, Source, digest_of, find_sources
from vmm.search.windows import DecodeParts, Span, load_moments, spans_of
from vmm.search.writer import MomentWriter
from vmm.text_output import number_of

_FLUSH_S = 20.0
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
    """What a run did.

    Attributes:
        encoded: Videos that were encoded, to their end or to a problem.
        failed: Videos, shards and folders of which nothing could be encoded.
        reused: Videos that are not encoded because the index has their content: touched, moved,
            renamed or copied ones.
        unchanged: Videos that are as they were.
        removed: Videos that the index has forgotten.
        waiting: Videos that are being written.
        seconds: Length of what was encoded.
        cpu_seconds: Processor time of all of it, on all cores.
        decode_seconds: Processor time of decoding alone.
    """

    encoded: int = 0
    failed: int = 0
    reused: int = 0
    unchanged: int = 0
    removed: int = 0
    waiting: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    decode_seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def pace(self) -> str:
        """How fast it was beside decoding alone, to be read by people; empty if nothing was."""
        if not (self.seconds and self.cpu_seconds and self.decode_seconds):
            return ""
        much = self.seconds >= 360
        length = f"{self.seconds / 3600:.2f} h" if much else f"{self.seconds:.1f} s"
        return (
            f"{length} of video, {self.seconds / self.cpu_seconds:.1f} times as "
            f"fast as it plays on each core; decoding alone would be "
            f"{self.seconds / self.decode_seconds:.1f} times"
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
    is_settled: Callable[[Source], bool] = lambda source: True,
) -> Counts:
    """Bring an index up to date with some videos.

    New and changed videos are encoded, begun ones from where they were left; those that were in
    the inputs and are there no longer are forgotten. A video whose content the index has, under
    whatever name, is not encoded again. What cannot be encoded is recorded in the index with the
    reason, also if decoding it hangs or crashes: a process of its own does that.

    Args:
        index: To change.
        encoder: The one that the index was made with.
        inputs: See ``find_sources``.
        share: Which part of the videos this process does.
        batch_size: Moments that are encoded at once.
        flush_seconds: Seconds of work that are lost if the process is killed.
        progress: Show a progress bar on stderr.
        is_settled: Whether a new or changed video is written to its end; others are left.

    Raises:
        NothingThereError: If an input does not exist, or all videos of a folder seem to be gone.
        ValueError: If the encoder is another one.
    """
    index.check_encoder(encoder.fingerprint, str(encoder.folder))
    if index.settings.shots:
        shots.check_installed()
    before = os.times()
    found, problems = find_sources(inputs)
    gone = _gone(index, inputs, found, problems, share)
    writer = MomentWriter(index, encoder, batch_size, flush_seconds)
    counts = Counts(failed=_note_problems(index, writer, problems, share))
    todo = []
    for source in found:
        if source.share(share.of) == share.number:
            if _is_unchanged(index, source):
                counts.unchanged += 1
            elif is_settled(source):
                todo.append(source)
            else:
                counts.waiting += 1
    sizes = _sizes(todo)
    with (
        closing(IsolatedDecoder(_TIMEOUT_S)) as decoder,
        tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=not (progress and todo)) as bar,
    ):
        clips = _Clips(clip_of(encoder, index.settings.num_frames), decoder.parts)
        work = _Work(index, clips, writer)
        for source, size in zip(todo, sizes, strict=True):
            work.do(source, counts, lambda part, n=size: bar.update(n * part))  # type: ignore[misc]
            elapsed, spent = bar.format_dict["elapsed"], sum(os.times()[:2]) - sum(before[:2])
            shown = {
                "videos": counts.encoded + counts.failed + counts.reused,
                "hours": counts.seconds / 3600,
                "times as fast as they play": _ratio(counts.seconds, elapsed),
                "on each core": _ratio(counts.seconds, spent + decoder.cpu_seconds),
                "decoding alone": _ratio(counts.seconds, decoder.cpu_seconds),
            }
            bar.set_postfix(shown, refresh=False)
    # Not before all else is written: a process that is killed must find what was moved. What is
    # waited for may have moved, too.
    gone |= {source for source in work.moved if source.share(share.of) == share.number}
    gone = set() if counts.waiting else gone
    counts.removed = len(gone)
    writer.flush(sorted(gone))
    after = os.times()
    counts.decode_seconds = sum(after[2:4]) - sum(before[2:4])  # of the child, which has ended
    counts.cpu_seconds = sum(after[:4]) - sum(before[:4])
    return counts


def _ratio(seconds: float, spent: float) -> float:
    return seconds / spent if spent else 0.0


class _Clips(NamedTuple):
    """How moments become clips."""

    settings: ClipSettings
    decode: DecodeParts


class _Work:
    """The moments that an index lacks, video by video.

    Args:
        index: As it was at the beginning.
        clips: How moments become clips.
        writer: Takes the moments.
    """

    def __init__(self, index: Index, clips: _Clips, writer: MomentWriter) -> None:
        self._index, self._clips, self._writer = index, clips, writer
        self._by_content = {
            video.record.digest: source
            for source, video in index.videos.items()
            if video.record.digest and video.record.done and not video.record.problem
        }
        self.moved: set[Source] = set()
        """Videos whose content was found elsewhere, and which are not where they were."""

    def do(self, source: Source, counts: Counts, advance: Callable[[float], object]) -> None:
        """Encode a video, or take over what is known of its content.

        Args:
            source: The video.
            counts: Is told what was done.
            advance: Called with the share of the video that was done.
        """
        record, problem = Record(str(source.path), source.member), ""
        content: bytes | Path = b""
        try:
            size, mtime_ns = source.stamp()
            content = source.content()
            record = replace(record, size=size, mtime_ns=mtime_ns, digest=digest_of(content))
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        known = self._index.videos.get(source)
        if known is not None and problem and known.record.problem == problem:
            counts.unchanged += 1
            advance(1.0)
            return
        if known is not None and known.record.digest == record.digest:
            record = replace(record, first=known.record.count)
            if known.record.done and record.digest:  # touched, not changed
                self._writer.begin(record)
                self._writer.finish(known.record.seconds, known.record.problem)
                counts.reused += 1
                advance(1.0)
                return
        elif not problem and self._take_over(record):
            counts.reused += 1
            advance(1.0)
            return
        self._encode(record, content, problem, counts, advance)

    def _take_over(self, record: Record) -> bool:
        """Use the moments of a video of the same content, if there is one."""
        same = self._by_content.get(record.digest)
        if same is None:
            return False
        try:
            spans, vectors = self._index.moments_of(same)
        except ValueError:  # another process has put the parts together
            return False
        self._writer.begin(record)
        self._writer.take_over(spans, vectors)
        self._writer.finish(self._index.videos[same].record.seconds)
        if not same.path.exists():
            self.moved.add(same)
        return True

    def _encode(
        self,
        record: Record,
        content: bytes | Path,
        problem: str,
        counts: Counts,
        advance: Callable[[float], object],
    ) -> None:
        """Encode the moments from ``record.first`` on, and count them."""
        self._writer.begin(record)
        settings, seconds, total, end, left = self._index.settings, 0.0, 1, 0.0, 1.0
        cuts: list[float] = []

        def plan(times: np.ndarray) -> list[Span]:
            nonlocal seconds, total
            seconds = end_of(times) - float(times[0])
            if settings.shots:
                spans = shots.split(float(times[0]), cuts, end_of(times), settings.window)
            else:
                spans = spans_of(times, settings.window, settings.stride)
            total = len(spans)
            return spans[record.first :]

        try:
            if settings.shots and not problem:
                cuts = shots.find_cuts(content, self._clips.decode)
            if not problem:
                for span, frames in load_moments(content, plan, *self._clips):
                    self._writer.add(span, frames)
                    advance(1 / total)
                    left, end = left - 1 / total, span[1]
                refuse_part(content)
        except (DecodeError, OSError) as error:
            problem = f"{error}; found up to {end:.1f} s" if end else str(error)
        self._writer.finish(seconds, problem)
        advance(left)
        counts.seconds += seconds * (1 - left)
        if problem and not (end or record.first):
            counts.failed += 1
        else:
            counts.encoded += 1


def _gone(
    index: Index,
    inputs: Sequence[Path],
    found: Sequence[Source],
    problems: dict[Source, str],
    share: Share,
) -> set[Source]:
    """Return what was in the inputs and is there no longer.

    Raises:
        NothingThereError: If that is all of a folder: its drive may be away.
    """
    there, gone = {*found, *problems}, set[Source]()
    for given in inputs:
        root = given.resolve()
        known = [source for source in index.videos if source.is_in(root)]
        if known and root.is_dir() and not any(source.is_in(root) for source in there):
            raise NothingThereError(
                f"{given} is empty, and {index.folder} knows {number_of(len(known), 'video')}"
                " in it: is its "
                "drive there? To forget them, name the folder above it, or make another index"
            )
        gone |= {source for source in known if source not in there}
    unread = {source.path for source in problems if source.path.is_dir()}
    if unread:
        gone = {source for source in gone if unread.isdisjoint(source.path.parents)}
    return {source for source in gone if source.share(share.of) == share.number}


def _note_problems(
    index: Index, writer: MomentWriter, problems: dict[Source, str], share: Share
) -> int:
    """Record problems that the index does not know; return how many."""
    new = 0
    for source, problem in problems.items():
        known = index.videos.get(source)
        mine = source.share(share.of) == share.number
        if mine and (known is None or known.record.problem != problem):
            writer.begin(Record(str(source.path), source.member))
            writer.finish(0.0, problem)
            new += 1
    return new


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
