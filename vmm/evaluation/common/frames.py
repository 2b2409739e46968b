"""All frames of a video that a model looks at, however long it is.

They are kept once, at the model's size, one byte per value: an hour at one frame per second and 224
pixels is half a gigabyte. Windows and another order are rows of the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmm.data.decode import read_film
from vmm.data.times import shown_at_rate
from vmm.data.transforms import ClipSettings, fit_frames, normalise

_PORTION = 64
"""Frames that are normalised at once."""


class Frames(NamedTuple):
    """Some frames of a video."""

    pixels: Tensor
    """(all frames, C, S, S) uint8."""
    rows: Tensor
    """(T,) int64: those of ``pixels``; -1 is a frame that shows nothing, all of the mean colour."""
    seconds: npt.NDArray[np.float64]
    """(T,) when they are shown."""
    duration: float
    """Seconds from the first frame of the file to the end of the last."""

    def shuffled(self, seed: int) -> Frames:
        """Give the same frames in a random order, which depends on the seed alone."""
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(seed))
        return self._replace(rows=self.rows[order])

    def tiles(self, number: int) -> npt.NDArray[np.uint8]:
        """Give what was shown last at even distances in time, of however few frames there are.

        Args:
            number: T; each stands for as long a part of the video.

        Returns:
            (T, S, S, C).
        """
        middles = (np.arange(number) + 0.5) / number * self.duration
        shown = np.searchsorted(self.seconds, middles + 1e-6, side="right") - 1
        return self.pixels[torch.from_numpy(shown.clip(0))].permute(0, 2, 3, 1).numpy()

    def blank(self) -> Frames:
        """Give as many frames that show nothing."""
        return self._replace(rows=torch.full_like(self.rows, -1))

    def portions(self, clip: ClipSettings) -> Iterator[Tensor]:
        """Yield the model's input in parts (t, C, S, S) float32."""
        for i in range(0, len(self.rows), _PORTION):
            rows = self.rows[i : i + _PORTION]
            shown = normalise(self.pixels[rows], clip)
            yield shown * (rows >= 0).view(-1, 1, 1, 1)


def read_frames(video: bytes | Path, clip: ClipSettings, fps: float | None) -> Frames:
    """Decode the frames of a whole video that a model looks at.

    Args:
        video: The file, which is not read whole, or its content.
        clip: Size and, without ``fps``, the number of frames and how they are chosen.
        fps: Frames per second from the start to the end instead, as many as there are.

    Raises:
        DecodeError: If it cannot be decoded.
        OSError: If the file cannot be read.
    """

    def choose(times: npt.NDArray[np.float64]) -> list[int]:
        return clip.choose(times) if fps is None else shown_at_rate(times, fps)

    film = read_film(video, choose)
    size = clip.image_size
    pixels = torch.empty(len(film.seconds), 3, size, size, dtype=torch.uint8)
    done = 0
    for frames in film.portions:
        part = torch.from_numpy(frames).permute(0, 3, 1, 2)
        pixels[done : done + len(part)] = fit_frames(part, clip)
        done += len(part)
    return Frames(pixels, torch.arange(done), film.seconds, film.duration)


def windows(frames: Frames, length: int) -> list[Frames]:
    """Cut frames into windows of equal length.

    Args:
        frames: T frames.
        length: Frames per window. The last window ends with the last frame and may overlap the one
            before; a shorter video repeats its last frame.
    """
    total = len(frames.seconds)
    starts = window_starts(total, length)
    places = [[min(start + i, total - 1) for i in range(length)] for start in starts]
    return [
        frames._replace(rows=frames.rows[place], seconds=frames.seconds[place]) for place in places
    ]


def window_starts(total: int, length: int) -> list[int]:
    """Number the frames, of ``total``, with which windows of ``length`` frames begin."""
    return [*range(0, max(total - length, 0), length), max(total - length, 0)]


def settings_of(clip: ClipSettings, num_frames: int | None) -> ClipSettings:
    """Choose frames over the whole video, whatever the model was trained with.

    Args:
        clip: Of the model.
        num_frames: How many; None = the model's.
    """
    return replace(clip.with_frames(num_frames), sampling="random", fps=None, stride=1)
