"""Exported encoders in use: videos and captions to vectors, pairs to scores.

    from vmm import VideoTextEncoder

    encoder = VideoTextEncoder.from_pretrained("exported")
    videos, texts = encoder.encode_video(["a.mp4", "b.mp4"]), encoder.encode_text(["a red ball"])
    texts @ videos.T

Needs neither Lightning nor open_clip nor a network. Shape legend: see ``vmm.types``; E is the width
of the joint space, n counts what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from vmm.data.clips import load_frames
from vmm.data.decode import DecodeError
from vmm.data.schema import RawSample
from vmm.data.text_input import clean_text
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.export.folder import read_folder
from vmm.export.hub import local_folder, upload
from vmm.export.long_videos import LongVideo, encode_file
from vmm.export.towers import Matcher, TextTower, VideoTower
from vmm.models.video_text import VideoTextModel
from vmm.ops.cpu_setup import tune_cpu

Video = str | Path | bytes | npt.NDArray[np.uint8] | Tensor
"""A file, its content, all its frames (T, H, W, 3) RGB, at equal distances in time, or what
``VideoTextEncoder.load_videos`` made of one."""

Floats = npt.NDArray[np.float32]
_Item = TypeVar("_Item")


class VideoTextEncoder:
    """A video-text model for use, not for training; ``from_pretrained`` makes one.

    The same file gives the same vector at any time and in any batch, up to float32 rounding.

    Args:
        model: The model, in evaluation mode, on the device to use.
        clip: How a video becomes its input.
        fingerprint: Tells models apart: vectors of different ones must not be compared.
        folder: Where it was loaded from.
    """

    def __init__(
        self, model: VideoTextModel, clip: ClipSettings, fingerprint: str, folder: Path
    ) -> None:
        self.model = model
        self.clip = clip
        self.fingerprint = fingerprint
        self.folder = folder
        self._video_tower, self._text_tower = VideoTower(model), TextTower(model)
        self._matcher = Matcher(model)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        revision: str | None = None,
        tune: bool = True,
    ) -> Self:
        """Load what ``vmm export`` wrote.

        Args:
            name: The folder, or OWNER/NAME on the Hugging Face hub.
            device: Where to compute; None = the GPU if there is one.
            revision: Branch, tag or commit on the hub.
            tune: On a CPU, make the process as fast as vmm's commands are; see
                ``vmm.ops.cpu_setup``.

        Raises:
            ValueError: If the folder is not one, not whole, or was changed.
        """
        folder = local_folder(name, revision)
        parts, fingerprint = read_folder(folder)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if tune and device.type == "cpu":
            tune_cpu()
        return cls(parts.model.to(device), parts.clip, fingerprint, folder)

    @property
    def embedding_dim(self) -> int:
        """Width E of the vectors."""
        return int(self.model.vision_proj.out_features)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.temperature.device

    @torch.inference_mode()
    def encode_video(
        self,
        videos: Sequence[Video],
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Floats:
        """Encode videos.

        Args:
            videos: Files, their contents, or their frames.
            num_frames: Frames that are looked at; None = as many as in training.
            fps: Take them at so many per second, from the middle of the video, instead of spread
                over all of it.
            batch_size: Videos that are encoded at once.
            progress: Show a progress bar on stderr.

        Returns:
            (n, E) of length 1 each.

        Raises:
            ValueError: If a video cannot be read, with its name.
        """
        clips = self.load_videos(videos, num_frames=num_frames, fps=fps)
        rows: list[Tensor] = []
        for batch in _batches(clips, len(videos), batch_size, progress, "video"):
            rows += self._video_tower(torch.stack(batch).to(self.device)).cpu()
        return _array(rows, (0, self.embedding_dim))

    @torch.inference_mode()
    def encode_long_video(
        self,
        video: str | Path | bytes,
        *,
        fps: float = 1.0,
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> LongVideo:
        """Encode a video of any length as a whole, and every second of it.

        Args:
            video: A file or its content.
            fps: Frames per second that are looked at.
            folder: Keep the large tensors in files there instead of in RAM.
            progress: Show a progress bar on stderr.

        Returns:
            A vector of the video, and one of every frame that was looked at, with its time.

        Raises:
            ValueError: If the video cannot be read, with its name.
        """
        name = "the video" if isinstance(video, bytes) else str(video)
        try:
            data = video if isinstance(video, bytes) else Path(video).read_bytes()
            return encode_file(self.model, self.clip, data, fps, folder, progress)
        except (OSError, DecodeError) as error:
            raise ValueError(f"cannot read {name}: {error}") from error

    @torch.inference_mode()
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int = 64, progress: bool = False
    ) -> Floats:
        """Encode captions.

        Args:
            texts: Captions; those longer than in training are cut.
            batch_size: Captions that are encoded at once.
            progress: Show a progress bar on stderr.

        Returns:
            (n, E) of length 1 each.

        Raises:
            ValueError: If one is no text.
        """
        texts = _clean(texts)
        rows: list[Tensor] = []
        for batch in _batches(texts, len(texts), batch_size, progress, "text"):
            text = self.model.text_encoder.tokenize(batch, self.device)
            rows += self._text_tower(*text).cpu()
        return _array(rows, (0, self.embedding_dim))

    @torch.inference_mode()
    def score(
        self,
        texts: Sequence[str],
        videos: Sequence[Video],
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Floats:
        """Score pairs with the matching head, which looks closer than a product of two vectors.

        Args:
            texts: Captions; a single one goes with every video.
            videos: As many videos; a single one goes with every caption.
            num_frames: As for ``encode_video``.
            fps: As for ``encode_video``.
            batch_size: Pairs that are scored at once.
            progress: Show a progress bar on stderr.

        Returns:
            (n,) logits of "they belong together", the number that evaluation re-ranks by.

        Raises:
            ValueError: If the numbers of captions and videos differ, one of the captions is no
                text, or a video cannot be read.
        """
        texts = _clean(texts)
        if len(texts) != len(videos) and 1 not in (len(texts), len(videos)):
            raise ValueError(
                f"{len(texts)} texts do not pair with {len(videos)} videos; give as many, or one"
            )
        captions = texts if len(texts) > 1 else texts * len(videos)
        clips = self.load_videos(videos, num_frames=num_frames, fps=fps)
        rows: list[Tensor] = []
        for batch in _batches(clips, len(videos), batch_size, progress, "video"):
            tokens = self.model.encode_video(torch.stack(batch).to(self.device)).tokens
            done = len(rows)
            part = captions[done : done + len(batch)] if len(videos) > 1 else captions
            for i in range(0, len(part), batch_size):
                seen = tokens[i : i + batch_size] if len(videos) > 1 else tokens
                text = self.model.text_encoder.tokenize(part[i : i + batch_size], self.device)
                rows += self._matcher(*text, seen).cpu()
        return _array(rows, (0,))

    def load_videos(
        self, videos: Sequence[Video], *, num_frames: int | None = None, fps: float | None = None
    ) -> Iterator[Tensor]:
        """Read videos one after the other as the model sees them.

        Args:
            videos: As for ``encode_video``.
            num_frames: As for ``encode_video``.
            fps: As for ``encode_video``.

        Yields:
            (T, C, H, W) float32, normalised.

        Raises:
            ValueError: If a video cannot be read, with its name.
        """
        _refuse_single(videos)
        clip = replace(self.clip, num_frames=num_frames or self.clip.num_frames)
        if fps is not None:
            clip = replace(clip, sampling="fps", fps=fps, stride=1)
        for number, video in enumerate(videos):
            if isinstance(video, Tensor):
                yield video
            else:
                yield eval_transform(_frames(video, number, clip), clip)

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Upload the folder that the encoder was loaded from to the Hugging Face hub.

        Args:
            name: OWNER/NAME; created if it is new.
            private: Whether a new one is private.

        Returns:
            Address of the commit.
        """
        return upload(self.folder, name, private)


