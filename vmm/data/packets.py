"""Which packets of a video must be decoded to show some of its frames.

A packet is one coded picture. Its presentation time says when the picture is shown; the order of
the packets is the order of decoding. To show a frame, the packets from the key frame before it up
to its own are decoded, less the pictures that no other refers to.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

VideoPacket: TypeAlias = "Packet[VideoStream]"  # generic in the stubs only

# Codecs of which every packet shows exactly one frame, so that packets can be counted instead. VP8
# (hidden frames are packets) and MPEG-4 (empty packets repeat a frame) are not among them.
_ONE_FRAME_PER_PACKET = frozenset(
    ("h264", "hevc", "vp9", "av1", "mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "png", "rawvideo")
)


class TooManyFrames(ValueError):
    """A video is longer than allowed."""


class Mark(NamedTuple):
    """What is kept of a packet where the packets themselves would not fit in memory."""

    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discard: bool


_UNKNOWN = -(2**63)  # FFmpeg's number for no time
_PIECE = 256
"""Packets of a film that are kept at once."""


class Marks(Sequence[Mark]):
    """The marks of a film's packets, 17 bytes each.

    Args:
        packets: In decoding order.
    """

    def __init__(self, packets: Iterable[VideoPacket]) -> None:
        self._pts, self._dts, self._flags = array("q"), array("q"), bytearray()
        for packet in packets:
            self._pts.append(_UNKNOWN if packet.pts is None else packet.pts)
            self._dts.append(_UNKNOWN if packet.dts is None else packet.dts)
            self._flags.append(packet.is_keyframe + 2 * packet.is_discard)

    def __len__(self) -> int:
        return len(self._flags)

    def __getitem__(self, index: int) -> Mark:  # type: ignore[override]  # no slices
        pts, dts, flags = self._pts[index], self._dts[index], self._flags[index]
        return Mark(
            None if pts == _UNKNOWN else pts,
            None if dts == _UNKNOWN else dts,
            bool(flags & 1),
            bool(flags & 2),
        )


class Timeline(NamedTuple):
    """What demuxing tells about a video."""

    packets: list[VideoPacket]
    """In decoding order."""
    shown: np.ndarray | None
    """(V,) int64: presentation times of all shown frames, increasing; None if the packets do not
    tell."""


def read_timeline(container: InputContainer, stream: VideoStream, max_frames: int) -> Timeline:
    """Demux a stream, which is cheap: nothing is decoded.

    Args:
        container: Open, at its start.
        stream: One of its streams.
        max_frames: Refuse longer videos.

    Returns:
        Packets and times. Packets that an edit list hides are there, for others refer to them, but
        are not shown.

    Raises:
        TooManyFrames: If there are more packets than ``max_frames``.
    """
    packets = list(_pictures(container, stream, max_frames))
    return Timeline(packets, _shown(packets, container, stream))


def read_marks(
    container: InputContainer, stream: VideoStream, max_frames: int
) -> tuple[Marks, np.ndarray | None]:
    """Do what ``read_timeline`` does without keeping the packets, for videos of any size.

    Returns:
        The marks, and (F,) which frames of a stream are shown; None = all.
    """
    marks = Marks(_pictures(container, stream, max_frames))
    return marks, _shown(marks, container, stream)


def demux(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """Yield the packets of a stream, and an empty one in the end.

    PyAV counts the streams of a file once. Where one more turns up on the way, as in MPEG and FLV,
    it may look for it among those it knows, after it has given all packets of this one.
    """
    ended = False
    try:
        for packet in container.demux(stream):
            ended = not packet.size and packet.pts is None
            yield packet
    except IndexError:
        if not ended:
            raise


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield all frames of a stream as they are shown."""
    for packet in demux(container, stream):
        yield from packet.decode()


def _pictures(
    container: InputContainer, stream: VideoStream, max_frames: int
) -> Iterator[VideoPacket]:
    count = 0
    for packet in demux(container, stream):
        if packet.size:
            count += 1
            yield packet
        if count > max_frames:
            raise TooManyFrames(f"more than {max_frames} frames")


