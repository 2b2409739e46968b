"""Annotations to samples: what goes into which shard, and how one sample is made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from vmm.data.annotations.media import MediaError, MediaFolder
from vmm.data.annotations.record import Annotation
from vmm.data.containers import library_errors
from vmm.data.cut_off import refuse_part
from vmm.data.faults import SampleError
from vmm.data.index import MAX_MEMBER_BYTES
from vmm.data.schema import CAPTION, Media
from vmm.shards.encode import TimedFrames, encode_jpeg, encode_pictures, encode_video
from vmm.shards.media_files import (
    Properties,
    Shrinker,
    VideoFile,
    at_rate,
    open_video,
    read_image,
    target_size,
    try_video,
    video_properties,
)
from vmm.shards.tars import Member

_DIGITS = 5
"""Of a shard's number, as img2dataset writes it."""


@dataclass(frozen=True)
class Layout:
    """How the media are stored.

    Args:
        kind: "original": the files' bytes. "mp4": H.264. "frames": JPEG pictures at a rate, in one
            Matroska file per clip; they load many times faster and need no key frames.
        short_side: Shorter side in pixels; larger pictures are made smaller. None = as they are.
        gop: Most frames from one key frame to the next, for "mp4".
        fps: Pictures per second, for "frames".
        quality: Of JPEG, 1 to 95: for "frames" and for images that are not "original".

    Raises:
        ValueError: If a number does not fit.
    """

    kind: Literal["original", "mp4", "frames"] = "original"
    short_side: int | None = 256
    gop: int = 30
    fps: float = 3.0
    quality: int = 85

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 2:
            raise ValueError(f"--short-side is {self.short_side}; give at least 2 pixels")
        if self.gop < 1 or not 0 < self.fps <= 1000:
            raise ValueError(f"--gop is {self.gop} and --fps {self.fps}; give positive numbers")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"--quality is {self.quality}; give 1 to 95")


class Job(NamedTuple):
    """One sample to make."""

    key: str
    kind: Media
    file: Path | None
    """The media; None if it was not found."""
    problem: tuple[str, str]
    """Reason and detail of a file that was not found."""
    items: tuple[Annotation, ...]
    """What is said about it: one item of captions, or several questions."""


def shard_name(number: int) -> str:
    """Return a shard's name without extension."""
    return f"{number:0{_DIGITS}d}"


def plan(annotations: Sequence[Annotation], media: Path, samples_per_shard: int) -> list[list[Job]]:
    """Deal annotations to shards, in order; all that is about one clip is one sample.

    Args:
        annotations: All items of the data set.
        media: The folder that holds the files.
        samples_per_shard: Samples of a full shard, counting those that will fail.

    Returns:
        The jobs of every shard.

    Raises:
        ValueError: If the folder has no media of the kind that the annotations want.
    """
    groups: dict[tuple[Any, ...], list[Annotation]] = {}
    for item in annotations:
        groups.setdefault((item.kind, item.media, item.start, item.end), []).append(item)
    kinds = {item.kind for item in annotations}
    folders = {kind: MediaFolder(media, kind) for kind in sorted(kinds)}
    digits = max(4, len(str(samples_per_shard - 1)))
    jobs = []
    for number, items in enumerate(groups.values()):
        shard, place = divmod(number, samples_per_shard)
        first = items[0]
        file, problem = None, ("", "")
        try:
            file = folders[first.kind].find(first.media, *first.aliases)
        except MediaError as error:
            problem = (error.reason, error.detail)
        key = f"{shard_name(shard)}{place:0{digits}d}"
        jobs.append(Job(key, first.kind, file, problem, tuple(items)))
    return [jobs[i : i + samples_per_shard] for i in range(0, len(jobs), samples_per_shard)]


