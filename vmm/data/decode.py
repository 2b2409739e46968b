"""Video files to frames: one exact path (PyAV), for clips and for films of any length.

A video is demuxed once, which is cheap, to learn the presentation time of every frame; then only
the groups of pictures that hold a wanted frame are decoded, each from its key frame up to the last
wanted frame. The frames are bit for bit those of a full decode. Where a container or codec does not
allow this (no or repeated timestamps, packets that show no frame), everything is decoded.

Times count from the first frame, whatever the file starts with. Pictures are upright, their pixels
square: a rotation tag and a sample aspect ratio are applied (``vmm.data.containers``).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from av.video.stream import VideoStream

# The errors belong to this module's interface.
from vmm.data.containers import (
    LIBRARY_ERRORS,
    MAX_PIXELS,
    Converter,
    frame_rate,
    library_errors,
    open_video,
    rational,
)
from vmm.data.containers import DecodeError as DecodeError
from vmm.data.cut_off import refuse_part
from vmm.data.packets import (
    Marks,
    VideoPacket,
    decoded,
    demux,
    needed_from_stream,
    needed_packets,
    read_marks,
    read_timeline,
)
from vmm.data.times import end_of, shown_at

Decoder = Literal["pyav", "torchcodec"]
Choose = Callable[[np.ndarray], Sequence[int]]
ChooseParts = Callable[[np.ndarray], Sequence[Sequence[int]]]

MAX_FRAMES = 100_000
MAX_STREAMED_FRAMES = 2_000_000
"""9 hours at 60 frames per second; a frame's times take 25 bytes."""
_PORTION = 16
"""Frames of a film that are in memory at once."""


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
        data: The file, of the ``VIDEO_FORMATS`` of ``vmm.data.schema``; its name does not matter.
        choose: Gets when each frame is shown, (V,) float64 seconds, increasing from 0; returns the
            numbers of the frames wanted, in any order; repeats are allowed. It is called again if
            there turn out to be more or fewer frames.
        decoder: "torchcodec" gives the same frames with the FFmpeg of the system; its colours may
            differ where the picture is interlaced, of odd size or not 8 bit 4:2:0.
        max_pixels: Refuse larger frames.
        max_frames: Refuse longer videos.

    Returns:
        (T, H, W, 3) uint8 RGB, upright, square pixels.

    Raises:
        DecodeError: If the video cannot be decoded or exceeds a limit.
        ValueError: If torchcodec is asked for and does not run here.
    """
    with open_video(data, max_pixels) as (container, stream):
        refuse_part(data)
        with library_errors():
            packets, shown = read_timeline(container, stream, max_frames)
        if shown is not None:
            numbers = list(choose(_seconds(shown, stream)))
            frames = _with_torchcodec(data, stream, numbers) if decoder == "torchcodec" else None
            if frames is None:
                frames = _decode_groups(stream, packets, shown[numbers].tolist())
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
    with open_video(video, max_pixels) as (container, stream):
        with library_errors():
            marks, shown = read_marks(container, stream, max_frames)
        seconds = None if shown is None else _seconds(shown, stream)
    done = 0
    if shown is not None and seconds is not None:
        parts = [shown[list(part)].tolist() for part in choose(seconds)]
        for frames in _stacked(_stream_groups(video, marks, parts, max_pixels), parts):
            yield frames
            done += 1
        if done == len(parts):
            return
    numbers = choose(_times(video, max_pixels, max_frames))
    rest = numbers[done:]
    for frames in _stacked(_stream_everything(video, rest, max_pixels), rest):
        yield frames
        done += 1
    if done < len(numbers):
        raise DecodeError("unreadable", "frames are missing")


class Film(NamedTuple):
    """Some frames of a video of any length."""

    seconds: np.ndarray
    """(S,) float64: when they are shown."""
    duration: float
    """Seconds from the first frame of the file to the end of the last."""
    portions: Iterator[np.ndarray]
    """The frames, (t, H, W, 3) uint8 at a time; S in all, or a ``DecodeError`` on the way."""


def read_film(
    video: bytes | Path,
    choose: Choose,
    *,
    portion: int = _PORTION,
    max_frames: int = MAX_STREAMED_FRAMES,
) -> Film:
    """Read some frames of a video of any length in one pass, in bounded memory.

    Args:
        video: The file, of which no more is read at once than a group of pictures, or its content.
        choose: As for ``decode_video``, but the numbers must not decrease and there must be one.
        portion: Frames that are given at once.
        max_frames: Refuse longer videos.

    Raises:
        DecodeError: As ``decode_parts``, for the first portion.
        OSError: As ``decode_parts``.
    """
    seconds, duration = np.empty(0), 0.0

    def parts(times: np.ndarray) -> list[list[int]]:
        nonlocal seconds, duration
        if len(seconds):  # there are other frames than it seemed, at much the same times
            chosen = shown_at(times, seconds)
        else:
            chosen = list(choose(times))
            seconds, duration = times[chosen], end_of(times) - float(times[0])
        return [chosen[i : i + portion] for i in range(0, len(chosen), portion)]

    decoded = decode_parts(video, parts, max_frames=max_frames)
    first = next(decoded)
    refuse_part(video)
    return Film(seconds, duration, chain([first], decoded))


def _decode_groups(
    stream: VideoStream, packets: list[VideoPacket], times: list[int]
) -> np.ndarray | None:
    """Decode the frames shown at some times; None if the stream does not yield all."""
    wanted = set(times)
    decoder, convert = stream.codec_context, Converter(stream)
    found: dict[int, np.ndarray] = {}
    try:
        for run in needed_packets(packets, wanted, decoder.name, decoder.extradata):
            for packet in (*run, None):
                for frame in decoder.decode(packet):
                    if frame.pts in wanted:
                        found[frame.pts] = convert(frame)
            decoder.flush_buffers()
    except LIBRARY_ERRORS:
        # Damaged, or a key frame that is none: decoding from the start tells which.
        return None
    return _stack([found[time] for time in times]) if len(found) == len(wanted) else None


def _stream_groups(
    video: bytes | Path, marks: Marks, parts: list[list[int]], max_pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (presentation time, frame) of the wanted frames; stops where one is not found."""
    wanted: set[int] = set().union(*parts)
    missing: set[int] = set()
    with open_video(video, max_pixels) as (container, stream):
        decoder, convert = stream.codec_context, Converter(stream)
        packets = demux(container, stream)
        try:
            for packet in needed_from_stream(
                packets, marks, wanted, decoder.name, decoder.extradata
            ):
                if packet is not None and packet.pts in wanted:
                    missing.add(packet.pts)
                for frame in decoder.decode(packet):
                    if frame.pts is not None and frame.pts in missing:
                        missing.remove(frame.pts)
                        yield frame.pts, convert(frame)
                if packet is None:
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
    times = array("q")
    complete = True
    with open_video(video, max_pixels) as (container, stream), library_errors():
        for frame in decoded(container, stream):
            complete = complete and frame.pts is not None
            times.append(frame.pts or 0)
            if len(times) > max_frames:
                raise DecodeError("too long", f"more than {max_frames} frames")
        shown, rate = np.array(times, np.int64), frame_rate(stream)
        if not len(shown):
            raise DecodeError("no frames", "the decoder returned none")
        if complete and np.all(np.diff(shown) > 0):
            return _seconds(shown, stream)
        return np.arange(len(shown)) / float(rate)  # times are missing or not in order