def _shown(
    packets: Sequence[VideoPacket | Mark], container: InputContainer, stream: VideoStream
) -> np.ndarray | None:
    """Return the presentation times of all shown frames; None if the packets do not tell."""
    usable = (
        _one_frame_per_packet(stream)
        and bool(packets)
        and packets[0].is_keyframe
        and _keeps_time(packets, container, stream)
    )
    if not usable:
        return None
    shown = np.unique(np.array([p.pts for p in packets if not p.is_discard], np.int64))
    return shown if len(shown) else None


def keeps_time(container: InputContainer, stream: VideoStream, max_frames: int) -> bool:
    """Tell whether frames have times of their own, in order; where not, training numbers them.

    Args:
        container: As for ``read_timeline``.
        stream: As for ``read_timeline``.
        max_frames: As for ``read_timeline``.

    Raises:
        TooManyFrames: As ``read_timeline``.
    """
    return _keeps_time(Marks(_pictures(container, stream, max_frames)), container, stream)


def _keeps_time(
    packets: Sequence[VideoPacket | Mark], container: InputContainer, stream: VideoStream
) -> bool:
    codec = stream.codec_context.name
    # Badly written files have no presentation times either: theirs are of decoding.
    unordered = has_no_times(container, stream) or (
        codec in ("h264", "hevc")
        and stream.codec_context.has_b_frames
        and all(p.pts == p.dts for p in packets)
    )
    if unordered or not _goes_on(packets):
        return False
    times = [p.pts for p in packets if p.pts is None or not p.is_discard]
    distinct = set(times)
    return not _one_frame_per_packet(stream) or (
        len(distinct) == len(times) and None not in distinct
    )


def _one_frame_per_packet(stream: VideoStream) -> bool:
    codec = stream.codec_context.name
    return codec.removeprefix("lib").replace("dav1d", "av1") in _ONE_FRAME_PER_PACKET


def has_no_times(container: InputContainer, stream: VideoStream) -> bool:
    """Tell whether the times of a stream are of decoding: AVI has no others."""
    return container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc")


def _goes_on(packets: Iterable[VideoPacket | Mark]) -> bool:
    """Tell whether the clock never jumps back, as it does where recordings were put together."""
    times = [packet.dts for packet in packets if packet.dts is not None]
    return all(first <= second for first, second in pairwise(times))


def needed_packets(
    packets: Sequence[VideoPacket], wanted: set[int], codec: str, extradata: bytes | None
) -> Iterator[list[VideoPacket]]:
    """Find what must be decoded to show the frames of the wanted times.

    Args:
        packets: All packets, in decoding order, the first a key frame.
        wanted: Presentation times.
        codec: FFmpeg's name of the codec.
        extradata: The codec's configuration record.

    Yields:
        Packets to decode one after the other; the decoder is emptied in between.
    """
    droppable = _droppable(codec, extradata)
    for first, end in _runs(packets, wanted):
        yield _less_unused(packets[first:end], wanted, droppable)


def needed_from_stream(
    packets: Iterable[VideoPacket],
    marks: Sequence[Mark],
    wanted: set[int],
    codec: str,
    extradata: bytes | None,
) -> Iterator[VideoPacket | None]:
    """Do what ``needed_packets`` does while the packets pass by; few are kept, however many follow.

    Args:
        packets: All packets of the stream, in decoding order; empty ones are passed over.
        marks: Of the packets that are not empty, the first a key frame.
        wanted: Presentation times.
        codec: FFmpeg's name of the codec.
        extradata: The codec's configuration record.

    Yields:
        Packets to decode one after the other, and None where the decoder is to be emptied.
    """
    droppable = _droppable(codec, extradata)
    passing = enumerate(packet for packet in packets if packet.size)
    for first, end in _runs(marks, wanted):
        # Which picture of HEVC is of no use is known of a whole run only.
        in_run = droppable if codec == "h264" or end - first <= _PIECE else None
        piece: list[VideoPacket] = []
        for position, packet in passing:
            if position >= first:
                piece.append(packet)
            if position == end - 1 or len(piece) == _PIECE:
                yield from _less_unused(piece, wanted, in_run)
                piece.clear()
            if position == end - 1:
                break
        yield None


