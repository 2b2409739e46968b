"""Frames to H.264, to a film of JPEG pictures, and to JPEG. The same frames give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from PIL import Image

# Every frame on its own (an I frame) and equally well. Prediction from other frames lets sharpness
# drift along each group of pictures, at any lossy setting: a statistic that ignores the order of
# frames then told a clip from its time reversal in 80 to 90 % of pairs, and models that see no
# motion would not be at chance. Lossless coding has no such drift, but few browsers play it.
_DEMO = {
    "qp": "20",
    "aq-mode": "0",
    "keyint": "1",
    "cabac": "0",  # a little larger, decodes faster
    "threads": "1",
}
# Without "mbtree": with it about one short clip in 400 came out differently from run to run
# (x264 core 165, one thread, same input), which would make shards differ.
_VIDEO = {"crf": "23", "mbtree": "0", "threads": "1"}
# MP4 keeps any time scale; this one has whole numbers for 24, 25, 30, 50 and 60 frames per second.
_MP4_TIME_BASE = Fraction(1, 90000)
_MATROSKA_TIME_BASE = Fraction(1, 1000)

TimedFrames = Iterable[tuple[Fraction, np.ndarray]]
"""(Seconds from the start, (H, W, 3) uint8), in order."""


def encode_mp4(frames: np.ndarray, fps: int) -> bytes:
    """Encode frames as an H.264 MP4 in which no frame depends on another.

    Args:
        frames: (T, H, W, 3) uint8, even H and W.
        fps: Frames per second.

    Returns:
        The file.
    """
    timed = ((Fraction(number, fps), frame) for number, frame in enumerate(frames))
    return _encode_h264(timed, Fraction(fps), Fraction(1, fps), "superfast", _DEMO)


def encode_video(frames: TimedFrames, rate: Fraction, gop: int) -> bytes:
    """Encode frames as an H.264 MP4.

    Args:
        frames: At least one, of one even size. Their times may be uneven.
        rate: Nominal frames per second.
        gop: Most frames from one key frame to the next.

    Returns:
        The file.
    """
    return _encode_h264(frames, rate, _MP4_TIME_BASE, "veryfast", _VIDEO | {"keyint": str(gop)})


def encode_pictures(frames: TimedFrames, rate: Fraction, quality: int) -> bytes:
    """Put frames as JPEG pictures into a Matroska file: every frame can be read on its own.

    Args:
        frames: At least one, of one size. Matroska keeps their times to the millisecond.
        rate: Nominal frames per second.
        quality: Of JPEG, 1 to 95.

    Returns:
        The file.
    """
    buffer = io.BytesIO()
    # Without the flag every file gets a random number.
    with av.open(buffer, "w", "matroska", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.pix_fmt = "yuvj420p"
        for seconds, frame in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            packet = av.Packet(encode_jpeg(frame, quality))
            packet.stream = stream
            packet.time_base = _MATROSKA_TIME_BASE
            packet.pts = packet.dts = round(seconds / _MATROSKA_TIME_BASE)
            packet.is_keyframe = True
            container.mux(packet)
    return buffer.getvalue()


def encode_jpeg(frame: np.ndarray, quality: int = 95) -> bytes:
    """Encode one (H, W, 3) uint8 frame as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _encode_h264(
    frames: TimedFrames,
    rate: Fraction,
    time_base: Fraction,
    preset: str,
    x264: dict[str, str],
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = time_base
        stream.options = {
            "preset": preset,
            "x264-params": ":".join(f"{name}={value}" for name, value in x264.items()),
        }
        for frame in _with_times(frames, time_base):
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.height, frame.width
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _with_times(frames: TimedFrames, time_base: Fraction) -> Iterator[av.VideoFrame]:
    last = -1
    for seconds, pixels in frames:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        last = max(last + 1, round(seconds / time_base))  # no two frames at one time
        frame.pts, frame.time_base = last, time_base
        yield frame
