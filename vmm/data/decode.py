"""Bytes to frames: one exact path for video (PyAV) and one for images (Pillow).

A video is demuxed once, which is cheap, to learn the presentation time of every frame; then only
the groups of pictures that hold a wanted frame are decoded, each from its key frame up to the last
wanted frame. The frames are bit for bit those of a full decode. Where a container or codec does not
allow this (no or repeated timestamps, packets that show no frame), everything is decoded.

Nothing here trusts the bytes: unusual formats are refused, sizes are capped, and whatever the
libraries raise arrives as a ``DecodeError``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from vmm.data.packets import (
    Mark,
    TooManyFrames,
    VideoPacket,
    needed_from_stream,
    needed_packets,
    read_marks,
    read_timeline,
)

Decoder = Literal["pyav", "torchcodec"]
Choose = Callable[[np.ndarray], Sequence[int]]
ChooseParts = Callable[[np.ndarray], Sequence[Sequence[int]]]
Reason = Literal[
    "empty",
    "unreadable",
    "no video",
    "no frames",
    "too large",
    "too long",
    "bad window",
    "no question",
    "hung",
    "crashed",
]

MAX_PIXELS = 4096 * 4096
MAX_FRAMES = 100_000
MAX_STREAMED_FRAMES = 2_000_000
"""18 hours at 30 frames per second; a frame's times take 150 bytes."""
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
# Seen from PyAV and Pillow on 3,000 damaged files each; FFmpegError is an OSError or ValueError
# in most but not all cases.
LIBRARY_ERRORS = (
    av.FFmpegError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class DecodeError(ValueError):
    """A video or image cannot be used.

    Args:
        reason: The kind, to count by.
        detail: What happened.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def decode_video(
    data: bytes,
    choose: Choose,
    *,
    decoder: Decoder = "pyav",
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> np.ndarray:
    """Decode chosen frames of a video.

    Args:
        data: The file: MP4, MOV, WebM, MKV, AVI or GIF.
        choose: Gets when each frame is shown, (V,) float64 seconds, increasing; returns the numbers
            of the frames wanted, in any order; repeats are allowed. It is called again if
            there turn out to be more or fewer frames.
        decoder: "torchcodec" gives the same frames with the FFmpeg of the system; its colours may
            differ where the picture is interlaced, of odd size or not 8 bit 4:2:0.
        max_pixels: Refuse larger frames.
        max_frames: Refuse longer videos.

    Returns:
        (T, H, W, 3) uint8 RGB, upright (a rotation tag is applied).

    Raises:
        DecodeError: If the video cannot be decoded or exceeds a limit.
        ValueError: If torchcodec is asked for and does not run here.
    """
    if not data:
        raise DecodeError("empty", "0 bytes")
    with _open(data, max_pixels) as (container, stream):
        with _library_errors():
            packets, shown = read_timeline(container, stream, max_frames)
        if shown is not None:
            numbers = list(choose(np.array(shown) * float(stream.time_base or 1)))
            frames = _decode_with_torchcodec(data, numbers) if decoder == "torchcodec" else None
            if frames is None:
                frames = _decode_groups(stream, packets, [shown[i] for i in numbers])
            if frames is not None:
                return frames
            # Choose once, unless the number of frames was wrong.
            first_choice, count = choose, len(shown)
            choose = lambda t: numbers if len(t) == count else first_choice(t)  # noqa: E731
    return _decode_everything(data, choose, max_pixels, max_frames)


def decode_parts(
    video: bytes | Path,
    choose: ChooseParts,
    *,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_STREAMED_FRAMES,
) -> Iterator[np.ndarray]:
    """Decode chosen frames of several parts of a video of any length, one part after the other.

    The frames are those of ``decode_video``. In memory are the frames of the parts that overlap, a
    group of pictures, and the times of all frames; each frame is decoded once.

    Args:
        video: The file, or its content.
        choose: Gets when each frame is shown, as for ``decode_video``; returns the numbers of the
            frames wanted of each part. Neither the first numbers nor the last ones of the parts may
            decrease from part to part.
        max_pixels: Refuse larger frames.
        max_frames: Refuse longer videos.

    Yields:
        (T, H, W, 3) uint8 RGB, upright, for each part.

    Raises:
        DecodeError: If the video cannot be decoded, perhaps only from some part on, or exceeds a
            limit.
        OSError: If the file cannot be read.
    """
    if not (len(video) if isinstance(video, bytes) else video.stat().st_size):
        raise DecodeError("empty", "0 bytes")
    with _open(video, max_pixels) as (container, stream):
        with _library_errors():
            marks, shown = read_marks(container, stream, max_frames)
        time_base = float(stream.time_base or 1)
    done = 0
    if shown is not None:
        parts = [[shown[i] for i in part] for part in choose(np.array(shown) * time_base)]
        for frames in _stacked(_stream_groups(video, marks, parts, max_pixels), parts):
            yield frames
            done += 1
        if done == len(parts):
            return
    times = _times(video, max_pixels, max_frames)
    numbers = choose(times)[done:]
    for frames in _stacked(_stream_everything(video, numbers, max_pixels), numbers):
        yield frames
        done += 1
    if done < len(choose(times)):
        raise DecodeError("unreadable", "frames are missing")


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a JPEG, PNG or WebP as a clip of one frame.

    Args:
        data: The file.
        max_pixels: Refuse larger pictures.

    Returns:
        (1, H, W, 3) uint8 RGB, upright (the EXIF orientation is applied).

    Raises:
        DecodeError: If the picture cannot be decoded or exceeds the limit.
    """
    if not data:
        raise DecodeError("empty", "0 bytes")
    with (
        _library_errors(),
        Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image,
    ):
        _check_size(image.width, image.height, max_pixels)
        pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return _stack([pixels])


@contextmanager
def _library_errors() -> Iterator[None]:
    """Turn whatever the decoding libraries raise into a ``DecodeError``."""
    try:
        yield
    except DecodeError:
        raise
    except TooManyFrames as error:
        raise DecodeError("too long", str(error)) from error
    except LIBRARY_ERRORS as error:
        raise DecodeError("unreadable", f"{type(error).__name__}: {error}") from error


@contextmanager
def _open(video: bytes | Path, max_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    # Files are opened here: FFmpeg would take some names for addresses.
    with io.BytesIO(video) if isinstance(video, bytes) else video.open("rb") as file:
        with _library_errors():
            container = av.open(
                file, "r", options={"format_whitelist": _FORMATS}, metadata_errors="ignore"
            )
        try:
            with _library_errors():
                if not container.streams.video:
                    raise DecodeError("no video", "the file has no video stream")
                stream = container.streams.video[0]
                # One thread per decoder: the loader has a process per core already.
                stream.thread_type = "NONE"
                stream.codec_context.options = {"max_pixels": str(max_pixels)}
                _check_size(stream.width, stream.height, max_pixels)
            yield container, stream
        finally:
            container.close()


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError("too large", f"{width}x{height} pixels, the limit is {max_pixels}")


def _decode_groups(
    stream: VideoStream, packets: list[VideoPacket], times: list[int]
) -> np.ndarray | None:
    """Decode the frames shown at some times; None if the stream does not yield all."""
    wanted = set(times)
    decoder = stream.codec_context
    reformatter = VideoReformatter()  # one for all frames: making its tables is slow
    found: dict[int, np.ndarray] = {}
    try:
        for run in needed_packets(packets, wanted, decoder.name, decoder.extradata):
            for packet in (*run, None):
                for frame in decoder.decode(packet):
                    if frame.pts in wanted:
                        found[frame.pts] = _to_rgb(frame, reformatter)
            decoder.flush_buffers()
    except LIBRARY_ERRORS:
        # Damaged, or a key frame that is none: decoding from the start tells which.
        return None
    return _stack([found[time] for time in times]) if len(found) == len(wanted) else None


def _stream_groups(
    video: bytes | Path, marks: list[Mark], parts: list[list[int]], max_pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (presentation time, frame) of the wanted frames; stops where one is not found."""
    wanted = set().union(*parts)
    with _open(video, max_pixels) as (container, stream):
        decoder, reformatter = stream.codec_context, VideoReformatter()
        packets = container.demux(stream)
        try:
            for run in needed_from_stream(packets, marks, wanted, decoder.name, decoder.extradata):
                missing = {packet.pts for packet in run} & wanted
                for packet in (*run, None):
                    for frame in decoder.decode(packet):
                        if frame.pts is not None and frame.pts in missing:
                            missing.remove(frame.pts)
                            yield frame.pts, _to_rgb(frame, reformatter)
                if missing:
                    return
                decoder.flush_buffers()
        except LIBRARY_ERRORS:
            return


def _stacked(
    frames: Iterable[tuple[int, np.ndarray]], parts: Sequence[Sequence[int]]
) -> Iterator[np.ndarray]:
    """Collect frames, named in increasing order, into parts; ends where a part lacks one."""
    pending = deque(parts)
    found: dict[int, np.ndarray] = {}
    for name, frame in frames:
        found[name] = frame
        while pending and name >= max(pending[0]):
            if not found.keys() >= set(pending[0]):
                return
            yield _stack([found[i] for i in pending.popleft()])
            first = min(pending[0]) if pending else name
            found = {i: frame for i, frame in found.items() if i >= first}


def _decode_everything(data: bytes, choose: Choose, max_pixels: int, max_frames: int) -> np.ndarray:
    """Decode twice: once to learn when frames are shown, once to keep the chosen ones."""
    numbers = choose(_times(data, max_pixels, max_frames))
    found = dict(_stream_everything(data, [numbers], max_pixels))
    return _stack([found[i] for i in numbers])


def _times(video: bytes | Path, max_pixels: int, max_frames: int) -> np.ndarray:
    """Learn when frames are shown by decoding all of them."""
    times: list[float | None] = []
    with _open(video, max_pixels) as (container, stream), _library_errors():
        for frame in container.decode(stream):
            times.append(frame.time)
            if len(times) > max_frames:
                raise DecodeError("too long", f"more than {max_frames} frames")
        rate = float(stream.average_rate or 25)
    if not times:
        raise DecodeError("no frames", "the decoder returned none")
    return _increasing(times, rate)


def _stream_everything(
    video: bytes | Path, parts: Sequence[Sequence[int]], max_pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, frame) of the wanted frames."""
    wanted: set[int] = set().union(*parts)
    end, reformatter = max(wanted, default=-1) + 1, VideoReformatter()
    with _open(video, max_pixels) as (container, stream), _library_errors():
        for number, frame in enumerate(islice(container.decode(stream), end)):
            if number in wanted:
                yield number, _to_rgb(frame, reformatter)


def _increasing(times: list[float | None], rate: float) -> np.ndarray:
    """Return the times as they are, or by the frame rate if they are missing or not in order."""
    seconds = np.array(times, np.float64)  # None becomes NaN
    if np.all(np.isfinite(seconds)) and np.all(np.diff(seconds) > 0):
        return seconds
    return np.arange(len(times)) / rate


def _decode_with_torchcodec(data: bytes, numbers: list[int]) -> np.ndarray | None:
    """Decode numbered frames; None if torchcodec fails, as it does on open groups of pictures."""
    try:
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=1)
        frames: np.ndarray = video.get_frames_at(numbers).data.numpy()
    except ImportError as error:
        raise ValueError("torchcodec is not installed; install it or use decoder: pyav") from error
    except LIBRARY_ERRORS as error:
        if "libtorchcodec" in str(error):
            raise ValueError(
                "torchcodec finds no FFmpeg 4 to 9; install one or use decoder: pyav"
            ) from error
        return None
    return frames


def _to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Convert to (H, W, 3) uint8 and turn upright."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    pixels = rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3)
    # The tag is the angle, counter-clockwise, by which a player turns the picture.
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise DecodeError("unreadable", f"frames of different sizes: {sorted(shapes)}")
    return np.stack(frames)
