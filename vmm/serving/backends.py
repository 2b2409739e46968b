"""What computes the vectors: the exported folder in torch, or the exported ONNX towers.

Both take prepared clips, so that a file has the vector that evaluation gives it. Only one thread
calls a backend. Shape legend: see ``vmm.types``; E is the width of the joint space, P the pooled
vectors of a clip.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import vmm.export.auto_model  # noqa: F401  else transformers warns of the encoder's config.json
from vmm.data.text_input import clean_text
from vmm.data.transforms import ClipSettings
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import is_encoder_folder, read_preprocessing
from vmm.export.onnx_files import MAX_WORDS
from vmm.export.programs import TEXT
from vmm.export.towers import finite
from vmm.hub import local_folder
from vmm.ops.similarity import RankBy, unit_vectors
from vmm.runs import sha256

Floats = npt.NDArray[np.float32]
_VIDEO_FILE = re.compile(r"video_(\d+)_frames\.onnx")


class EncodedClip(NamedTuple):
    """A clip as vectors of length 1."""

    vector: Floats
    """(E,)."""
    per_frame: Floats | None
    """(P, E); None where the backend gives one vector of a clip."""


class Backend(ABC):
    """A model that is served."""

    name: str
    clip: ClipSettings
    """How a video becomes its input."""
    fingerprint: str
    """Tells models apart: vectors of different ones must not be compared."""
    embedding_dim: int
    """E."""
    per_frame: bool
    """Whether clips have vectors of their frames."""
    matches: bool
    """Whether a matching head looks at pairs."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Encode captions: (n, E) of length 1."""

    @abstractmethod
    def encode_clips(self, clips: Sequence[Tensor]) -> list[EncodedClip]:
        """Encode prepared clips, n times (T, C, H, W)."""

    @abstractmethod
    def match(self, texts: Sequence[str], clip: Tensor, by: RankBy) -> Floats:
        """Score captions with a prepared clip by the matching head: (n,).

        Raises:
            ValueError: If there is no matching head.
        """

    def about(self) -> dict[str, Any]:
        """Describe it, for people and programs that ask what is served."""
        return {
            "backend": self.name,
            "fingerprint": self.fingerprint,
            "embedding_dim": self.embedding_dim,
            "num_frames": self.clip.num_frames,
            "image_size": self.clip.image_size,
            "per_frame": self.per_frame,
            "scores": ["cosine", *(["mixture", "matching"] if self.matches else [])],
        }


class TorchBackend(Backend):
    """An encoder folder, in PyTorch.

    Args:
        encoder: The encoder.
    """

    name = "torch"
    per_frame = True

    def __init__(self, encoder: VideoTextEncoder) -> None:
        self._encoder = encoder
        self.clip, self.fingerprint = encoder.clip, encoder.fingerprint
        self.embedding_dim = encoder.embedding_dim
        self.matches = encoder.model.text_encoder.fuses

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """See ``Backend.encode_texts``."""
        return self._encoder.encode_text(texts)

    @torch.inference_mode()
    def encode_clips(self, clips: Sequence[Tensor]) -> list[EncodedClip]:
        """See ``Backend.encode_clips``."""
        model = self._encoder.model
        pooled = model.video_encoder(
            torch.stack([*clips]).to(self._encoder.device), keep_temporal=True
        ).pooled
        projected = model.vision_proj(pooled)
        vectors = finite(unit_vectors(projected).cpu(), lambda _: "this video").numpy()
        frames = F.normalize(projected.float(), dim=-1).cpu().numpy()
        return [EncodedClip(*pair) for pair in zip(vectors, frames, strict=True)]

    def match(self, texts: Sequence[str], clip: Tensor, by: RankBy) -> Floats:
        """See ``Backend.match``."""
        return self._encoder.score_all(texts, [clip], by=by)[:, 0]


