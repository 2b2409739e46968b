"""Media files to frames, from the first to the last: what re-encoding needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from vmm.data.decode import LIBRARY_ERRORS

# No playlists and nothing that opens further files.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,asf,ogg,mpeg,mpegts,mpegvideo"
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


class BadMedia(ValueError):
    """A file that cannot be used.

    Args:
        reason: The kind, to count by.
        detail: What happened.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Properties(NamedTuple):
    """What a media file says of itself."""

    width: int
    """Pixels, upright."""
    height: int
    codec: str
    duration: float | None = None
    """Seconds; None for an image or where the file does not say."""
    rate: float | None = None
    """Frames per second on average."""

    def metadata(self) -> dict[str, Any]:
        """Return what is known, for a sample's JSON."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class VideoFile:
    """An open video.

    Args:
        container: The open file.

    Raises:
        BadMedia: If it has no video stream.
    """

    def __init__(self, container: InputContainer) -> None:
        if not container.streams.video:
            raise BadMedia("no video", "the file has no video stream")
        self._container = container
        self.stream: VideoStream = container.streams.video[0]
        self.stream.thread_type = "NONE"  # one process per core works already
        self._time_base = self.stream.time_base or Fraction(1, av.time_base)
        self._origin = (self.stream.start_time or 0) * self._time_base

    @property
    def rate(self) -> Fraction:
        """Frames per second on average; 25 where the file does not say."""
        return self.stream.average_rate or Fraction(25)

    @property
    def duration(self) -> float | None:
        """Seconds, by the stream or else the file."""
        if self.stream.duration:
            return float(self.stream.duration * self._time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def shown_for(self, frame: VideoFrame) -> Fraction:
        """Return how long a frame stays on display, seconds."""
        return frame.duration * self._time_base if frame.duration else 1 / self.rate

    def frames(
        self, start: float | None = None, end: float | None = None
    ) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Yield (seconds since the first of them, frame) for all that are shown in a window.

        Args:
            start: Seconds into the video; the frame shown then is the first.
            end: Seconds into the video; the frame that appears then is no longer part of it.
        """
        held: tuple[Fraction, VideoFrame] | None = None  # the last frame before the window
        first: Fraction | None = None
        for time, frame in self._from(start):
            if end is not None and time >= end:
                break
            if start is not None and time < start:
                held = time, frame
                continue
            if first is None and held is not None and start is not None and time > start:
                first = Fraction(start)
                yield Fraction(0), held[1]
            first = time if first is None else first
            yield time - first, frame
        else:
            if first is None and held is not None and self._shown_until_the_end(start):
                yield Fraction(0), held[1]

    def _shown_until_the_end(self, start: float | None) -> bool:
        return self.duration is not None and start is not None and start < self.duration

    def _from(self, start: float | None) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Decode from the key frame before a time on, or from the first frame."""
        if start is not None and start > 1:
            offset = int((Fraction(start) + self._origin) / self._time_base)
            self._container.seek(offset, stream=self.stream)
            frames = self._decode()
            first = next(frames, None)
            if first is not None and first[0] <= start:
                yield first
                yield from frames
                return
            self._container.seek(0)  # the file's own index misled
        yield from self._decode()

    def _decode(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        time = Fraction(0)
        for frame in self._container.decode(self.stream):
            if frame.pts is not None:
                time = frame.pts * self._time_base - self._origin
            yield time, frame
            time += 1 / self.rate


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn whatever the decoding and encoding libraries raise into a ``BadMedia``."""
    try:
        yield
    except BadMedia:
        raise
    except LIBRARY_ERRORS as error:
        raise BadMedia("unreadable", f"{type(error).__name__}: {error}") from error


@contextmanager
def open_video(file: Path | Any) -> Iterator[VideoFile]:
    """Open a video.

    Args:
        file: Path or binary file.

    Raises:
        BadMedia: If it is no video; also for errors while it is open.
    """
    source = str(file) if isinstance(file, Path) else file
    with (
        library_errors(),
        av.open(
            source, "r", options={"format_whitelist": _FORMATS}, metadata_errors="ignore"
        ) as container,
    ):
        yield VideoFile(container)


def video_properties(video: VideoFile) -> tuple[Properties, VideoFrame]:
    """Decode one frame to see that it works, and tell what the video is.

    Raises:
        BadMedia: If there is no frame.
    """
    _, frame = next(video.frames(), (None, None))
    if frame is None:
        raise BadMedia("no frames", "the decoder returned none")
    width, height = frame.width, frame.height
    if round(frame.rotation / 90) % 2:
        width, height = height, width
    codec = video.stream.codec_context.name
    return Properties(width, height, codec, video.duration, float(video.rate)), frame


def read_image(file: Path | Any) -> tuple[Properties, Image.Image]:
    """Read a JPEG, PNG, WebP, BMP or TIFF, upright, as RGB.

    Raises:
        BadMedia: If it is none.
    """
    with (
        library_errors(),
        Image.open(file, formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF")) as opened,
    ):
        kind = str(opened.format).lower()
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    return Properties(picture.width, picture.height, kind), picture


def target_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return even sides, the shorter one at most ``short_side``; nothing is enlarged."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    # The small number undoes rounding: 853 * (480 / 480) / 2 must not fall below a whole number.
    return max(2, 2 * int(width * scale / 2 + 1e-6)), max(2, 2 * int(height * scale / 2 + 1e-6))


class Shrinker:
    """Turns decoded frames into upright RGB with a given short side.

    Args:
        short_side: Pixels; None = as it is.
    """

    def __init__(self, short_side: int | None) -> None:
        self._short_side = short_side
        self._reformatter = VideoReformatter()  # one for all frames: making its tables is slow
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return (H, W, 3) uint8, H and W even and those of the first frame."""
        if self._size is None:
            self._size = target_size(frame.width, frame.height, self._short_side)
        pixels = self._reformatter.reformat(
            frame, *self._size, format="rgb24", interpolation="BICUBIC", threads=1
        ).to_ndarray()
        # The tag is the angle, counter-clockwise, by which a player turns the picture.
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def at_rate(
    frames: Iterator[tuple[Fraction, VideoFrame]],
    fps: Fraction,
    shown_for: Callable[[VideoFrame], Fraction],
) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Choose the frames that are on display at 0, 1/fps, 2/fps ...; each at most once.

    Args:
        frames: (Seconds, frame) in order, from 0 on.
        fps: Frames per second to keep.
        shown_for: Tells how long the last frame stays, seconds.

    Yields:
        (The first such moment, frame).
    """
    moment = Fraction(0)
    last, held = Fraction(0), None
    for time, frame in frames:
        if held is not None and moment < time:
            yield moment, held
            moment = max(moment + 1 / fps, Fraction(math.ceil(time * fps)) / fps)
        last, held = time, frame
    if held is not None and (moment < last + shown_for(held)):
        yield moment, held