def _seconds(shown: np.ndarray, stream: VideoStream) -> np.ndarray:
    """Return times of presentation in seconds since the first."""
    seconds: np.ndarray = (shown - shown[0]) * float(rational(stream.time_base, Fraction(1)))
    return seconds


def _stream_everything(
    video: bytes | Path, parts: Sequence[Sequence[int]], max_pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, frame) of the wanted frames."""
    wanted: set[int] = set().union(*parts)
    end = max(wanted, default=-1) + 1
    with open_video(video, max_pixels) as (container, stream), library_errors():
        convert = Converter(stream)
        for number, frame in enumerate(islice(decoded(container, stream), end)):
            if number in wanted:
                yield number, convert(frame)


def _with_torchcodec(data: bytes, stream: VideoStream, numbers: list[int]) -> np.ndarray | None:
    """Decode numbered frames; None where PyAV must: torchcodec cannot, or not in this shape."""
    size = stream.width, stream.height
    if Converter(stream).shown_size(*size) != size:
        return None
    try:
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(
            data, stream_index=stream.index, dimension_order="NHWC", num_ffmpeg_threads=1
        )
        frames: np.ndarray = video.get_frames_at(numbers).data.numpy()
    except ImportError as error:
        raise ValueError("torchcodec is not installed; install it or use decoder: pyav") from error
    except (RuntimeError, ValueError, IndexError, OSError) as error:  # of damage, of open groups
        if "libtorchcodec" in str(error):
            raise ValueError(
                "torchcodec finds no FFmpeg 4 to 9; install one or use decoder: pyav"
            ) from error
        return None
    return frames


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise DecodeError("unreadable", f"frames of different sizes: {sorted(shapes)}")
    return np.stack(frames)
