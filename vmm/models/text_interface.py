"""The interface of every text encoder: what the tasks, the evaluation and the export call.

A ``TextEncoder`` reads captions alone, which makes a dual encoder. Matching, masked words and
re-ranking need a ``FusionEncoder``, whose upper layers also look at a video. Shape legend: see
``vmm.types``; Dt text width, Dv video width, M captions to fuse, h heads, d width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vmm.models.joint_projection import JointProjection
from vmm.types import TextTokens
from vmm.wording import CaptionCheck, check_captions

Reading = Literal["tokenizers", "open_clip"]
"""How captions become tokens beside a graph: ``tokenizer.json`` does all of it, or open_clip."""


class TextEncoder(nn.Module, ABC):
    """Base of all text encoders; recipes name a subclass, tasks see only this.

    A subclass takes ``vision_dim`` as its first argument, and the others from the recipe.

    Args:
        vision_dim: Width Dv of the video encoder's tokens.
        embed_dim: Width Dt of states and pooled captions.
        vocab_size: All tokens are below it.
        max_words: Captions are cut to this many tokens.
    """

    def __init__(self, vision_dim: int, embed_dim: int, vocab_size: int, max_words: int) -> None:
        super().__init__()
        self.vision_dim = vision_dim
        self.embed_dim = embed_dim
        self.vocab_size = vocab_size
        self.max_words = max_words

    @abstractmethod
    def tokenize(self, texts: list[str], device: torch.device | str = "cpu") -> TextTokens:
        """Cut captions to ``max_words`` tokens and pad them to the longest of the batch."""

    def whole_tokens(self, texts: list[str]) -> list[list[int]] | None:
        """Tokenise captions as ``tokenize``, with the marks at both ends, but cut none.

        None, the default, says that it cannot be told; then nobody is told of cut captions.
        """
        return None

    @property
    def unknown_id(self) -> int | None:
        """Token of words that the vocabulary cannot express; None, the default: there is none."""
        return None

    def check_captions(self, captions: Sequence[str]) -> CaptionCheck | None:
        """Say what becomes of captions, if it can be told."""
        if self.whole_tokens([]) is None:
            return None
        return check_captions(
            captions, lambda texts: self.whole_tokens(texts) or [], self.max_words, self.unknown_id
        )

    @abstractmethod
    def encode(self, tokens: TextTokens) -> Tensor:
        """Read captions alone: (B, S, Dt) states, one per token."""

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Make one vector of a caption's states; by default the first one is it.

        Args:
            states: (B, S, Dt) from ``encode``.
            attention_mask: (B, S), 1 = a real token.

        Returns:
            (B, Dt).
        """
        return states[:, 0]

    @property
    def fuses(self) -> bool:
        """Whether some layers look at a video."""
        return False

    def fusing(self, remedy: str) -> FusionEncoder:
        """Return itself as an encoder whose upper layers look at a video.

        Raises:
            ValueError: If none does, with the remedy.
        """
        if isinstance(self, FusionEncoder) and self.fuses:
            return self
        raise ValueError(f"no layer of this text encoder looks at a video; {remedy}")

    def unread(self, fused: bool, words: bool) -> list[nn.Module]:
        """Name the parts that no loss reaches; by default none.

        Args:
            fused: Whether a loss reads the states of the layers that look at a video.
            words: Whether a loss reads the guesses of masked words.
        """
        return []

    def load_pretrained(self) -> object:
        """Load published weights that the constructor's arguments name; by default none."""
        return None

    def joint_projection(self) -> JointProjection | None:
        """What those weights map pooled captions to a joint space with; by default nothing."""
        return None

    def exported_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that an exported folder states, as JSON can hold them.

        Args:
            given: Those of the recipe, which are the default.
        """
        return dict(given)

    def save_vocabulary(self, folder: Path) -> None:
        """Write the files that ``tokenize`` needs into an exported folder; by default none."""

    def complete_vocabulary(self, folder: Path) -> Reading | None:
        """Let files in an exported folder do what ``tokenize`` does, for who runs a graph of it.

        Args:
            folder: Where ``save_vocabulary`` wrote.

        Returns:
            How they are read; by default nobody knows.
        """
        return None

    def save_sources(self, folder: Path) -> None:
        """Write what building it needs into its run's folder; by default the vocabulary.

        Weights are in the run's checkpoints. ``arguments_in`` makes of the recipe's arguments those
        that look there and nowhere else.
        """
        self.save_vocabulary(folder)

    def check_vocabulary(self, folder: Path) -> None:
        """Refuse weights of a run that had another vocabulary; by default none is known.

        Args:
            folder: Where the encoder of that run wrote by ``save_sources``.

        Raises:
            ValueError: If numbers of tokens mean other words here.
        """

    @classmethod
    def arguments_in(cls, folder: Path, exported: Mapping[str, Any]) -> dict[str, Any]:
        """Complete arguments by where ``save_vocabulary`` or ``save_sources`` wrote.

        Args:
            folder: There.
            exported: ``exported_arguments``, or those of a recipe; by default they stay as is.
        """
        return dict(exported)


class FusionEncoder(TextEncoder):
    """A text encoder whose upper layers also look at a video, and that guesses masked words."""

    @property
    def fuses(self) -> bool:
        """Whether it was built with such layers."""
        return True

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """Token that fills captions up to a common length."""

    @property
    @abstractmethod
    def cls_id(self) -> int:
        """Token that opens every caption; its state stands for the whole."""

    @property
    @abstractmethod
    def mask_id(self) -> int:
        """Token that hides a word."""

    @abstractmethod
    def project_vision(self, vision: Tensor, mask: Tensor | None = None) -> VisionKV:
        """Project video tokens for every fusion layer, once for all captions they will meet.

        Args:
            vision: (B, N, Dv).
            mask: (B, N), 1 or True = a real token; None = all are.

        Raises:
            ValueError: If there is no fusion layer.
        """

    @abstractmethod
    def fuse(self, states: Tensor, attention_mask: Tensor, vision: VisionKV) -> Tensor:
        """Let captions look at videos: caption i at video i modulo B.

        Args:
            states: (M, S, Dt) from ``encode``, M a multiple of B.
            attention_mask: (M, S), 1 = a real token.
            vision: B videos from ``project_vision``.

        Returns:
            (M, S, Dt) states of the last layer; the first tells whether the pair belongs together.

        Raises:
            ValueError: If there is no fusion layer.
        """

    @abstractmethod
    def mlm_logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary for each state: (..., Dt) to (..., vocabulary)."""


@dataclass(frozen=True)
class VisionKV:
    """Videos as the cross-attention of each fusion layer sees them, projected once.

    Attributes:
        keys: One (B, h, N, d) per fusion layer.
        values: One (B, h, N, d) per fusion layer.
        mask: (B, N) bool, True = a real token; None where all are.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> VisionKV:
        """Select videos by an (M,) int64 index, repeats allowed."""
        # The gradient of index_select is much faster on CPUs than that of indexing.
        return VisionKV(
            tuple(key.index_select(0, rows) for key in self.keys),
            tuple(value.index_select(0, rows) for value in self.values),
            None if self.mask is None else self.mask.index_select(0, rows),
        )
