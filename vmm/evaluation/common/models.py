"""Models on the track: what an evaluation asks of them, and adapters for three kinds.

A model of your own needs a name, a ``clip`` and three short methods, see ``Encoder``; where it has
a matching head, a fourth, see ``Matcher``.

Shape legend: see ``vmm.types``; E is the width of the joint space, Dt the text width, M captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.open_clip_models import create_model
from vmm.export.encoder import VideoTextEncoder
from vmm.hub import here_or_hub
from vmm.models.long_video import encode_long_video, takes_long_videos
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import Mixture
from vmm.runs import Run
from vmm.wording import CaptionCheck

# Word pieces that look at a clip at once: 256 captions of a usual length.
_TOKENS_AT_ONCE = 4096


class ClipVectors(NamedTuple):
    """A batch of clips, encoded."""

    projected: Tensor
    """(B, P, E); a caption is compared with all P, and the mean of the cosines counts."""
    tokens: Tensor | None = None
    """(B, L, D) what the matching head looks at."""


class CaptionVectors(NamedTuple):
    """A batch of captions, encoded."""

    projected: Tensor
    """(B, E)."""
    states: list[Tensor] | None = None
    """B times (S, Dt), without padding: what the matching head starts from."""


class ClipEncoder(Protocol):
    """A model that gives clips vectors."""

    name: str
    clip: ClipSettings
    """How a video becomes its input."""

    def identity(self) -> dict[str, Any]:
        """Say which model it is: ``encoder``, ``parameters``, ``checkpoint`` and ``sha256``."""

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Encode clips (B, T, C, H, W) float32, normalised as ``clip`` says."""


class Encoder(ClipEncoder, Protocol):
    """A model that gives clips and captions vectors of one space, compared by their cosine."""

    def encode_texts(self, captions: list[str]) -> CaptionVectors:
        """Encode captions."""


