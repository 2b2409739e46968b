"""Text towers of transformers: RoBERTa, MPNet, ModernBERT, XLM-R and others of the BERT family.

The tower reads captions as in its own library. Layers of vmm on top of it look at videos, if any
are asked for: a library's layers have no place for that. Shape legend: see
``vmm.models.text_interface``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from vmm.models.bert import (
    BertArchitecture,
    BertLayer,
    MlmHead,
    initialise,
)
from vmm.models.library_files import (
    build_library_model,
    configuration_of,
    read_configuration,
    read_json,
    read_library_weights,
    read_tokenizer,
    refuse_other_model,
    stated,
)
from vmm.models.tokenized_text import TokenizedTextEncoder
from vmm.models.weights import KeyReport, load_accounted
from vmm.types import TextTokens

logger = logging.getLogger(__name__)

FAMILIES = (
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""What transformers calls the models that are known to work: each token sees all others."""

Pooling = Literal["cls", "mean"]

_WHAT = "text encoder"
_POOLING_FILE = "1_Pooling/config.json"
"""Where sentence-transformers says how a model pools."""

_POSITIONS = "position_embeddings"
"""What the libraries' tables of positions are called."""

_POOLING_KEYS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
}

_DROPPED = {
    r"^pooler\.": "a pooler, which is not used",
    r"(position_ids|token_type_ids)$": "a constant",
    r"^(cls|lm_head|head|decoder|vocab_\w+|discriminator_\w+|generator_\w+|classifier)\.": (
        "a head of the model's own training"
    ),
}


