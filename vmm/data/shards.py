"""Shards on disk: finding them, reading one sample, and walking through all of them once."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vmm.data.clips import load_frames
from vmm.data.decode import DecodeError, Reason
from vmm.data.index import Entry, ShardIndex, load_index, load_indexes
from vmm.data.patterns import expand_shards, short_names
from vmm.data.schema import (
    JSON_EXTENSION,
    TEXT_EXTENSION,
    RawSample,
    captions_of,
    media_member,
    parse_metadata,
)
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.types import Media

_log = logging.getLogger(__name__)


class ShardSet:
    """All samples of one media type in a list of shards, each readable by its number.

    Samples without media of this type or without a caption are left out and counted. Only the
    counts stay in memory; the indexes of the shards last used are kept.

    Args:
        patterns: See ``expand_shards``.
        media: Which media the samples must have.
        recent: Shards whose index is kept in memory.

    Raises:
        ValueError: If a pattern is wrong or there is not one usable sample.
    """

    def __init__(self, patterns: str | Sequence[str], media: Media, recent: int = 32) -> None:
        self.media: Media = media
        self.paths = expand_shards(patterns)
        self.names = short_names(self.paths)
        self.skipped: Counter[str] = Counter()
        """Reason -> samples or members left out."""
        self.damaged: dict[str, str] = {}
        """Shard name -> why it could not be read to its end."""
        indexes = load_indexes(self.paths)
        counts = [len(self._usable(index)) for index in indexes]
        self.counts = np.array(counts, dtype=np.int64)
        self._ends = np.cumsum(self.counts)
        self._recent_size = recent
        self._recent: OrderedDict[int, list[Entry]] = OrderedDict()
        for name, index in zip(self.names, indexes, strict=True):
            self._account(name, index)
        self._report(patterns)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, number: int) -> tuple[int, int]:
        """Return (shard, sample in it) of a sample's number in shard order."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return shard, number - (int(self._ends[shard - 1]) if shard else 0)

    def key(self, shard: int, sample: int) -> str:
        """Return ``shard/key`` of a sample."""
        return f"{self.names[shard]}/{self._entries(shard)[sample].key}"

    def read(self, shard: int, sample: int) -> RawSample:
        """Read a sample's bytes; nothing is decoded.

        Raises:
            DecodeError: If the shard no longer holds them.
        """
        entry = self._entries(shard)[sample]
        parts = {name: self._bytes(shard, place) for name, place in self._parts(entry).items()}
        metadata = parse_metadata(parts.get(JSON_EXTENSION))
        extension = media_member(entry.members, self.media)
        assert extension is not None
        return RawSample(
            key=f"{self.names[shard]}/{entry.key}",
            number=int(self._ends[shard] - self.counts[shard]) + sample,
            extension=extension,
            data=parts[extension],
            captions=captions_of(parts.get(TEXT_EXTENSION), metadata),
            metadata=metadata,
        )

    def _parts(self, entry: Entry) -> dict[str, tuple[int, int]]:
        """Members that are read: the media, the text and the metadata."""
        wanted = (media_member(entry.members, self.media), TEXT_EXTENSION, JSON_EXTENSION)
        return {name: entry.members[name] for name in wanted if name in entry.members}

    def _bytes(self, shard: int, place: tuple[int, int]) -> bytes:
        offset, size = place
        try:
            data = os.pread(_open(self.paths[shard]).fileno(), size, offset)
        except OSError as error:
            raise DecodeError("unreadable", f"{self.names[shard]}: {error}") from error
        if len(data) != size:
            raise DecodeError("unreadable", f"{self.names[shard]} ends before byte {offset + size}")
        return data

    def _usable(self, index: ShardIndex) -> list[Entry]:
        return [e for e in index.entries if e.captioned and media_member(e.members, self.media)]

    def _entries(self, shard: int) -> list[Entry]:
        entries = self._recent.pop(shard, None)
        if entries is None:
            entries = self._usable(load_index(self.paths[shard]))
            if len(entries) != self.counts[shard]:
                raise ValueError(
                    f"{self.names[shard]} changed while it was in use: {self.counts[shard]} "
                    f"samples before, {len(entries)} now; start again"
                )
        self._recent[shard] = entries
        if len(self._recent) > self._recent_size:
            self._recent.popitem(last=False)
        return entries

    def _account(self, name: str, index: ShardIndex) -> None:
        for entry in index.entries:
            if media_member(entry.members, self.media) is None:
                self.skipped[f"no {self.media}"] += 1
            elif not entry.captioned:
                self.skipped["no caption"] += 1
        self.skipped.update({f"member {reason}": n for reason, n in index.ignored.items()})
        if index.damage:
            self.damaged[name] = index.damage
            _log.warning(
                "shard %s is damaged (%s); its %d complete samples are used",
                name,
                index.damage,
                len(index.entries),
            )

    def _report(self, patterns: str | Sequence[str]) -> None:
        skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(self.skipped.items()))
        if not len(self):
            raise ValueError(
                f"no {self.media} with a caption in the {len(self.paths)} shards of {patterns!r} "
                f"(skipped: {skipped or 'nothing'}); a sample is KEY.mp4 (or .jpg) with KEY.txt"
            )
        _log.log(
            logging.WARNING if self.skipped else logging.INFO,
            "%s: %d %ss in %d shards; skipped: %s",
            patterns,
            len(self),
            self.media,
            len(self.paths),
            skipped or "nothing",
        )


