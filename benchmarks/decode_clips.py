"""Clips for the benchmark of decoding: filmed noise and moving patches, encoded as people do."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import av
import numpy as np

RATE = 30  # frames per second


def film(height: int, width: int, num_frames: int) -> Iterator[np.ndarray]:
    """Yield (height, width, 3) uint8 frames: a camera moves over a texture with patches."""
    rng = np.random.default_rng(0)
    texture = np.zeros((2 * height, 2 * width, 3))
    for cell in (4, 16, 64):
        coarse = rng.uniform(0, 255, (2 * height // cell + 1, 2 * width // cell + 1, 3))
        fine = coarse.repeat(cell, 0).repeat(cell, 1)
        texture += fine[: 2 * height, : 2 * width] / 3
    patch = height // 9
    for t in range(num_frames):
        top = int(height * (1 + np.sin(t / 40)) / 2)
        left = int(width * (1 + np.cos(t / 55)) / 2)
        frame = texture[top : top + height, left : left + width].copy()
        for k in range(6):
            y = int((height - patch) * (1 + np.sin(t / 17 + k)) / 2)
            x = int((width - patch) * (1 + np.cos(t / 23 + 2 * k)) / 2)
            frame[y : y + patch, x : x + patch] = [k * 40, 255 - k * 40, 128]
        frame += rng.normal(0, 3, (height, width, 1))
        yield np.clip(frame, 0, 255).astype(np.uint8)


def encode_mp4(frames: Iterable[np.ndarray], gop: int) -> bytes:
    """Encode as H.264 with two B-frames, a key frame every ``gop`` frames."""
    options = {"preset": "veryfast", "crf": "23", "bf": "2", "g": str(gop), "sc_threshold": "0"}
    return _encode(frames, RATE, "libx264", "mp4", "yuv420p", options)


def encode_jpegs(frames: Iterable[np.ndarray], rate: int) -> bytes:
    """Encode as a film of JPEG pictures, about 20 KiB each at 454x256."""
    options = {"qmin": "8", "qmax": "8"}
    return _encode(frames, rate, "mjpeg", "matroska", "yuvj420p", options)


def _encode(
    frames: Iterable[np.ndarray],
    rate: int,
    codec: str,
    container: str,
    pixels: str,
    options: dict[str, str],
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.pix_fmt, stream.thread_count, stream.options = pixels, 1, options
        for number, picture in enumerate(frames):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()