class LibraryTextEncoder(TokenizedTextEncoder):
    """A text tower of transformers, and layers on top of it that also look at a video.

    Captions go to its tokenizer as they are, with their capitals and punctuation. Building it reads
    the configuration only and initialises at random.

    Args:
        vision_dim: Width Dv of the video tokens that the fusion layers look at.
        name: Hub name or local folder (``config.json``, tokenizer, weights).
        num_fusion_layers: Layers of cross-attention on top, trained from scratch; 0 makes a dual
            encoder, without matching and masked words.
        pretrained: Whether ``load_pretrained`` loads anything.
        max_words: Captions are cut to this many tokens, the marks at both ends included.
        pooling: What stands for a caption: the first token's state ("cls") or the mean of all
            ("mean"); None = as the model's own files say, else "cls".
        configuration: The model's, where it is known; ``name`` then only says where the tokenizer
            is, and None reads the configuration there too.

    Raises:
        ValueError: If the configuration cannot be read, is not of ``FAMILIES``, or does not allow
            ``max_words`` or fusion layers.
    """

    def __init__(
        self,
        vision_dim: int,
        name: str,
        num_fusion_layers: int = 0,
        pretrained: bool = True,
        max_words: int = 32,
        pooling: Pooling | None = None,
        configuration: dict[str, Any] | None = None,
    ) -> None:
        if configuration is None:
            config = read_configuration(name, _WHAT)
        else:
            config = configuration_of(configuration, f"{_WHAT} {name!r}")
        if config.model_type not in FAMILIES:
            raise ValueError(
                f"{_WHAT} {name!r} is of type {config.model_type!r}; choose one of "
                f"{', '.join(FAMILIES)}"
            )
        if not 0 <= num_fusion_layers <= config.num_hidden_layers:
            raise ValueError(
                f"num_fusion_layers {num_fusion_layers} is not in 0..{config.num_hidden_layers}, "
                f"the layers of {name}"
            )
        super().__init__(vision_dim, config.hidden_size, config.vocab_size, max_words)
        self.name = name
        self.pretrained = pretrained
        self.pooling: Pooling = pooling or _usual_pooling(name, config)
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling {pooling!r} is none of {', '.join(get_args(Pooling))}")
        self.tower: Any = build_library_model(config, f"{_WHAT} {name!r}")
        self.config = config
        pad = _counted_from(self.tower)
        longest = config.max_position_embeddings - (0 if pad is None else pad + 1)
        if not 3 <= max_words <= longest:
            raise ValueError(
                f"max_words {max_words} is not in 3..{longest}: a word between two marks, and no "
                f"more than {name} has positions for"
            )
        self.fusion = nn.ModuleList()
        self.cls: MlmHead | None = None
        if num_fusion_layers:
            self._add_fusion(num_fusion_layers)
        self._tokenizer: Any = None

    def _add_fusion(self, count: int) -> None:
        """Add layers that look at a video, and the head that guesses words."""
        config, width = self.config, self.embed_dim
        if self._words().shape[1] != width:
            raise ValueError(
                f"the words of {self.name} are {self._words().shape[1]} wide and its states "
                f"{width}, so its states guess no words; set num_fusion_layers to 0"
            )
        sizes = BertArchitecture(
            vocab_size=len(self._words()),
            hidden_size=width,
            num_hidden_layers=count,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=getattr(config, "intermediate_size", 4 * width),
            initializer_range=getattr(config, "initializer_range", 0.02),
        )
        self.fusion.extend(BertLayer(sizes, self.vision_dim) for _ in range(count))
        self.cls = MlmHead(sizes)
        initialise(self.fusion, sizes.initializer_range)
        initialise(self.cls, sizes.initializer_range)

    @property
    def fuses(self) -> bool:
        """Whether there are fusion layers."""
        return len(self.fusion) > 0

    def load_pretrained(self) -> KeyReport | None:
        """Load the published weights of the tower; fusion layers stay as they are.

        Returns:
            What became of every key, or None if ``pretrained`` is off.

        Raises:
            ValueError: If there are no weights, or a key of theirs or ours is left unexplained.
        """
        if not self.pretrained:
            return None
        state = read_library_weights(self.name, _WHAT)
        prefix = f"{self.tower.base_model_prefix}."
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        report = load_accounted(self.tower, state, self.name, {}, _DROPPED)
        logger.info("text encoder %s: %s", self.name, report)
        return report

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer of ``name``, read on first use.

        Raises:
            ValueError: If it is one of another model.
        """
        if self._tokenizer is None:
            tokenizer = read_tokenizer(self.name, self.vocab_size)
            refuse_other_model(tokenizer, self.name, self.vocab_size, _counted_from(self.tower))
            self._tokenizer = tokenizer
        return self._tokenizer

    @property
    def cls_id(self) -> int:
        """Token that opens every caption; its state stands for the whole."""
        return self._mark("cls_token_id", "opens captions", "vtm and loss_weights.mlm")

    @property
    def mask_id(self) -> int:
        """Token that hides a word."""
        return self._mark("mask_token_id", "hides words", "mlm")

    def _mark(self, mark: str, does: str, loss: str) -> int:
        number = getattr(self.tokenizer, mark)
        if number is None:
            raise ValueError(
                f"the tokenizer of {self.name} has no token that {does}; set loss_weights.{loss} "
                "to 0"
            )
        return int(number)

    def encode(self, tokens: TextTokens) -> Tensor:
        """Read captions alone: (B, S, Dt), the last states of the library's model."""
        ids, mask = tokens
        states: Tensor = self.tower(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Make one vector (B, Dt) of a caption's states (B, S, Dt), by ``pooling``."""
        if self.pooling == "cls":
            return states[:, 0]
        weights = attention_mask[..., None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)

    def unread(self, fused: bool, words: bool) -> list[nn.Module]:
        """The fusion layers, and the head that guesses words; see ``TextEncoder``."""
        head = [] if self.cls is None or words else [self.cls]
        return [*([] if fused else self.fusion), *head]

    def exported_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sizes; the vocabulary goes with the folder, the weights are the model's."""
        return {
            "num_fusion_layers": len(self.fusion),
            "max_words": self.max_words,
            "pooling": self.pooling,
            "configuration": stated(self.config),
        }

    def save_sources(self, folder: Path) -> None:
        """Write the tokenizer, the configuration and the pooling, as a folder ``name`` can name."""
        self.save_vocabulary(folder)
        config = json.dumps(stated(self.config), indent=2)
        (folder / "config.json").write_text(config + "\n")
        (folder / _POOLING_FILE).parent.mkdir()
        pooling = {key: way == self.pooling for key, way in _POOLING_KEYS.items()}
        (folder / _POOLING_FILE).write_text(json.dumps(pooling) + "\n")

    def mlm_logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary for each state: (..., Dt) to (..., vocabulary)."""
        self._fusion_layers()
        assert self.cls is not None
        logits: Tensor = self.cls(states, self._words())
        return logits

    def _words(self) -> Tensor:
        """Vectors of the vocabulary: (V, Dt)."""
        words: Tensor = self.tower.get_input_embeddings().weight
        return words

    def _fusion_layers(self) -> list[BertLayer]:
        self.fusing(f"give {self.name} num_fusion_layers above 0")
        return [layer for layer in self.fusion if isinstance(layer, BertLayer)]


def _usual_pooling(name: str, config: Any) -> Pooling:
    """Tell how a model is pooled: what its files say, else the first token's state."""
    said = read_json(name, _POOLING_FILE)
    ways = [way for key, way in _POOLING_KEYS.items() if said.get(key) is True]
    if said and not ways:
        raise ValueError(
            f"{name} pools its states in a way of its own ({_POOLING_FILE}); set pooling to cls or "
            "mean"
        )
    return ways[0] if ways else getattr(config, "classifier_pooling", "cls")


def _counted_from(tower: nn.Module) -> int | None:
    """Give the token of padding by which a tower counts positions, after it; None if by none."""
    tables = (table for name, table in tower.named_modules() if name.endswith(_POSITIONS))
    return next((table.padding_idx for table in tables if isinstance(table, nn.Embedding)), None)
