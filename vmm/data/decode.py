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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageOps
from torch import Tensor

Reason = Literal["empty", "unreadable", "no video", "no frames", "too large", "too long"]

MAX_PIXELS = 4096 * 4096
MAX_FRAMES = 100_000
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
# Codecs of which every packet shows exactly one frame, so that packets can be counted instead.
_ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "mjpeg", "png"})
# Seen from PyAV and Pillow on 3,000 damaged files each; FFmpegError is an OSError or ValueError
# in most but not all cases.
_LIBRARY_ERRORS = (
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
    choose: Callable[[int], Sequence[int]],
    *,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> Tensor:
    """Decode chosen frames of a video.

    Args:
        data: The file: MP4, MOV, WebM, MKV, AVI or GIF.
        choose: Gets the number of frames, returns the indices wanted, in presentation order;
            repeats are allowed.
        max_pixels: Refuse larger frames.
        max_frames: Refuse longer videos.

    Returns:
        (T, C, H, W) uint8 RGB, upright (a rotation tag is applied).

    Raises:
        DecodeError: If the video cannot be decoded or exceeds a limit.
    """
    if not data:
        raise DecodeError("empty", "0 bytes")
    with _open(data, max_pixels) as (container, stream):
        with _library_errors():
            times, packets = _packets(container, stream, max_frames)
        if times is not None:
            wanted = [times[i] for i in choose(len(times))]
            with _library_errors():
                found = _decode_groups(stream, packets, set(wanted))
            if len(found) == len(set(wanted)):
                return _stack([found[time] for time in wanted])
    return _decode_everything(data, choose, max_pixels, max_frames)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a JPEG, PNG or WebP as a clip of one frame.

    Args:
        data: The file.
        max_pixels: Refuse larger pictures.

    Returns:
        (1, C, H, W) uint8 RGB, upright (the EXIF orientation is applied).

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
    except _LIBRARY_ERRORS as error:
        raise DecodeError("unreadable", f"{type(error).__name__}: {error}") from error


@contextmanager
def _open(data: bytes, max_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    with _library_errors():
        container = av.open(
            io.BytesIO(data),
            "r",
            options={"format_whitelist": _FORMATS},
            metadata_errors="ignore",
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


def _packets(
    container: InputContainer, stream: VideoStream, max_frames: int
) -> tuple[list[int] | None, list[Any]]:
    """Demux the stream.

    Returns:
        The presentation time of every shown frame, in order, or None if the packets do not tell;
        and the packets in decoding order.
    """
    packets = []
    for packet in container.demux(stream):
        if packet.size:
            packets.append(packet)
        if len(packets) > max_frames:
            raise DecodeError("too long", f"more than {max_frames} frames")
    shown = {p.pts for p in packets if p.pts is not None and not p.is_discard}
    usable = (
        stream.codec_context.name in _ONE_FRAME_PER_PACKET
        and bool(shown)
        and packets[0].is_keyframe
        and all(p.pts is not None for p in packets)
        and len(shown) == sum(not p.is_discard for p in packets)
    )
    return (sorted(shown) if usable else None), packets


def _decode_groups(
    stream: VideoStream, packets: list[Any], wanted: set[int]
) -> dict[int, np.ndarray]:
    """Decode the frames shown at the wanted times; a time that yields no frame is left out."""
    decoder = stream.codec_context
    reformatter = VideoReformatter()  # one for all frames: making its tables is slow
    found: dict[int, np.ndarray] = {}
    for first, end in _runs(packets, wanted):
        for packet in [*packets[first:end], None]:
            for frame in decoder.decode(packet):
                if frame.pts in wanted:
                    found[frame.pts] = _to_rgb(frame, reformatter)
        decoder.flush_buffers()
    return found


def _runs(packets: list[Any], wanted: set[int]) -> list[tuple[int, int]]:
    """Return the ranges [first, end) of packets that must be decoded to show the wanted times."""
    runs: list[tuple[int, int]] = []
    keys: list[int] = []
    for position, packet in enumerate(packets):
        if packet.is_keyframe:
            keys.append(position)
        if packet.pts not in wanted:
            continue
        # Frames shown before the key frame that precedes them in the stream (an open group of
        # pictures) refer to the group before it.
        first = next((k for k in reversed(keys) if packets[k].pts <= packet.pts), keys[0])
        if runs and first < runs[-1][1]:
            runs[-1] = (min(first, runs[-1][0]), position + 1)
        else:
            runs.append((first, position + 1))
    return runs


def _decode_everything(
    data: bytes, choose: Callable[[int], Sequence[int]], max_pixels: int, max_frames: int
) -> Tensor:
    """Decode twice: once to count the frames, once to keep the chosen ones."""
    with _open(data, max_pixels) as (container, stream), _library_errors():
        count = 0
        for _ in container.decode(stream):
            count += 1
            if count > max_frames:
                raise DecodeError("too long", f"more than {max_frames} frames")
    if not count:
        raise DecodeError("no frames", "the decoder returned none")
    wanted = list(choose(count))
    with _open(data, max_pixels) as (container, stream), _library_errors():
        keep, reformatter = set(wanted), VideoReformatter()
        found = {
            i: _to_rgb(frame, reformatter)
            for i, frame in enumerate(container.decode(stream))
            if i in keep
        }
    return _stack([found[i] for i in wanted])


def _to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Convert to (H, W, 3) uint8 and turn upright."""
    pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    # The tag is the angle, counter-clockwise, by which a player turns the picture.
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


def _stack(frames: list[np.ndarray]) -> Tensor:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise DecodeError("unreadable", f"frames of different sizes: {sorted(shapes)}")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