def _clean(texts: Sequence[str]) -> list[str]:
    """Take captions in: from here on they are clean Unicode."""
    _refuse_single(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is a {type(text).__name__}; give strings")
    return [clean_text(text) for text in texts]


def _frames(
    video: str | Path | bytes | npt.NDArray[np.uint8], number: int, clip: ClipSettings
) -> Tensor:
    """Read the frames that the settings choose, (T, C, H, W) uint8."""
    if isinstance(video, np.ndarray):
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or not len(video):
            raise ValueError(
                f"video {number} is an array of shape {video.shape} and type {video.dtype}; "
                "give frames as (T, H, W, 3) uint8"
            )
        if clip.sampling == "fps":
            raise ValueError(f"video {number} is an array, which has no times; leave fps out")
        chosen = clip.choose(np.arange(len(video), dtype=np.float64))
        return torch.from_numpy(video[chosen]).permute(0, 3, 1, 2)
    name = f"video {number}" if isinstance(video, bytes) else str(video)
    try:
        data = video if isinstance(video, bytes) else Path(video).read_bytes()
        return load_frames(RawSample(name, number, "", data, [], {}), "video", clip)
    except (OSError, DecodeError) as error:
        raise ValueError(f"cannot read {name}: {error}") from error


def _batches(
    items: Iterable[_Item], total: int, size: int, progress: bool, unit: str
) -> Iterator[list[_Item]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    if size < 1:
        raise ValueError(f"batch_size {size} must be at least 1")
    with tqdm(total=total, unit=unit, disable=not progress) as bar:
        source = iter(items)
        while batch := list(islice(source, size)):
            yield batch
            bar.update(len(batch))


def _array(rows: list[Tensor], empty: tuple[int, ...]) -> Floats:
    return torch.stack(rows).numpy() if rows else np.zeros(empty, np.float32)


def _refuse_single(items: object) -> None:
    if isinstance(items, str | bytes | Path | np.ndarray):
        raise ValueError(f"got a single {type(items).__name__}; give a list of them")
