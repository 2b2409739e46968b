"""A moment as a small film that any browser plays."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from vmm.data.decode import DecodeError, decode_parts
from vmm.data.times import frames_between, shown_at
from vmm.search.windows import DecodeParts

_RATE = 12
_SIDE = 480


def cut_moment(
    video: bytes | Path, start: float, end: float, decode: DecodeParts = decode_parts
) -> bytes:
    """Cut a moment out of a video: MP4, H.264, no sound, at most 12 frames per second, small.

    Args:
        video: The file, or its content.
        start: Seconds.
        end: Seconds.
        decode: Where to decode.

    Returns:
        The file.

    Raises:
        DecodeError: If the video cannot be decoded, or there is no such moment.
        OSError: If it cannot be read.
    """

    def choose(times: np.ndarray) -> list[list[int]]:
        try:
            first, last = frames_between(times, start, end)
        except ValueError as error:
            raise DecodeError("bad window", str(error)) from error
        wanted = times[first] + np.arange(max(round((end - start) * _RATE), 1)) / _RATE
        # A part for each: so few are in memory.
        return [[i] for i in shown_at(times[:last], wanted)]

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream: VideoStream | None = None
        for frames in decode(video, choose):
            if stream is None:
                height, width = frames.shape[1:3]
                scale = min(1.0, _SIDE / max(height, width))
                stream = output.add_stream("libx264", rate=Fraction(_RATE))
                stream.width, stream.height = (
                    max(2, round(n * scale / 2) * 2) for n in (width, height)
                )
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "23", "preset": "veryfast"}
            frame = av.VideoFrame.from_ndarray(frames[0], format="rgb24")
            output.mux(stream.encode(frame.reformat(stream.width, stream.height)))
        if stream is not None:
            output.mux(stream.encode(None))
    return buffer.getvalue()
