"""Shards on disk: finding them, reading one sample, and walking through all of them once."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vmm.data.clips import load_frames
from vmm.data.contents import Selection, Summary
from vmm.data.faults import BadSample, BadSamples, SampleError
from vmm.data.index import Entry, Stamp, stamp_of
from vmm.data.index_files import load_index, load_indexes, load_summaries
from vmm.data.patterns import common_folder, expand_shards, missing_shards, short_names
from vmm.data.schema import (
    CLASS_EXTENSION,
    JSON_EXTENSION,
    TEXT_EXTENSION,
    RawSample,
    captions_of,
    media_member,
    metadata_of,
    parse_metadata,
)
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.data.views import Views, look
from vmm.portable import read_at
from vmm.text_output import number_of
from vmm.types import Media

_log = logging.getLogger(__name__)

OPENED = "%s: %s in %s; skipped: %s"
"""What is logged of shards that were opened; a warning if something of them is left out."""

_LARGEST_GAP = 2**16
"""Bytes between a sample's members, headers above all, that are read along with them."""
_LARGEST_READ = 2**24
"""Bytes that are read at once and then taken apart, which needs memory for both."""


class ShardSet:
    """All samples of one media type in a list of shards, each readable by its number.

    Samples without media of this type, or a caption, are left out and counted, shards that
    are missing or damaged too. Only the counts stay in memory; the indexes of the shards last used
    are kept.

    Args:
        patterns: See ``expand_shards``.
        media: Which media the samples must have.
        folder: Shards are named by their paths from here; None = their common folder.
        recent: Shards whose index is kept in memory.
        captioned: Whether samples without a caption are left out.

    Raises:
        ValueError: If a pattern is wrong or there is not one usable sample.
    """

    def __init__(
        self,
        patterns: str | Sequence[str],
        media: Media,
        folder: str | None = None,
        recent: int = 32,
        captioned: bool = True,
    ) -> None:
        self.media: Media = media
        self._selection = Selection(media, captioned)
        self.named = ", ".join([patterns] if isinstance(patterns, str) else patterns)
        self.paths = expand_shards(patterns)
        self.missing = missing_shards(patterns)
        """Paths that the patterns spell out and that are not there."""
        self.names = short_names(self.paths, folder or common_folder(self.paths))
        self.skipped: Counter[str] = Counter()
        """Reason -> samples, members or shards left out; ``left_out`` names them."""
        self.damaged: dict[str, str] = {}
        """Shard name -> why it could not be read to its end."""
        self._recent_size = recent
        self._recent: OrderedDict[int, list[Entry]] = OrderedDict()
        self._stamps: list[Stamp | None] = []
        self._incomplete: list[int] = []
        counts, digest = [], hashlib.blake2b(digest_size=8)
        found = load_summaries(self.paths, self._selection)
        for shard, (name, summary) in enumerate(zip(self.names, found, strict=True)):
            counts.append(summary.samples)
            digest.update(repr((name, summary.digest)).encode())
            self._stamps.append(summary.stamp)
            self._account(shard, summary)
        self.counts = np.array(counts, dtype=np.int64)
        self._ends = np.cumsum(self.counts)
        self.fingerprint = digest.hexdigest()
        """Equal for equal samples at equal places, wherever the shards are."""
        self._report(patterns)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, number: int) -> tuple[int, int]:
        """Return (shard, sample in it) of a sample's number in shard order."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return shard, number - (int(self._ends[shard - 1]) if shard else 0)

    def name(self, shard: int, sample: int) -> tuple[str, str]:
        """Return (shard, key) of a sample; the key is its number if the shard is lost."""
        try:
            return self.names[shard], self._entries(shard)[sample].key
        except SampleError:
            return self.names[shard], f"#{sample}"

    def read(self, shard: int, sample: int) -> RawSample:
        """Read a sample's bytes; nothing is decoded.

        Raises:
            SampleError: If the shard no longer holds them.
        """
        entry = self._entries(shard)[sample]
        places = self._selection.parts(entry)
        parts = self._parts(shard, places)
        metadata = metadata_of(parts)
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

    def metadata(self, shard: int, sample: int) -> dict[str, Any]:
        """Read a sample's metadata without its media.

        Raises:
            SampleError: If the shard no longer holds them.
        """
        members = self._entries(shard)[sample].members
        wanted = members.keys() & {JSON_EXTENSION, CLASS_EXTENSION}
        return metadata_of({name: self._bytes(shard, members[name]) for name in wanted})

    def left_out(self) -> Iterator[BadSample]:
        """Name every missing or damaged shard and every sample or member that is not used."""
        for path in self.missing:
            yield BadSample(path, "", "missing shard")
        for shard, index in zip(
            self._incomplete, load_indexes([self.paths[n] for n in self._incomplete]), strict=True
        ):
            if index.damage:
                yield BadSample(self.names[shard], "", "damaged shard", index.damage)
            yield from self._selection.unused(self.names[shard], index)

    def absent(self) -> Iterator[tuple[str, list[str]]]:
        """Yield key and captions of every captioned sample without any media.

        So video2dataset leaves what could not be downloaded.

        Raises:
            SampleError: If a shard no longer holds a caption.
        """
        for shard, (name, index) in enumerate(
            zip(self.names, load_indexes(self.paths), strict=True)
        ):
            for entry in index.entries:
                there = any(media_member(entry.members, media) for media in get_args(Media))
                if entry.captioned and not there:
                    parts = {
                        extension: self._bytes(shard, entry.members[extension])
                        for extension in (TEXT_EXTENSION, JSON_EXTENSION)
                        if extension in entry.members
                    }
                    metadata = parse_metadata(parts.get(JSON_EXTENSION))
                    yield f"{name}/{entry.key}", captions_of(parts.get(TEXT_EXTENSION), metadata)

    def _parts(self, shard: int, places: dict[str, tuple[int, int]]) -> dict[str, bytes]:
        """Read members, neighbours at once: to a distant storage each request takes its time."""
        first = min(offset for offset, _ in places.values())
        span = max(offset + size for offset, size in places.values()) - first
        wanted = sum(size for _, size in places.values())
        if span > min(wanted + _LARGEST_GAP, _LARGEST_READ):
            return {name: self._bytes(shard, place) for name, place in places.items()}
        read = memoryview(self._bytes(shard, (first, span)))
        return {
            name: bytes(read[offset - first : offset - first + size])
            for name, (offset, size) in places.items()
        }

    def _bytes(self, shard: int, place: tuple[int, int]) -> bytes:
        offset, size = place
        stamp = self._stamps[shard]
        try:
            file = _open(self.paths[shard], stamp)
            if stamp_of(os.fstat(file.fileno())) != stamp:
                raise SampleError("unreadable", f"{self.names[shard]} has changed since the start")
            data = read_at(file.fileno(), size, offset)
        except OSError as error:
            _open.cache_clear()  # a network file system may want the file to be opened anew
            raise SampleError("unreadable", f"{self.names[shard]}: {error.strerror}") from error
        if len(data) != size:
            raise SampleError("unreadable", f"{self.names[shard]} ends before byte {offset + size}")
        return data

    def _entries(self, shard: int) -> list[Entry]:
        entries = self._recent.pop(shard, None)
        if entries is None:
            index = load_index(self.paths[shard])
            if index.stamp != self._stamps[shard]:
                lost = index.damage or "it has changed since the start"
                raise SampleError("unreadable", f"{self.names[shard]}: {lost}")
            entries = self._selection.usable(index)
            if len(entries) != self.counts[shard]:
                raise SampleError(
                    "unreadable", f"{self.names[shard]}: its index contradicts itself"
                )
        self._recent[shard] = entries
        if len(self._recent) > self._recent_size:
            self._recent.popitem(last=False)
        return entries

    def _account(self, shard: int, summary: Summary) -> None:
        self.skipped.update(summary.left_out)
        if summary.left_out or summary.damage:
            self._incomplete.append(shard)
        if summary.damage:
            self.damaged[self.names[shard]] = summary.damage
            _log.warning(
                "shard %s is damaged (%s); its %d complete samples are used",
                *(self.names[shard], summary.damage, summary.complete),
            )

    def _report(self, patterns: str | Sequence[str]) -> None:
        faults = {"damaged shards": len(self.damaged), "missing shards": len(self.missing)}
        self.skipped.update({reason: count for reason, count in faults.items() if count})
        skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(self.skipped.items()))
        if self.missing:
            _log.warning(
                "%s: %d of %d shards are missing, the first is %s",
                *(self.named, len(self.missing), len(self.missing) + len(self.paths)),
                self.missing[0],
            )
        if not len(self):
            raise ValueError(
                f"no {self.media} with a caption in {number_of(len(self.paths), 'shard')}"
                f" of {self.named} "
                f"(skipped: {skipped or 'nothing'}); a sample is KEY.mp4 (or .jpg) with KEY.txt"
            )
        _log.log(
            logging.WARNING if self.skipped else logging.INFO,
            OPENED,
            self.named,
            number_of(len(self), self.media),
            number_of(len(self.paths), "shard"),
            skipped or "nothing",
        )


@lru_cache(maxsize=64)
def _open(path: str, stamp: Stamp | None) -> BinaryIO:
    """Keep shards open; ``pread`` leaves the position alone, so forked workers may share them.

    Args:
        path: The shard.
        stamp: Of the state wanted, so that a replaced shard is opened anew.
    """
    return open(path, "rb", buffering=0)


class EvaluationSample(NamedTuple):
    """One sample of an evaluation."""

    key: str
    number: int
    video: Tensor | None
    """(T, C, H, W) float32, or (V, T, C, H, W) of V views; None if the media cannot be read."""
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
        views: Clips and crops of each sample; None = one, which is no view of its own.
        captioned: Whether samples without a caption are left out.

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
        views: Views | None = None,
        captioned: bool = True,
    ) -> None:
        self._views = views
        if views is not None:
            views.check(settings)
        self._set = ShardSet(shards, kind, captioned=captioned)
        self.settings = settings
        self.frame_order = frame_order
        self._bad = bad or BadSamples()

    @property
    def samples(self) -> ShardSet:
        """Where they come from."""
        return self._set

    @property
    def shards(self) -> list[str]:
        """Paths of the shards."""
        return self._set.paths

    @property
    def skipped(self) -> Counter[str]:
        """Reason -> samples, members or shards that the index leaves out."""
        return self._set.skipped

    def left_out(self) -> Iterator[BadSample]:
        """Name each of them."""
        return self._set.left_out()

    def absent(self) -> Iterator[tuple[str, list[str]]]:
        """Yield key and captions of those that have captions and no media."""
        return self._set.absent()

    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, index: int) -> EvaluationSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard, place = self._set.locate(index)
        try:
            raw = self._set.read(shard, place)
        except SampleError as error:
            name = self._set.name(shard, place)
            self._bad.add(BadSample(*name, error.reason, error.detail))
            return EvaluationSample("/".join(name), index, None, [], {}, error.reason)
        try:
            if self._views is None:
                frames = load_frames(raw, self._set.media, self.settings)
                video = eval_transform(frames, self.settings)
            else:
                video = look(raw, self._set.media, self.settings, self._views)
        except SampleError as error:
            name = self._set.name(shard, place)
            self._bad.add(BadSample(*name, error.reason, error.detail))
            return EvaluationSample(raw.key, index, None, raw.captions, raw.metadata, error.reason)
        if self.frame_order == "reversed":
            video = video.flip(-4)
        return EvaluationSample(raw.key, index, video, raw.captions, raw.metadata, None)

    def raw(self, index: int) -> RawSample:
        """Read a sample's bytes; nothing is decoded.

        Raises:
            SampleError: If the shard no longer holds it.
        """
        return self._set.read(*self._set.locate(index))

    def metadata(self, index: int) -> tuple[str, dict[str, Any]]:
        """Read a sample's key and metadata, without its media.

        Raises:
            SampleError: If the shard no longer holds it.
        """
        place = self._set.locate(index)
        return "/".join(self._set.name(*place)), self._set.metadata(*place)

    def media(self, index: int) -> tuple[str, bytes]:
        """Return the extension and the bytes of a sample's file.

        Raises:
            SampleError: If the shard no longer holds it.
        """
        raw = self.raw(index)
        return raw.extension, raw.data