@lru_cache(maxsize=64)
def _open(path: str) -> BinaryIO:
    """Keep shards open; ``pread`` leaves the position alone, so forked workers may share them."""
    return open(path, "rb", buffering=0)


class BadSamples:
    """Counts media that could not be used, logs them now and then, and records them.

    Args:
        record: File that gets one JSON line for each: shard, key, reason, detail.
    """

    def __init__(self, record: str | None = None) -> None:
        self.record = record
        self.counts: Counter[Reason] = Counter()

    def add(self, key: str, error: DecodeError) -> None:
        """Count one; logged when it is the 1st, 10th, 100th ... of its kind in this process."""
        self.counts[error.reason] += 1
        count = self.counts[error.reason]
        if count in (1, 10, 100) or count % 1000 == 0:
            _log.warning("cannot use %s (%s); %d of this kind so far", key, error, count)
        if self.record is not None:
            shard, _, name = key.rpartition("/")
            line = {"shard": shard, "key": name, "reason": error.reason, "detail": error.detail}
            Path(self.record).parent.mkdir(parents=True, exist_ok=True)
            # One write in append mode: lines of several workers do not mix.
            with open(self.record, "ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")


class EvaluationSample(NamedTuple):
    """One sample of an evaluation."""

    key: str
    number: int
    video: Tensor | None
    """(T, C, H, W) float32, None if the media cannot be read."""
    captions: list[str]
    metadata: dict[str, Any]
    problem: str | None
    """Why there is no video."""


class EvaluationClips(Dataset[EvaluationSample]):
    """Every sample of some shards once, in shard order, with middle frames and no cropping.

    An unreadable sample is reported as such and never replaced.

    Args:
        shards: See ``expand_shards``.
        settings: Frame count, size, mean and std.
        frame_order: "reversed" plays every clip backwards.
        kind: Which media to read.
        bad: Collects what cannot be read.

    Raises:
        ValueError: If a pattern is wrong or there is not one usable sample.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        settings: ClipSettings,
        frame_order: Literal["forward", "reversed"] = "forward",
        kind: Media = "video",
        bad: BadSamples | None = None,
    ) -> None:
        self._set = ShardSet(shards, kind)
        self.settings = settings
        self.frame_order = frame_order
        self._bad = bad or BadSamples()

    @property
    def shards(self) -> list[str]:
        """Paths of the shards."""
        return self._set.paths

    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, index: int) -> EvaluationSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard, place = self._set.locate(index)
        try:
            raw = self._set.read(shard, place)
        except DecodeError as error:
            key = self._set.key(shard, place)
            self._bad.add(key, error)
            return EvaluationSample(key, index, None, [], {}, error.reason)
        try:
            frames = load_frames(raw, self._set.media, self.settings)
        except DecodeError as error:
            self._bad.add(raw.key, error)
            return EvaluationSample(raw.key, index, None, raw.captions, raw.metadata, error.reason)
        video = eval_transform(frames, self.settings)
        if self.frame_order == "reversed":
            video = video.flip(0)
        return EvaluationSample(raw.key, index, video, raw.captions, raw.metadata, None)

    def media(self, index: int) -> tuple[str, bytes]:
        """Return the extension and the bytes of a sample's file.

        Raises:
            DecodeError: If the shard no longer holds it.
        """
        raw = self._set.read(*self._set.locate(index))
        return raw.extension, raw.data