@runtime_checkable
class Matcher(Protocol):
    """What an ``Encoder`` whose matching head re-ranks has as well; it may have a ``mixture``."""

    def match(self, states: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Score captions with one clip.

        Args:
            states: M times (S, Dt) from ``encode_texts``.
            tokens: (L, D) of the clip, from ``encode_videos``.

        Returns:
            (M,) float32, higher = more likely to belong together.
        """


def mixture_of(matcher: Matcher) -> Mixture:
    """Give the mixture by which a model re-ranks: its ``mixture``, if it has one, or the usual."""
    mixture = getattr(matcher, "mixture", None)
    return mixture if isinstance(mixture, Mixture) else Mixture()


@runtime_checkable
class ChoiceMatcher(Protocol):
    """What an ``Encoder`` whose matching head answers questions has as well."""

    @property
    def temperature(self) -> float:
        """What cosines are divided by where they are mixed with the head's probabilities."""

    def match_logits(self, states: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """As ``Matcher.match``, but both logits, (M, 2) float32; class 1 = they belong together."""


@runtime_checkable
class LongEncoder(Protocol):
    """What an ``Encoder`` that takes videos of any length in one pass has as well."""

    @property
    def takes_long_videos(self) -> bool:
        """Whether this one does."""

    def encode_long(self, frames: Iterable[Tensor], num_frames: int) -> ClipVectors:
        """Encode one video, as ``encode_videos`` would, in bounded memory.

        Args:
            frames: Its frames in portions (t, C, H, W) of any size.
            num_frames: How many they are.
        """


class VmmEncoder:
    """A video-text model of vmm.

    Args:
        model: In evaluation mode, on the device to use.
        clip: How a video becomes its input.
        identity: See ``Encoder.identity``.
    """

    def __init__(self, model: VideoTextModel, clip: ClipSettings, identity: dict[str, Any]) -> None:
        self.model = model
        self.clip = clip
        self.name = type(model.video_encoder).__name__
        self._identity = identity

    @classmethod
    def of_run(cls, run: Run, device: str, clip: ClipSettings) -> VmmEncoder:
        """Take the model of a run directory."""
        name = type(run.model.video_encoder).__name__
        identity = describe_model(name, run.model, run.checkpoint.name, run.sha256)
        return cls(run.model.to(device), clip, identity)

    @classmethod
    def of_folder(cls, name: str, device: str, num_frames: int | None) -> VmmEncoder:
        """Take the model of a folder that ``vmm export`` wrote, or of one on the hub.

        Raises:
            ValueError: If it is not one.
        """
        exported = VideoTextEncoder.from_pretrained(name, device=device)
        model = exported.model
        encoder = type(model.video_encoder).__name__
        identity = describe_model(encoder, model, exported.folder.name, exported.fingerprint)
        return cls(model, exported.clip.with_frames(num_frames), identity)

    def identity(self) -> dict[str, Any]:
        """Say which model it is."""
        return self._identity

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Encode clips (B, T, C, H, W)."""
        encoding = self.model.encode_video(video.to(self._device))
        return ClipVectors(self.model.project_video(encoding.pooled), encoding.tokens)

    def encode_texts(self, captions: list[str]) -> CaptionVectors:
        """Encode captions."""
        tokens = self.model.text_encoder.tokenize(captions, self._device)
        text = self.model.encode_text(*tokens)
        if not self.model.text_encoder.fuses:
            return CaptionVectors(self.model.project_text(text.pooled))
        lengths = tokens.attention_mask.sum(1).tolist()
        states = [row[:length].cpu() for row, length in zip(text.tokens, lengths, strict=True)]
        return CaptionVectors(self.model.project_text(text.pooled), states)

    def check_captions(self, captions: Sequence[str]) -> CaptionCheck | None:
        """Say what becomes of captions, if it can be told."""
        return self.model.text_encoder.check_captions(captions)

    @property
    def takes_long_videos(self) -> bool:
        """Whether the video encoder is one that reads a video piece by piece."""
        return takes_long_videos(self.model.video_encoder)

    def encode_long(self, frames: Iterable[Tensor], num_frames: int) -> ClipVectors:
        """Encode one video of any length, in portions (t, C, H, W)."""
        video = encode_long_video(self.model.video_encoder, frames, num_frames, keep_tokens=True)
        assert video.tokens is not None
        return ClipVectors(self.model.project_video(video.per_step[None]), video.tokens[None])

    @property
    def temperature(self) -> float:
        """The learned one."""
        return self.model.temperature.item()

    @property
    def mixture(self) -> Mixture:
        """How pairs are re-ranked."""
        return self.model.mixture

    def match(self, states: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Score M captions with the tokens (L, D) of one clip: (M,)."""
        return self.match_logits(states, tokens)[:, 1]

    def match_logits(self, states: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Score M captions with the tokens (L, D) of one clip: (M, 2) logits.

        The clip's keys and values are computed once for all of them.
        """
        vision = self.model.fusion.project_vision(tokens[None].to(self._device))
        scores = torch.empty(len(states), 2)
        for part in _of_like_length(states):
            padded = pad_sequence([states[i] for i in part], batch_first=True).to(self._device)
            lengths = torch.tensor([len(states[i]) for i in part], device=self._device)
            mask = torch.arange(padded.shape[1], device=self._device) < lengths[:, None]
            fused = self.model.fuse(padded, mask, vision)
            scores[part] = self.model.match_logits(fused).float().cpu()
        return scores

    @property
    def _device(self) -> torch.device:
        return self.model.temperature.device


class OpenClipEncoder:
    """Any model of open_clip, frame by frame: a clip is the mean of its frames' unit vectors.

    Args:
        name: open_clip's name of the model, or its model config, a file that ends in .json.
        pretrained: A tag of open_clip or a file; None = random weights.
        num_frames: Frames per clip.
        device: Where to compute.

    Raises:
        ValueError: If open_clip does not know the model or cannot get the weights.
    """

    def __init__(self, name: str, pretrained: str | None, num_frames: int, device: str) -> None:
        model: Any
        model, self._tokenizer = create_model(name, pretrained)
        pixels = model.visual.preprocess_cfg
        size = pixels["size"]
        self.clip = ClipSettings(
            num_frames=num_frames,
            image_size=size if isinstance(size, int) else size[0],
            mean=tuple(pixels["mean"]),
            std=tuple(pixels["std"]),
            fit="crop",
        )
        self.name = f"{name}, mean of frames"
        self._model = model.to(device).eval()
        self._device = device
        self._checkpoint = pretrained or "random weights"

    def identity(self) -> dict[str, Any]:
        """Say which model it is."""
        return identity_of_weights(self.name, self._model, self._checkpoint)

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Encode clips (B, T, C, H, W)."""
        frames = self._model.encode_image(video.flatten(0, 1).to(self._device))
        units = F.normalize(frames.float(), dim=-1)
        mean = units.view(*video.shape[:2], -1).mean(1)
        return ClipVectors(F.normalize(mean, dim=-1)[:, None])

    def encode_texts(self, captions: list[str]) -> CaptionVectors:
        """Encode captions."""
        return CaptionVectors(self._model.encode_text(self._tokenizer(captions).to(self._device)))


class SentenceTransformerEncoder:
    """Any model of sentence-transformers that encodes videos and texts.

    It gets frames, not files: all models see the same ones.

    Args:
        name: A folder or a name on the hub.
        num_frames: Frames per clip.
        image_size: Side of the square frames, pixels.
        device: Where to compute.
        trust_remote_code: Run code that comes with the model, or a module that it names.

    Raises:
        ValueError: If the model cannot be loaded or does not encode videos.
    """

    def __init__(
        self, name: str, num_frames: int, image_size: int, device: str, trust_remote_code: bool
    ) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(
                here_or_hub(name), device=device, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"sentence-transformers cannot load {name!r}: {error}") from error
        if not self._model.supports("video"):
            raise ValueError(f"{name!r} does not encode videos; choose a model that does")
        self.name = Path(name).name
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # its own processor normalises
        self.clip = ClipSettings(num_frames, image_size, mean=zero, std=one)

    def identity(self) -> dict[str, Any]:
        """Say which model it is."""
        return identity_of_weights(self.name, self._model, self.name)

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Encode clips (B, T, C, H, W) in [0, 1]."""
        frames = (video * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
        return ClipVectors(self._encode([{"video": clip} for clip in frames])[:, None])

    def encode_texts(self, captions: list[str]) -> CaptionVectors:
        """Encode captions."""
        return CaptionVectors(self._encode(captions))

    def _encode(self, inputs: list[Any]) -> Tensor:
        vectors: Tensor = self._model.encode(
            inputs, batch_size=len(inputs), convert_to_tensor=True, show_progress_bar=False
        )
        return vectors.cpu()


def load_encoder(
    description: str, num_frames: int | None, device: str, trust_remote_code: bool = False
) -> Encoder:
    """Load somebody else's model.

    Args:
        description: ``open_clip:NAME`` (random weights), ``open_clip:NAME:PRETRAINED``,
            ``sentence-transformers:NAME`` or ``vmm:FOLDER`` of ``vmm export``.
        num_frames: Frames per clip; None = as trained, or 8 where that is not known.
        device: Where to compute.
        trust_remote_code: See ``SentenceTransformerEncoder``.

    Raises:
        ValueError: If there is no such kind of model, or it cannot be loaded.
    """
    kind, _, name = description.partition(":")
    frames = 8 if num_frames is None else num_frames
    if kind == "open_clip" and name:
        name, _, pretrained = name.partition(":")
        return OpenClipEncoder(name, pretrained or None, frames, device)
    if kind == "sentence-transformers" and name:
        return SentenceTransformerEncoder(name, frames, 224, device, trust_remote_code)
    if kind == "vmm" and name:
        return VmmEncoder.of_folder(name, device, num_frames)
    raise ValueError(
        f"{description!r} is no model; give open_clip:NAME, open_clip:NAME:PRETRAINED, "
        "sentence-transformers:NAME or vmm:FOLDER"
    )


def identity_of_weights(name: str, model: nn.Module, checkpoint: str) -> dict[str, Any]:
    """Describe a model by the hash of its weights."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return describe_model(name, model, checkpoint, digest.hexdigest())


def describe_model(encoder: str, model: nn.Module, checkpoint: str, sha256: str) -> dict[str, Any]:
    """Say which model it is, as ``Encoder.identity`` does.

    Args:
        encoder: Its name.
        model: With its weights.
        checkpoint: Name of their file.
        sha256: Of that file.
    """
    return {
        "encoder": encoder,
        "parameters": sum(p.numel() for p in model.parameters()),
        "checkpoint": checkpoint,
        "sha256": sha256,
    }


def _of_like_length(states: Sequence[Tensor]) -> Iterator[list[int]]:
    """Deal captions to batches of bounded size, the shortest first, so that little is padding."""
    part: list[int] = []
    for i in sorted(range(len(states)), key=lambda i: len(states[i])):
        if part and (len(part) + 1) * len(states[i]) > _TOKENS_AT_ONCE:
            yield part
            part = []
        part.append(i)
    if part:
        yield part
