"""Exported encoders in use: videos and captions to vectors, pairs to scores.

    from vmm import VideoTextEncoder

    encoder = VideoTextEncoder.from_pretrained("exported")
    videos, texts = encoder.encode_video(["a.mp4", "b.mp4"]), encoder.encode_text(["a red ball"])
    texts @ videos.T

Needs neither Lightning nor a network, and open_clip only where a model has a tower of its. Shape
legend: see ``vmm.types``; E is the width of the joint space, n counts what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from vmm.data.decode import DecodeError
from vmm.data.text_input import clean_text
from vmm.data.transforms import ClipSettings
from vmm.export.folder import read_folder
from vmm.export.frames import Video, load_clip, name_of
from vmm.export.long_files import LongVideo, encode_file
from vmm.export.towers import Matcher, TextTower, VideoTower, finite
from vmm.hub import local_folder, upload
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import RankBy
from vmm.ops.tuning.cpu_setup import tune_cpu
from vmm.types import TextTokens

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
                ``vmm.ops.tuning.cpu_setup``.

        Raises:
            ValueError: If the folder is not one, not whole, or was changed.
        """
        folder = local_folder(name, revision)
        parts, fingerprint = read_folder(folder)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if tune and device.type == "cpu":
            tune_cpu()
        return cls(parts.of(VideoTextModel).to(device), parts.clip, fingerprint, folder)

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
            videos: Files, their contents, or all their frames in memory: (T, H, W, 3) or
                (T, 3, H, W), uint8 or floating from 0 to 1, at equal distances in time.
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
        videos = listed(videos)
        clips = self.load_videos(videos, num_frames=num_frames, fps=fps)
        rows: list[Tensor] = []
        for batch in batches(clips, len(videos), batch_size, progress, "video"):
            rows += self._video_tower(stack(batch, len(rows)).to(self.device)).cpu()
        return _array(rows, (0, self.embedding_dim), lambda i: name_of(videos[i], i))

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
            video: A file, which is not read whole, or its content.
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
            source = video if isinstance(video, bytes) else Path(video)
            found = encode_file(self.model, self.clip, source, fps, folder, progress)
        except (OSError, DecodeError) as error:
            raise ValueError(f"cannot read {name}: {error}") from error
        for rows in (found.vector[None], found.per_frame):
            finite(torch.from_numpy(rows), lambda _: name)
        return found

    @torch.inference_mode()
    def encode_text(
        self, texts: str | Sequence[str], *, batch_size: int = 64, progress: bool = False
    ) -> Floats:
        """Encode captions.

        Args:
            texts: Captions, or a single one; those longer than in training are cut.
            batch_size: Captions that are encoded at once.
            progress: Show a progress bar on stderr.

        Returns:
            (n, E) of length 1 each; of a single caption (E,).

        Raises:
            ValueError: If one is no text.
        """
        if isinstance(texts, str):
            alone: Floats = self.encode_text([texts])[0]
            return alone
        texts = _clean(texts)
        rows: list[Tensor] = []
        for batch in batches(texts, len(texts), batch_size, progress, "text"):
            rows += self._text_tower(*self._tokenize(batch)).cpu()
        return _array(rows, (0, self.embedding_dim), lambda i: f"text {i} ({texts[i]!r:.60})")

    @torch.inference_mode()
    def score(
        self,
        texts: Sequence[str],
        videos: Sequence[Video],
        *,
        by: RankBy = "mixture",
        num_frames: int | None = None,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Floats:
        """Score pairs: each caption with the video of the same place.

        The matching head looks closer than a product of two vectors, and both together find more
        than either.

        Args:
            texts: Captions.
            videos: As many.
            by: "mixture" of the vectors' cosine and the matching head, the number that evaluation
                and search re-rank by; or "matching", the head's logit of "they belong together"
                alone, as published.
            num_frames: As for ``encode_video``.
            fps: As for ``encode_video``.
            batch_size: Pairs that are scored at once.
            progress: Show a progress bar on stderr.

        Returns:
            (n,), higher = more likely to belong together.

        Raises:
            ValueError: If the numbers of captions and videos differ, one of the captions is no
                text, a video cannot be read, or the model is a dual encoder only.
        """
        matcher = Matcher(self.model)
        texts, videos = _clean(texts), listed(videos)
        if len(texts) != len(videos):
            raise ValueError(
                f"{len(texts)} texts do not pair with {len(videos)} videos; give as many of both, "
                "or score_all, which scores each text with each video"
            )
        _check_by(by)
        clips = self.load_videos(videos, num_frames=num_frames, fps=fps)
        rows: list[Tensor] = []
        for batch in batches(clips, len(videos), batch_size, progress, "video"):
            done = len(rows)
            tokens = self._tokenize(texts[done : done + len(batch)])
            seen = matcher.look_at(stack(batch, done).to(self.device))
            rows += matcher(matcher.read_captions(*tokens), seen, by).cpu()
        return _array(rows, (0,), lambda i: f"pair {i}")

    @torch.inference_mode()
    def score_all(
        self,
        texts: Sequence[str],
        videos: Sequence[Video],
        *,
        by: RankBy = "mixture",
        num_frames: int | None = None,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Floats:
        """Score each caption with each video; every video is read and looked at once.

        Args:
            texts: Captions.
            videos: Videos.
            by: As for ``score``.
            num_frames: As for ``encode_video``.
            fps: As for ``encode_video``.
            batch_size: Videos, and pairs, that are looked at at once.
            progress: Show a progress bar on stderr.

        Returns:
            (texts, videos), higher = more likely to belong together.

        Raises:
            ValueError: As for ``score``, but any numbers will do.
        """
        matcher = Matcher(self.model)
        texts, videos = _clean(texts), listed(videos)
        _check_by(by)
        if not texts or not videos:
            return np.zeros((len(texts), len(videos)), np.float32)
        clips = self.load_videos(videos, num_frames=num_frames, fps=fps)
        columns: list[Tensor] = []
        captions = matcher.read_captions(*self._tokenize(texts))
        for batch in batches(clips, len(videos), batch_size, progress, "video"):
            seen = matcher.look_at(stack(batch, len(columns)).to(self.device))
            pairs = torch.cartesian_prod(torch.arange(len(batch)), torch.arange(len(texts)))
            pairs = pairs.to(self.device)
            parts = [
                matcher(captions.rows(text), seen.rows(clip), by)
                for clip, text in (part.T for part in torch.split(pairs, batch_size))
            ]
            columns += torch.cat(parts).cpu().view(len(batch), len(texts))
        return _array(columns, (0,), lambda i: name_of(videos[i], i)).T.copy()

    def _tokenize(self, texts: list[str]) -> TextTokens:
        return self.model.text_encoder.tokenize(texts, self.device)

    def load_videos(
        self, videos: Sequence[Video], *, num_frames: int | None = None, fps: float | None = None
    ) -> Iterator[Tensor]:
        """Read videos one after the other as the model sees them.

        Args:
            videos: As for ``encode_video``.
            num_frames: As for ``encode_video``.
            fps: As for ``encode_video``.

        Yields:
            (T, C, H, W) float32, normalised; ``encode_video`` and ``score`` take them as they are.

        Raises:
            ValueError: If a video cannot be read, with its name.
        """
        videos = listed(videos)
        clip = self.clip.with_frames(num_frames)
        if fps is not None:
            clip = replace(clip, sampling="fps", fps=fps, stride=1)
        for number, video in enumerate(videos):
            yield load_clip(video, number, clip)

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Upload the folder that the encoder was loaded from to the Hugging Face hub.

        Args:
            name: OWNER/NAME; created if it is new.
            private: Whether a new one is private.

        Returns:
            Address of the commit.
        """
        return upload(self.folder, name, private)


def _check_by(by: str) -> None:
    if by not in get_args(RankBy):
        raise ValueError(f"by {by!r} must be one of {', '.join(get_args(RankBy))}")


def _clean(texts: Sequence[str]) -> list[str]:
    """Take captions in: from here on they are clean Unicode."""
    texts = listed(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is a {type(text).__name__}; give strings")
    return [clean_text(text) for text in texts]


def batches(
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


def stack(clips: Sequence[Tensor], first: int) -> Tensor:
    """Make a batch; ``first`` is the number of its first video."""
    for number, clip in enumerate(clips, first):
        if clip.shape != clips[0].shape:
            raise ValueError(
                f"video {number} was prepared as {tuple(clip.shape)}, video {first} as "
                f"{tuple(clips[0].shape)}; prepare all alike, or use batch_size=1"
            )
    return torch.stack([*clips])


def _array(rows: list[Tensor], empty: tuple[int, ...], name: Callable[[int], str]) -> Floats:
    """Make an array; ``name`` tells what a row is of."""
    return finite(torch.stack(rows), name).numpy() if rows else np.zeros(empty, np.float32)


def listed(items: Sequence[_Item]) -> list[_Item]:
    """Return what was given as a list, so that it can be counted and gone through twice."""
    if isinstance(items, str | bytes | Path | np.ndarray):
        raise ValueError(f"got a single {type(items).__name__}; give a list of them")
    if isinstance(items, Mapping) or not hasattr(items, "__getitem__"):  # no order, or gone once
        raise ValueError(f"got a {type(items).__name__}; give a list, whose order the result has")
    return list(items)
