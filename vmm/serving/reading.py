"""Uploaded files to clips: decoded in processes of their own, within limits.

Nothing that comes from outside is written to a file, and no file or address that it names is
opened. A file that hangs or crashes its decoder costs that decoder, which is started again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from vmm.data.decode import MAX_FRAMES, DecodeError
from vmm.data.isolation import IsolatedDecoder
from vmm.data.times import end_of
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.export.frames import PreparedClip, prepared


class ReadClip(NamedTuple):
    """A file as the model sees it."""

    clip: PreparedClip
    """(T, C, H, W) float32."""
    seconds: list[float]
    """T: when the frames are shown, from the first of the file."""
    duration: float
    """Seconds of the file."""


class ClipReader:
    """Decoders that read files beside each other.

    Args:
        settings: Which frames, and how they become input.
        workers: Files that are read at once, each by a process.
        max_seconds: Refuse longer videos.
        max_pixels: Refuse larger frames.
        timeout: Seconds that each step of decoding a file may take.
    """

    def __init__(
        self,
        settings: ClipSettings,
        workers: int,
        max_seconds: float,
        max_pixels: int,
        timeout: float,
    ) -> None:
        self._settings = settings
        self._max_seconds, self._max_pixels, self._timeout = max_seconds, max_pixels, timeout
        self._own = threading.local()
        self._decoders: list[IsolatedDecoder] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="vmm-reader")

    def submit(self, data: bytes) -> Future[ReadClip]:
        """Read a file; the future raises ``DecodeError`` for one that cannot be, or is too long."""
        return self._pool.submit(self._read, data)

    def close(self) -> None:
        """Finish what was asked for, and end the decoders."""
        self._pool.shutdown()
        for decoder in self._decoders:
            decoder.close()

    def _read(self, data: bytes) -> ReadClip:
        seconds: list[float] = []
        duration = 0.0

        def choose(times: np.ndarray) -> Sequence[int]:
            nonlocal seconds, duration
            duration = end_of(times) - float(times[0])
            # Raising would cost the decoder; a frame of a video that is refused costs little.
            chosen = [0] if duration > self._max_seconds else self._settings.choose(times)
            seconds = [float(times[i] - times[0]) for i in chosen]
            return chosen

        limits = {"max_pixels": self._max_pixels, "max_frames": MAX_FRAMES}
        frames = self._decoder().video(data, choose, self._settings.decoder, **limits)
        if duration > self._max_seconds:
            raise DecodeError(
                "too long", f"{duration:.1f} s, and {self._max_seconds:g} s are allowed; cut it"
            )
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        clip = prepared(eval_transform(pixels, self._settings), self._settings)
        return ReadClip(clip, seconds, duration)

    def _decoder(self) -> IsolatedDecoder:
        """Give the decoder of this thread."""
        if not hasattr(self._own, "decoder"):
            self._own.decoder = IsolatedDecoder(self._timeout)
            self._decoders.append(self._own.decoder)
        decoder: IsolatedDecoder = self._own.decoder
        return decoder
