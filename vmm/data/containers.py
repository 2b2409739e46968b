"""Video files from anywhere, opened: the one place where vmm meets PyAV's ways of doing it.

Nothing here trusts the bytes: only the formats of ``vmm.data.schema`` are read, nothing else is
opened on behalf of a file, sizes are capped, and whatever the libraries raise arrives as a
``DecodeError``. A file's name is never looked at: its content says what it is.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vmm.data.faults import SampleError
from vmm.data.packets import TooManyFrames
from vmm.data.schema import VIDEO_FORMATS

MAX_PIXELS = 4096 * 4096
LIBRARY_ERRORS = (av.FFmpegError, OSError)
"""What PyAV raises for bad bytes, seen on 22,000 damaged files of all kinds, and a disk that fails.
Nothing else: a TypeError is a mistake of ours, not one of the file."""
_MOST_UNEVEN = 8  # no camera has pixels eight times as wide as high
_FORMATS = ",".join(sorted(set(VIDEO_FORMATS.values())))
_REFUSED = f"none of the containers {_FORMATS}; convert it, e.g. `ffmpeg -i FILE FILE.mp4`"


class DecodeError(SampleError):
    """A video or image cannot be decoded."""


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn what PyAV raises for bad bytes into a ``DecodeError``."""
    try:
        yield
    except TooManyFrames as error:
        raise DecodeError("too long", str(error)) from error
    except LIBRARY_ERRORS as error:
        what = "damaged, cut off or no video; does it play?"
        if not isinstance(error, av.FFmpegError):
            what = "the disk or network does not give it; is the file there, and may it be read?"
        raw = f"{type(error).__name__}: {error.strerror or error}"
        raise DecodeError("unreadable", f"{what} ({raw})") from error


@contextmanager
def open_video(
    video: bytes | Path | BinaryIO, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and choose its stream: FFmpeg's best one, never an attached picture.

    Args:
        video: The content, or the file.
        max_pixels: Refuse larger frames.

    Yields:
        The container, at its start, and the stream.

    Raises:
        DecodeError: If it is no video that is read.
        OSError: If the file cannot be opened.
    """
    with _as_file(video) as file:
        container = _open_container(file)
        try:
            with library_errors():
                stream = _choose_stream(container)
                # One thread per decoder: the loader has a process per core already.
                stream.thread_type = "NONE"
                stream.codec_context.options = {"max_pixels": str(max_pixels)}
                check_size(*Converter(stream).shown_size(stream.width, stream.height), max_pixels)
            yield container, stream
        finally:
            container.close()


@contextmanager
def _as_file(video: bytes | Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(video, bytes):
        if not video:
            raise DecodeError("empty", "0 bytes")
        yield io.BytesIO(video)
    elif isinstance(video, Path):
        if not video.stat().st_size:
            raise DecodeError("empty", "0 bytes")
        with io.FileIO(video) as raw:
            # FFmpeg would take some names for addresses, and endings for formats.
            raw.name = "<none>"
            yield io.BufferedReader(raw)
    else:
        yield video


def open_arguments(version: str) -> dict[str, str]:
    """Return what ``av.open`` must be told in a version of PyAV to bear any tags.

    Up to PyAV 18 tags that are not UTF-8 are an error unless told otherwise; 19 replaces what it
    cannot read and knows no such argument.
    """
    return {} if _major(version) >= 19 else {"metadata_errors": "ignore"}


def reformat_arguments(version: str) -> dict[str, int]:
    """Return what keeps a reformatter to one thread; before PyAV 17 it had no more than one."""
    return {"threads": 1} if _major(version) >= 17 else {}


def _major(version: str) -> int:
    return int(version.partition(".")[0])


_ON_ONE_THREAD: dict[str, Any] = {**reformat_arguments(av.__version__)}


def _open_container(file: BinaryIO) -> InputContainer:
    # No playlists, and nothing that opens further files.
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": ""}
    arguments: dict[str, Any] = open_arguments(av.__version__)
    with library_errors():
        try:
            # Not as `options`, which are for the streams, too: before PyAV 18 these crash where
            # streams turn up late, as in MPEG and FLV.
            container: InputContainer = av.open(file, "r", container_options=options, **arguments)
            return container
        except av.FFmpegError as error:
            if error.errno != errno.EINVAL:
                raise
            raise DecodeError("unreadable", _REFUSED) from error


def _choose_stream(container: InputContainer) -> VideoStream:
    videos = container.streams.video
    films = [s for s in videos if not s.disposition & Disposition.attached_pic]
    if not films:
        what = "only a cover picture" if videos else "no video stream"
        raise DecodeError("no video", f"the file has {what}")
    best = container.streams.best("video")
    stream = next((s for s in films if s is best), films[0])
    if stream.codec_context is None:
        raise DecodeError("unreadable", "FFmpeg knows no decoder for the video stream")
    return stream


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse pictures that are too large.

    Raises:
        DecodeError: With the size and the limit.
    """
    if width * height > max_pixels:
        raise DecodeError("too large", f"{width}x{height} pixels, the limit is {max_pixels}")


def rational(value: Any, otherwise: Fraction) -> Fraction:
    """Return a number of FFmpeg's; PyAV up to 18 says None where it is unknown, 19 says 0."""
    return Fraction(value.numerator, value.denominator) if value else otherwise


def frame_rate(stream: VideoStream) -> Fraction:
    """Return frames per second, as FFmpeg sees it; 25 where nothing tells.

    The average alone is 60,000 for DV, and nothing for Ogg.
    """
    average = rational(stream.average_rate, Fraction(25))
    return rational(stream.guessed_rate, average)


class Converter:
    """Turns the decoded frames of a stream into upright RGB with square pixels.

    Transparency is dropped.

    Args:
        stream: Says what shape a pixel has. Shapes that no camera has are taken for mistakes.
        resize: Gets the (width, height) of a frame as it is shown, before it is turned, and returns
            those wanted; None = as it is shown.
    """

    def __init__(
        self,
        stream: VideoStream,
        resize: Callable[[int, int], tuple[int, int]] | None = None,
    ) -> None:
        aspect = rational(stream.sample_aspect_ratio, Fraction(1))
        believable = 1 / Fraction(_MOST_UNEVEN) <= aspect <= _MOST_UNEVEN
        self._aspect = aspect if believable else Fraction(1)
        self._resize = resize
        self._reformatter = VideoReformatter()  # one for all frames: making its tables is slow

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size as it is shown of a coded picture; neither side becomes smaller."""
        return (
            max(width, round(width * self._aspect)),
            max(height, round(height / self._aspect)),
        )

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return (H, W, 3) uint8."""
        size = self.shown_size(frame.width, frame.height)
        size = self._resize(*size) if self._resize else size
        how: dict[str, Any] = {"width": size[0], "height": size[1], "format": "rgb24"}
        if size != (frame.width, frame.height):  # else it keeps the bits of all other programs
            how["interpolation"] = "BICUBIC"
        rgb = self._reformatter.reformat(frame, **how, **_ON_ONE_THREAD)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        pixels = rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3)
        # The tag is the angle, counter-clockwise, by which a player turns the picture.
        return np.rot90(pixels, round(frame.rotation / 90) % 4)