def make_sample(job: Job, layout: Layout) -> list[Member]:
    """Make one sample: its media, its caption if there is exactly one, and its metadata.

    The metadata hold ``caption`` (text, or a list of several), ``media`` (the name in the
    annotations), what the stored file is (``width``, ``height``, ``codec``, ``duration`` in
    seconds, ``rate``), ``items`` (``id`` and ``metadata`` of each annotation), and the described
    part of the clip: ``start`` and ``end`` where the whole file is stored, else ``cut``.

    Raises:
        SampleError: If the media is missing or cannot be used.
    """
    if job.file is None:
        raise SampleError(*job.problem)
    first = job.items[0]
    captions = [caption for item in job.items for caption in item.captions]
    metadata: dict[str, Any] = {"key": job.key, "status": "success", "media": first.media}
    if captions:
        metadata[CAPTION] = captions[0] if len(captions) == 1 else captions
    window = {"start": first.start, "end": first.end}
    extension: str
    content: bytes | Path
    if layout.kind == "original":
        extension, content, properties = _original(job.file, job.kind, first.start, first.end)
        metadata |= {name: second for name, second in window.items() if second is not None}
    else:
        with library_errors():
            make = _video if job.kind == "video" else _image
            extension, content, properties = make(job.file, layout, first.start, first.end)
        if first.start is not None or first.end is not None:
            metadata["cut"] = [first.start, first.end]
    metadata |= properties.metadata()
    metadata["items"] = [{"id": item.key, "metadata": item.metadata} for item in job.items]
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    if size > MAX_MEMBER_BYTES:
        raise SampleError("too large", f"{size} bytes, a shard's sample has at most 1 GiB")
    text = json.dumps(metadata, default=str).encode()
    members: list[Member] = [(f"{job.key}.{extension}", content), (f"{job.key}.json", text)]
    if len(captions) == 1:
        members.insert(1, (f"{job.key}.txt", captions[0].encode(errors="replace")))
    return members


def _original(
    file: Path, kind: Media, start: float | None, end: float | None
) -> tuple[str, Path, Properties]:
    extension = file.suffix[1:].lower()
    if kind == "image":
        return extension, file, read_image(file)[0]
    refuse_part(file)
    try_video(file, start, end)
    with open_video(file, exact=False) as video:
        return extension, file, video_properties(video)[0]


def _image(
    file: Path, layout: Layout, start: float | None, end: float | None
) -> tuple[str, bytes, Properties]:
    properties, picture = read_image(file)
    size = target_size(picture.width, picture.height, layout.short_side)
    data = encode_jpeg(np.asarray(picture.resize(size)), layout.quality)
    return "jpg", data, properties._replace(width=size[0], height=size[1], codec="jpeg")


def _video(
    file: Path, layout: Layout, start: float | None, end: float | None
) -> tuple[str, bytes, Properties]:
    refuse_part(file)
    with open_video(file) as video:
        return _encode(video, layout, start, end)


def _encode(
    video: VideoFile, layout: Layout, start: float | None, end: float | None
) -> tuple[str, bytes, Properties]:
    rate, shrink = video.rate, Shrinker(video.stream, layout.short_side)
    end_shown, size = Fraction(0), (0, 0)

    def shown() -> Iterator[tuple[Fraction, VideoFrame]]:
        nonlocal end_shown
        for time, frame in video.frames(start, end):
            end_shown = time + video.shown_for(frame)
            yield time, frame

    def pixels(frames: Iterator[tuple[Fraction, VideoFrame]]) -> TimedFrames:
        nonlocal size
        for time, frame in frames:
            picture = shrink(frame)
            size = picture.shape[1], picture.shape[0]
            yield time, picture

    if layout.kind == "frames":
        fps = Fraction(layout.fps).limit_denominator(1000)
        frames, rate = pixels(at_rate(shown(), fps, video.shown_for)), min(rate, fps)
        extension, codec, data = "mkv", "mjpeg", encode_pictures(frames, rate, layout.quality)
    else:
        extension, codec, data = "mp4", "h264", encode_video(pixels(shown()), rate, layout.gop)
    if not end_shown:
        reason = "no frames" if start is None and end is None else "bad window"
        raise SampleError(reason, f"none is shown from {start or 0} to {end or 'the end'} s")
    return extension, data, Properties(*size, codec, round(float(end_shown), 6), float(rate))