class OnnxBackend(Backend):
    """A folder of ``vmm export --format onnx``, in onnxruntime.

    Args:
        folder: The folder.
        num_frames: Of the video tower; None = as in training, or the only one there is.

    Raises:
        ValueError: If a file is missing or cannot be served.
    """

    name = "onnx"
    per_frame = matches = False

    def __init__(self, folder: Path, num_frames: int | None = None) -> None:
        settings = read_preprocessing(folder)
        self.clip = settings.with_frames(_frames_there(folder, num_frames, settings.num_frames))
        video, text = folder / f"video_{self.clip.num_frames}_frames.onnx", folder / f"{TEXT}.onnx"
        words = folder / "tokenizer.json"
        for path in (text, words):
            if not path.is_file():
                raise ValueError(
                    f"{folder} has no {path.name}, without which captions cannot be encoded; serve "
                    "the folder of `vmm export RUN OUT` instead, which needs no ONNX"
                )
        self._video, self._text = _session(video), _session(text)
        self._tokenizer = _tokenizer(words, self._text, text)
        digests = [sha256(path) for path in (video, text, words)]
        self.fingerprint = hashlib.sha256("".join(digests).encode()).hexdigest()
        self.embedding_dim = self.encode_texts(["a"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """See ``Backend.encode_texts``."""
        words = self._tokenizer.encode_batch([clean_text(text) for text in texts])
        ids, mask = (
            np.array([getattr(of, name) for of in words], np.int64)
            for name in ("ids", "attention_mask")
        )
        vectors: Floats = self._text.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        finite(torch.from_numpy(vectors), lambda number: f"text {number}")
        return vectors

    def encode_clips(self, clips: Sequence[Tensor]) -> list[EncodedClip]:
        """See ``Backend.encode_clips``."""
        vectors = self._video.run(None, {"video": torch.stack([*clips]).numpy()})[0]
        finite(torch.from_numpy(vectors), lambda _: "this video")
        return [EncodedClip(vector, None) for vector in vectors]

    def match(self, texts: Sequence[str], clip: Tensor, by: RankBy) -> Floats:
        """See ``Backend.match``."""
        raise ValueError(f"ONNX towers have no matching head for by={by}; ask for by=cosine")


def open_backend(name: str, num_frames: int | None = None, device: str | None = None) -> Backend:
    """Open what ``vmm export`` wrote, whichever of its two formats it is.

    Args:
        name: An encoder folder, OWNER/NAME on the hub, or a folder of ONNX files.
        num_frames: Frames that are looked at; None = as in training.
        device: Where torch computes; None = the GPU if there is one.

    Raises:
        ValueError: If it is neither.
    """
    folder = local_folder(name)
    if not is_encoder_folder(folder) and (folder / f"{TEXT}.onnx").is_file():
        return OnnxBackend(folder, num_frames)
    encoder = VideoTextEncoder.from_pretrained(folder, device=device)
    encoder.clip = encoder.clip.with_frames(num_frames)
    return TorchBackend(encoder)


def _frames_there(folder: Path, asked: int | None, trained: int) -> int:
    names = (_VIDEO_FILE.fullmatch(path.name) for path in folder.iterdir())
    there = sorted(int(name[1]) for name in names if name)
    wanted = asked or (trained if trained in there or len(there) != 1 else there[0])
    if wanted not in there:
        raise ValueError(
            f"{folder} has video towers of {', '.join(map(str, there)) or 'no'} frames, not of "
            f"{wanted}; `vmm export RUN OUT --format onnx --num-frames {wanted}` makes one"
        )
    return wanted


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError('ONNX files need onnxruntime: pip install "vmm-video[onnx]"') from error
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise ValueError(f"{path} cannot be loaded: {error}; export it again") from error


def _tokenizer(words: Path, session: Any, path: Path) -> Any:
    """Read the tokenizer; captions are cut as in training, and filled up to the longest."""
    from tokenizers import Tokenizer

    longest = session.get_modelmeta().custom_metadata_map.get(MAX_WORDS)
    if longest is None:
        raise ValueError(f"{path} does not say how long captions may be; export it again")
    tokenizer = Tokenizer.from_file(str(words))
    tokenizer.enable_truncation(int(longest))
    tokenizer.enable_padding()  # the mask says what is filling
    return tokenizer
