"""What is in a shard, sample by sample, and the numbers of many shards together."""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from vmm.command_line import PatientCtrlC
from vmm.data.faults import SampleError
from vmm.data.index import Entry, scan_shard
from vmm.data.schema import (
    JSON_EXTENSION,
    TEXT_EXTENSION,
    Media,
    captions_of,
    media_member,
    no_caption,
    parse_metadata,
    text_fault,
)
from vmm.portable import read_at
from vmm.shards.media_files import (
    Properties,
    Shrinker,
    open_video,
    read_image,
    target_size,
    video_properties,
)

THUMBNAIL_SIDE = 140
_BINS = 20


class Problem(NamedTuple):
    """A sample that cannot be used."""

    shard: str
    key: str
    reason: str
    detail: str


class Thumbnail(NamedTuple):
    """A picture from the middle of a sample."""

    key: str
    caption: str
    jpeg: bytes
    file: str = ""
    """Name of the file that it was made of, where the shard has it."""


@dataclass
class ShardContent:
    """One shard."""

    path: str
    bytes: int = 0
    samples: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """"video", "image" or "none" -> samples."""
    damage: str | None = None
    """Why the shard could not be read to its end."""
    ignored: dict[str, int] = field(default_factory=dict)
    media_bytes: list[int] = field(default_factory=list)
    properties: list[Properties] = field(default_factory=list)
    """Of the media that can be opened."""
    captions: list[list[str]] = field(default_factory=list)
    """Of every sample."""
    usable: int = 0
    """Samples with media that can be opened and a caption."""
    problems: list[Problem] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)