def _less_unused(
    run: Sequence[VideoPacket],
    wanted: set[int],
    droppable: Callable[[Sequence[VideoPacket]], list[bool]] | None,
) -> list[VideoPacket]:
    unused = droppable(run) if droppable else [False] * len(run)
    return [p for p, drop in zip(run, unused, strict=True) if p.pts in wanted or not drop]


def _runs(packets: Sequence[VideoPacket | Mark], wanted: set[int]) -> list[tuple[int, int]]:
    """Return the ranges [first, end) of packets that hold all that the wanted frames refer to."""
    runs: list[tuple[int, int]] = []
    keys: list[tuple[int, int]] = []  # position and time
    for position, packet in enumerate(packets):
        if packet.pts is None:
            continue
        if packet.is_keyframe:
            keys.append((position, packet.pts))
        if packet.pts not in wanted or packet.is_discard:
            continue
        # Frames shown before the key frame that precedes them in the stream (an open group of
        # pictures) refer to the group before it.
        first = next((k for k, pts in reversed(keys) if pts <= packet.pts), keys[0][0])
        while runs and first < runs[-1][1]:
            first = min(first, runs.pop()[0])
        runs.append((first, position + 1))
    return runs


def _droppable(
    codec: str, extradata: bytes | None
) -> Callable[[Sequence[VideoPacket]], list[bool]] | None:
    """Return what tells of each packet of a run whether none of the others refers to it."""
    header = extradata or b""
    # The record's version comes first (ISO/IEC 14496-15); else start codes separate the units.
    framed = header[:1] == b"\1"
    if codec == "h264":
        size = (header[4] & 3) + 1 if framed and len(header) > 4 else 0
        return lambda run: [_h264_unused(unit_headers(bytes(p), size)) for p in run]
    if codec == "hevc":
        size = (header[21] & 3) + 1 if framed and len(header) > 21 else 0
        return lambda run: _hevc_unused([unit_headers(bytes(p), size) for p in run])
    return None


def unit_headers(data: bytes, length_size: int) -> list[bytes]:
    """Return the first two bytes of every NAL unit of an H.264 or HEVC packet.

    Args:
        data: The packet.
        length_size: Bytes of the length before each unit; 0 = units after start codes (Annex B).

    Returns:
        The headers; none if the lengths do not add up to the packet.
    """
    headers = []
    if length_size:
        position = 0
        while position + length_size < len(data):
            start = position + length_size
            length = int.from_bytes(data[position:start], "big")
            if length == 0:
                return []
            headers.append(data[start : start + 2])
            position = start + length
        return headers if position == len(data) else []
    position = data.find(b"\0\0\1")
    while position >= 0:
        headers.append(data[position + 3 : position + 5])
        position = data.find(b"\0\0\1", position + 3)
    return headers


def _h264_unused(headers: Sequence[bytes]) -> bool:
    """Tell whether all slices of a picture have nal_ref_idc 0 (ITU-T H.264, 7.4.1)."""
    slices = [h[0] for h in headers if h and 1 <= h[0] & 31 <= 5]
    return bool(slices) and not any(h >> 5 & 3 for h in slices)


def _hevc_unused(run: Sequence[Sequence[bytes]]) -> list[bool]:
    """Tell which pictures of a run are of no use to the others (ITU-T H.265, 7.4.2.2).

    Even types below 16 are "sub-layer non-reference": only higher temporal layers may refer to
    them. So those of the highest layer are of no use to any other.
    """
    slices = [[h for h in headers if len(h) == 2 and h[0] >> 1 & 63 < 32] for headers in run]
    if not all(slices):
        return [False] * len(run)
    top = max(h[1] & 7 for headers in slices for h in headers)
    return [
        all(h[0] >> 1 & 63 in range(0, 16, 2) and h[1] & 7 == top for h in headers)
        for headers in slices
    ]
