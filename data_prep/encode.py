"""Frames to H.264 and JPEG bytes."""

from __future__ import annotations

import io

import av
import numpy as np
from PIL import Image

# Every frame on its own (an I frame) and equally well. Prediction from other frames lets sharpness
# drift along each group of pictures, at any lossy setting: a statistic that ignores the order of
# frames then told a clip from its time reversal in 80 to 90 % of pairs, and models that see no
# motion would not be at chance. Lossless coding has no such drift, but few browsers play it.
_X264 = {
    "qp": "20",
    "aq-mode": "0",
    "keyint": "1",
    "cabac": "0",  # a little larger, decodes faster
    "threads": "1",
}


def encode_mp4(frames: np.ndarray, fps: int) -> bytes:
    """Encode frames as an H.264 MP4 in which no frame depends on another.

    The same frames give the same bytes with one version of x264.

    Args:
        frames: (T, H, W, 3) uint8, even H and W.
        fps: Frames per second.

    Returns:
        The file.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {
            "preset": "superfast",
            "x264-params": ":".join(f"{name}={value}" for name, value in _X264.items()),
        }
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def encode_jpeg(frame: np.ndarray, quality: int = 95) -> bytes:
    """Encode one (H, W, 3) uint8 frame as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
