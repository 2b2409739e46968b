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
from av.video.stream import VideoStream
from PIL import Image

from vmm.data import containers
from vmm.data.containers import Converter, frame_rate, library_errors, rational
from vmm.data.decode import MAX_FRAMES, MAX_STREAMED_FRAMES, decode_parts
from vmm.data.faults import SampleError
from vmm.data.packets import decoded, keeps_time
from vmm.data.pictures import read_picture
from vmm.data.times import frames_between


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
    """An open video. Times count from its first frame.

    Args:
        container: The open file.
        stream: The one to read.
        counted: Whether frames are numbered, as training does where their times are not in order:
            AVI has none of presentation, and clocks jump where recordings were put together.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, counted: bool) -> None:
        self._container = container
        self.stream = stream
        self._time_base = rational(stream.time_base, Fraction(1, av.time_base))
        self._origin: Fraction | None = None
        self._counted = counted

    @property
    def rate(self) -> Fraction:
        """Frames per second on average; 25 where the file does not say."""
        return frame_rate(self.stream)

    @property
    def duration(self) -> float | None:
        """Seconds, by the stream or else the file."""
        if self.stream.duration:
            return float(self.stream.duration * self._time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def shown_for(self, frame: VideoFrame) -> Fraction:
        """Return how long a frame stays on display, seconds."""
        if self._counted:
            return 1 / self.rate
        return frame.duration * self._time_base if frame.duration else 1 / self.rate

    def frames(
        self, start: float | None = None, end: float | None = None
    ) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Yield (seconds since the first of them, frame) for all that are shown in a window.

        Args:
            start: Seconds into the video; the frame shown then is the first.
            end: Seconds into the video; the frame that appears then is no longer part of it.
        """
        begin, until = _exactly(start), _exactly(end)
        held: tuple[Fraction, VideoFrame] | None = None  # the last frame before the window
        first: Fraction | None = None
        for time, frame in self._from(begin):
            if until is not None and time >= until:
                break
            if begin is not None and time < begin:
                held = time, frame
                continue
            if first is None and held is not None and begin is not None and time > begin:
                first = begin
                yield Fraction(0), held[1]
            first = time if first is None else first
            yield time - first, frame
        else:
            if first is None and held is not None and start is not None and self._reaches(start):
                yield Fraction(0), held[1]

    def _reaches(self, start: float) -> bool:
        """Tell whether the last frame is still shown; what the header says may be wrong."""
        self._container.seek(0)
        times = np.array([float(time) for time, _ in self._decode()])
        try:
            frames_between(times, start, None)
        except ValueError:
            return False
        return True

    def _from(self, start: Fraction | None) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Decode from the key frame before a time on, or from the first frame."""
        if start is not None and start > 1 and not self._counted:
            if self._origin is None:
                next(self._decode(), None)  # learns it
            offset = int((start + (self._origin or 0)) / self._time_base)
            self._container.seek(offset, stream=self.stream)
            frames = self._decode()
            first = next(frames, None)
            if first is not None and first[0] <= start:
                yield first
                yield from frames
                return
        if self._origin is not None:  # some frames have been taken
            self._container.seek(0)
        yield from self._decode()

    def _decode(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        time = Fraction(0)
        for frame in decoded(self._container, self.stream):
            if frame.pts is not None and not self._counted:
                time = frame.pts * self._time_base
            if self._origin is None:
                self._origin = time
            yield time - self._origin, frame
            time += 1 / self.rate


def _exactly(seconds: float | None) -> Fraction | None:
    """Return a time to the microsecond: as a float, 0.2 is a little more than a fifth."""
    return None if seconds is None else Fraction(round(seconds * 10**6), 10**6)


@contextmanager
def open_video(file: Path | Any, exact: bool = True) -> Iterator[VideoFile]:
    """Open a video.

    Args:
        file: Path or binary file.
        exact: Look through the whole file first, to give frames the times that training sees.

    Raises:
        SampleError: If it is no video; also for errors while it is open.
    """
    counted = False
    with library_errors():
        if exact:
            with containers.open_video(file) as (container, stream):
                counted = not keeps_time(container, stream, MAX_STREAMED_FRAMES)
            if not isinstance(file, Path):
                file.seek(0)
        with containers.open_video(file) as (container, stream):
            yield VideoFile(container, stream, counted)


def try_video(file: Path, start: float | None, end: float | None) -> None:
    """Decode a frame of a video in the way that training will.

    Args:
        file: The video.
        start: Seconds at which the part begins that is trained on.
        end: Seconds at which it ends.

    Raises:
        SampleError: If that cannot be done.
    """

    def middle(times: np.ndarray) -> list[list[int]]:
        try:
            first, last = frames_between(times, -math.inf if start is None else start, end)
        except ValueError as error:
            raise SampleError("bad window", str(error)) from error
        return [[(first + last) // 2]]

    with library_errors():
        next(decode_parts(file, middle, max_frames=MAX_FRAMES))


def video_properties(video: VideoFile) -> tuple[Properties, VideoFrame]:
    """Decode one frame to see that it works, and tell what the video is.

    Raises:
        SampleError: If there is no frame.
    """
    _, frame = next(video.frames(), (None, None))
    if frame is None:
        raise SampleError("no frames", "the decoder returned none")
    width, height = Converter(video.stream).shown_size(frame.width, frame.height)
    if round(frame.rotation / 90) % 2:
        width, height = height, width
    codec = video.stream.codec_context.name
    return Properties(width, height, codec, video.duration, float(video.rate)), frame


def read_image(file: Path | Any) -> tuple[Properties, Image.Image]:
    """Read a picture, upright, as RGB.

    Raises:
        SampleError: If it is none.
    """
    with library_errors():
        kind, picture = read_picture(file)
    return Properties(picture.width, picture.height, kind.lower()), picture


def target_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return even sides, the shorter one at most ``short_side``; nothing is enlarged."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    # The small number undoes rounding: 853 * (480 / 480) / 2 must not fall below a whole number.
    return max(2, 2 * int(width * scale / 2 + 1e-6)), max(2, 2 * int(height * scale / 2 + 1e-6))


class Shrinker:
    """Turns decoded frames into upright RGB with a given short side.

    Args:
        stream: Where the frames come from.
        short_side: Pixels; None = as it is.
    """

    def __init__(self, stream: VideoStream, short_side: int | None) -> None:
        self._convert = Converter(stream, self._target)
        self._short_side = short_side
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return (H, W, 3) uint8, H and W even and those of the first frame."""
        return np.ascontiguousarray(self._convert(frame))

    def _target(self, width: int, height: int) -> tuple[int, int]:
        if self._size is None:
            self._size = target_size(width, height, self._short_side)
        return self._size


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