class _Slice(io.RawIOBase):
    """A member of a shard as a file of its own: only what the decoder asks for is read."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        super().__init__()
        self._descriptor, self._offset, self._size, self._at = descriptor, offset, size, 0

    def __repr__(self) -> str:
        return "<sample>"  # libraries put it into their messages

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        data = read_at(self._descriptor, wanted, self._offset + self._at)
        self._at += len(data)
        return data


def inspect_shard(path: str, pictured: Sequence[int] = ()) -> ShardContent:
    """Open every sample of a shard: read its texts, its media's header and one frame.

    Args:
        path: The shard.
        pictured: Numbers of the samples to make a thumbnail of.

    Returns:
        What is in it; a shard or sample that cannot be read is told, not raised.
    """
    content = ShardContent(path)
    try:
        index = scan_shard(path)
        content.bytes = os.path.getsize(path)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        content.damage = f"cannot be opened: {error}"
        return content
    content.damage, content.ignored, content.samples = (
        index.damage,
        dict(Counter(reason for _, reason in index.ignored)),
        len(index.entries),
    )
    wanted = set(pictured)
    try:
        for number, entry in enumerate(index.entries):
            with PatientCtrlC():  # PyAV swallows it while it reads from a _Slice
                _inspect_sample(descriptor, entry, content, number in wanted)
    finally:
        os.close(descriptor)
    return content


def _inspect_sample(descriptor: int, entry: Entry, content: ShardContent, pictured: bool) -> None:
    def text(extension: str) -> bytes | None:
        offset, size = entry.members.get(extension, (0, 0))
        return read_at(descriptor, size, offset) if size else None  # the index knows a limit

    written = text(TEXT_EXTENSION), text(JSON_EXTENSION)
    metadata = parse_metadata(written[1])
    captions = captions_of(written[0], metadata)
    content.captions.append(captions)
    kind, place = _media(entry)
    content.kinds[kind or "none"] += 1
    if kind is None or place is None:
        why = str(metadata.get("error_message") or metadata.get("status") or "only texts")
        content.problems.append(Problem(content.path, entry.key, "no media", why[:200]))
        return
    content.media_bytes.append(place[1])
    try:
        properties, picture = _open(_Slice(descriptor, *place), kind, pictured)
    except SampleError as error:
        content.problems.append(Problem(content.path, entry.key, error.reason, error.detail[:200]))
        return
    content.properties.append(properties)
    if captions:
        content.usable += 1
    else:
        fault = text_fault(*written)
        detail = fault or "blank or missing"
        content.problems.append(Problem(content.path, entry.key, no_caption(fault), detail))
    if picture is not None:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        caption = captions[0] if captions else ""
        content.thumbnails.append(
            Thumbnail(entry.key, caption, buffer.getvalue(), file_name(metadata))
        )


def file_name(metadata: Mapping[str, Any]) -> str:
    """Give the name of the file that a sample was made of; empty where its JSON has none."""
    name = metadata.get("media")
    return name if isinstance(name, str) else ""


def _media(entry: Entry) -> tuple[Media | None, tuple[int, int] | None]:
    for kind in ("video", "image"):
        extension = media_member(entry.members, kind)
        if extension is not None:
            return kind, entry.members[extension]
    return None, None


def _open(file: io.RawIOBase, kind: Media, pictured: bool) -> tuple[Properties, Image.Image | None]:
    if kind == "image":
        properties, picture = read_image(file)
        size = target_size(picture.width, picture.height, THUMBNAIL_SIDE)
        return properties, picture.resize(size) if pictured else None
    with open_video(file, exact=False) as video:
        properties, frame = video_properties(video)
        if not pictured:
            return properties, None
        _, middle = next(video.frames((properties.duration or 0) / 2), (None, frame))
        return properties, Image.fromarray(Shrinker(video.stream, THUMBNAIL_SIDE)(middle))


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Describe numbers: count, total, least, percentiles, mean, greatest, and a histogram."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    count, low, high = len(ordered), ordered[0], ordered[-1]

    def percentile(share: float) -> float:
        return ordered[min(count - 1, max(0, math.ceil(share * count) - 1))]

    width = (high - low) / _BINS or 1
    counts = Counter(min(_BINS - 1, int((value - low) / width)) for value in ordered)
    bins = _BINS if high > low else 1
    return {
        "count": count,
        "total": math.fsum(ordered),
        "min": low,
        "p5": percentile(0.05),
        "median": percentile(0.5),
        "mean": math.fsum(ordered) / count,
        "p95": percentile(0.95),
        "max": high,
        "histogram": {
            "edges": [low + i * width for i in range(bins + 1)],
            "counts": [counts[i] for i in range(bins)],
        },
    }


@dataclass(frozen=True)
class ShardReport:
    """The numbers of many shards together, ready for JSON.

    Args:
        shards: How many, their sizes, and what of them is damaged, ignored or unread.
        samples: How many, by what they hold.
        media: Sizes, durations, rates and codecs.
        captions: How many, how long, and which come again.
        problems: Samples that cannot be used, by reason, with examples.
    """

    shards: dict[str, Any]
    samples: dict[str, int]
    media: dict[str, Any]
    captions: dict[str, Any]
    problems: dict[str, Any]


def report(contents: Sequence[ShardContent], unread: int = 0) -> ShardReport:
    """Put the numbers of many shards together, to which ``unread`` others belong."""
    kinds: Counter[str] = Counter()
    for content in contents:
        kinds.update(content.kinds)
    problems = [problem for content in contents for problem in content.problems]
    properties = [one for content in contents for one in content.properties]
    return ShardReport(
        shards={
            "count": len(contents),
            "bytes": sum(content.bytes for content in contents),
            "samples": summary(content.samples for content in contents),
            "damaged": {c.path: c.damage for c in contents if c.damage},
            "ignored_members": dict(sum((Counter(c.ignored) for c in contents), Counter())),
            "unread": unread,
        },
        samples={
            "count": sum(content.samples for content in contents),
            "usable": sum(content.usable for content in contents),
            "video": kinds["video"],
            "image": kinds["image"],
            "without_media": kinds["none"],
        },
        media={
            "bytes": summary(size for content in contents for size in content.media_bytes),
            "seconds": summary(p.duration for p in properties if p.duration is not None),
            "frames_per_second": summary(p.rate for p in properties if p.rate is not None),
            "codecs": dict(Counter(p.codec for p in properties).most_common()),
            "sizes": dict(Counter(f"{p.width}x{p.height}" for p in properties).most_common(20)),
        },
        captions=_captions([texts for content in contents for texts in content.captions]),
        problems={
            "count": len(problems),
            "by_reason": dict(Counter(problem.reason for problem in problems).most_common()),
            "examples": [problem._asdict() for problem in problems[:100]],
        },
    )


def _captions(samples: list[list[str]]) -> dict[str, Any]:
    counts = Counter(caption for captions in samples for caption in captions)
    repeated = [(text, count) for text, count in counts.most_common() if count > 1]
    every = list(counts.elements())
    return {
        "count": len(every),
        "distinct": len(counts),
        "samples_without": sum(not captions for captions in samples),
        "per_sample": summary(len(captions) for captions in samples),
        "words": summary(len(text.split()) for text in every),
        "characters": summary(len(text) for text in every),
        "repeated": {
            "texts": len(repeated),
            "uses": sum(count for _, count in repeated),
            "most_common": [{"text": text, "count": count} for text, count in repeated[:10]],
        },
    }
