"""BERT in two halves: layers that read a caption alone, and layers that also look at a video.

Devlin et al. 2018 (arXiv 1810.04805) with the cross-attention of ALBEF (arXiv 2107.07651). The
parameter names are those of the published BERT and VideoMamba checkpoints. Shape legend: see
``vmm.types`` and ``vmm.models.text_interface``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vmm.models.bert import (
    Bert,
    BertArchitecture,
    BertLayer,
    MlmHead,
    expand_mask,
    initialise,
)
from vmm.models.library_files import (
    read_configuration,
    read_library_weights,
    read_tokenizer,
)
from vmm.models.tokenized_text import TokenizedTextEncoder
from vmm.models.weights import KeyReport, load_accounted
from vmm.types import TextTokens
from vmm.wording import CLEANING, clean_caption

logger = logging.getLogger(__name__)

DROPPED_KEYS = {
    r"pooler\.": "the first token's state is used as it is, without a pooler",
    r"position_ids$": "a constant",
    r"cls\.seq_relationship\.": "next-sentence prediction is not part of this model",
    r"cls\.predictions\.decoder\.": "the output layer is tied to the word embeddings",
}
"""Keys of published BERT files that have no counterpart here, with the reason."""


class BertTextEncoder(TokenizedTextEncoder):
    """Encode captions; fuse them with videos; guess masked words.

    Building it reads the configuration only and initialises at random. ``load_pretrained`` reads
    the weights, the first ``tokenize`` the vocabulary.

    Args:
        vision_dim: Width Dv of the video tokens that the fusion layers look at.
        name: Hub name or local folder of a BERT (``config.json``, vocabulary, weights).
        fusion_layer: Layers below this one see the caption alone, the others also the video; None
            = no layer sees the video.
        pretrained: Whether ``load_pretrained`` loads anything.
        max_words: Captions are cut to this many word pieces, [CLS] and [SEP] included.
        architecture: Sizes, where they are known; ``name`` then only says where the vocabulary is,
            and None reads the sizes there too.

    Raises:
        ValueError: If the configuration cannot be read, is not a BERT's, or does not allow
            ``fusion_layer`` or ``max_words``.
    """

    def __init__(
        self,
        vision_dim: int,
        name: str,
        fusion_layer: int | None = None,
        pretrained: bool = True,
        max_words: int = 32,
        architecture: BertArchitecture | None = None,
    ) -> None:
        config = architecture or _read_architecture(name)
        depth = config.num_hidden_layers
        if fusion_layer is None:
            fusion_layer = depth
        if not 0 < fusion_layer <= depth:
            raise ValueError(
                f"fusion_layer {fusion_layer} is not in 1..{depth}, the layers of {name}"
            )
        if max_words < 3:
            raise ValueError(f"max_words {max_words} leaves no room for a word between the marks")
        if max_words > config.max_position_embeddings:
            raise ValueError(
                f"max_words {max_words} exceeds the {config.max_position_embeddings} positions of "
                f"{name}; lower it"
            )
        super().__init__(vision_dim, config.hidden_size, config.vocab_size, max_words)
        self.name = name
        self.fusion_layer = fusion_layer
        self.pretrained = pretrained
        self.architecture = config
        self.bert = Bert(config, fusion_layer, vision_dim)
        self.cls = MlmHead(config)
        self._tokenizer: Any = None
        self._initialise(config.initializer_range)

    @property
    def fuses(self) -> bool:
        """Whether there are layers from ``fusion_layer`` on."""
        return self.fusion_layer < self.architecture.num_hidden_layers

    def load_pretrained(self) -> KeyReport | None:
        """Load the published BERT weights; cross-attention stays as it is.

        Returns:
            What became of every key, or None if ``pretrained`` is off.

        Raises:
            ValueError: If there are no weights, or a key of theirs or ours is left unexplained.
        """
        if not self.pretrained:
            return None
        state = {
            key if key.startswith(("bert.", "cls.")) else f"bert.{key}": value
            for key, value in read_library_weights(self.name, "text encoder").items()
        }
        new = {r"\.crossattention\.": "cross-attention is trained from scratch"}
        if not any(key.startswith("cls.predictions.") for key in state):
            new[r"^cls\."] = "the file has no language-model head"
        report = load_accounted(self, state, self.name, new, DROPPED_KEYS)
        logger.info("text encoder %s: %s", self.name, report)
        return report

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer of ``name``, read on first use."""
        if self._tokenizer is None:
            self._tokenizer = read_tokenizer(self.name, self.vocab_size)
        return self._tokenizer

    @property
    def cls_id(self) -> int:
        """Token that opens every caption; its state stands for the whole."""
        return int(self.tokenizer.cls_token_id)

    @property
    def mask_id(self) -> int:
        """Token that hides a word."""
        return int(self.tokenizer.mask_token_id)

    def _worded(self, texts: list[str]) -> list[str]:
        """Clean captions, as the published system does."""
        return [clean_caption(text) for text in texts]

    def _cleaning(self) -> list[dict[str, Any]]:
        """The same for programs that read ``tokenizer.json`` and know no vmm."""
        return CLEANING

    def encode(self, tokens: TextTokens) -> Tensor:
        """Read captions alone.

        Returns:
            (B, S, Dt) states of the last layer below ``fusion_layer``; no pooler, no further norm.
        """
        states: Tensor = self.bert.embeddings(tokens.input_ids)
        mask = expand_mask(tokens.attention_mask)
        for layer in self.bert.encoder.layers()[: self.fusion_layer]:
            states = layer(states, mask)
        return states

    def unread(self, fused: bool, words: bool) -> list[nn.Module]:
        """The fusion layers, and the head that guesses words; see ``TextEncoder``."""
        fusion: list[nn.Module] = list(self.bert.encoder.layers()[self.fusion_layer :])
        return (fusion if not fused else []) + ([self.cls] if not words else [])

    def exported_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sizes; the vocabulary goes with the folder, the weights are the model's."""
        return {
            "fusion_layer": self.fusion_layer,
            "max_words": self.max_words,
            "architecture": asdict(self.architecture),
        }

    def save_sources(self, folder: Path) -> None:
        """Write the tokenizer and the sizes, as a folder that ``name`` can name."""
        self.save_vocabulary(folder)
        sizes = {"model_type": "bert", "hidden_act": "gelu"} | asdict(self.architecture)
        (folder / "config.json").write_text(json.dumps(sizes, indent=2) + "\n")

    def mlm_logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary for each state: (..., Dt) to (..., vocabulary)."""
        logits: Tensor = self.cls(states, self.bert.embeddings.word_embeddings.weight)
        return logits

    def _fusion_layers(self) -> list[BertLayer]:
        self.fusing(f"give {self.name} a fusion_layer below {self.fusion_layer}")
        return self.bert.encoder.layers()[self.fusion_layer :]

    def _initialise(self, std: float) -> None:
        """BERT's initialisation."""
        initialise(self, std)
        words = self.bert.embeddings.word_embeddings
        nn.init.zeros_(words.weight[words.padding_idx])


def _read_architecture(name: str) -> BertArchitecture:
    config = read_configuration(name, "text encoder")
    kind = (config.model_type, getattr(config, "hidden_act", None))
    if kind != ("bert", "gelu"):
        raise ValueError(
            f"text encoder {name!r} is of type {kind[0]} with activation {kind[1]}; choose a BERT "
            "with gelu, or name it to vmm.models.library_text.LibraryTextEncoder"
        )
    sizes = {field.name: getattr(config, field.name) for field in fields(BertArchitecture)}
    return BertArchitecture(**sizes)
