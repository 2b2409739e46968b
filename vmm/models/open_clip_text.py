"""The text towers of CLIP, SigLIP and their kind, built by open_clip.

CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343). They read captions alone: no layer of theirs
looks at a video, so there is nothing that matches pairs or guesses words. Shape legend: see
``vmm.types``; Dt text width, E width of the joint space.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmm.models.clip_tower import build_text, checked_config, read_config, read_text
from vmm.models.joint_projection import JointProjection
from vmm.models.open_clip_tokenizer import Tokenizer
from vmm.models.text_interface import Reading, TextEncoder
from vmm.models.weights import KeyReport, load_accounted
from vmm.ops.attention import attention_kernel
from vmm.types import TextTokens

_CONFIG = "open_clip_config.json"

logger = logging.getLogger(__name__)


class OpenClipTextEncoder(TextEncoder):
    """A text tower of open_clip, with its own tokenizer, length and pooling.

    Building it reads the model config only and initialises at random; ``load_pretrained`` reads the
    weights, the first ``tokenize`` the vocabulary. The pooled caption is that of the tower before
    its projection to the joint space, which ``VideoTextModel`` has a place for.

    Args:
        vision_dim: Width Dv of the video encoder's tokens, which this encoder does not look at.
        name: An open_clip model name, or the path of a model config (``.json``).
        pretrained: A tag of open_clip for that model, or a file of the whole model or of its text
            tower; None = random weights.
        max_words: Captions are cut to this many tokens, marks included; None = as many as the tower
            has positions, which is the only number for towers that read padding (SigLIP's).
        tokenizer: Folder or file of the vocabulary; None = what the config names, or CLIP's.
        architecture: The model config itself, where it is known; ``name`` is then only a name.

    Raises:
        ValueError: If there is no such model, its text tower is not open_clip's own, or it does not
            allow ``max_words``.
    """

    def __init__(
        self,
        vision_dim: int,
        name: str = "ViT-B-16-quickgelu",
        pretrained: str | None = None,
        max_words: int | None = None,
        tokenizer: str | None = None,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        known = architecture is not None
        config = checked_config(architecture, name) if known else read_config(name)
        text: Any = build_text(config)
        positions = int(text.context_length)
        words = positions if max_words is None else max_words
        if not 3 <= words <= positions:
            raise ValueError(
                f"max_words {words} is not in 3..{positions}, the positions of {name}; change it"
            )
        super().__init__(vision_dim, int(text.width), int(text.vocab_size), words)
        # Where attention is causal, nothing before the end of a caption sees what comes after it.
        self._marks_end = text.pool_type in ("argmax", "eos")
        self._causal = text.attn_mask is not None
        if words != positions and not (self._marks_end and self._causal):
            raise ValueError(
                f"the text tower of {name} reads captions with their padding, {positions} tokens "
                f"each; leave max_words out, it is {words}"
            )
        text.text_projection = None  # it is the model's ``text_proj``
        self.name = name
        self.pretrained = pretrained
        self.vocabulary = tokenizer
        self.architecture = config
        self.text = text
        self._tokenizer: Tokenizer | None = None
        self._projection: JointProjection | None = None

    def load_pretrained(self) -> KeyReport | None:
        """Load the tower's weights, if ``pretrained`` names any, and note its projection.

        Raises:
            ValueError: If the file or tag does not exist, cannot be fetched, or does not fit.
        """
        if self.pretrained is None:
            return None
        found = read_text(self.name, self.pretrained)
        state = {k: v for k, v in found.state.items() if not k.startswith("text_projection")}
        report = load_accounted(
            self.text, state, str(found.path), {}, {"^attn_mask$": "a constant"}
        )
        weight, bias = _projection_in(found.state, self.embed_dim)
        self._projection = JointProjection(str(found.path), weight, bias, found.temperature)
        logger.info("text encoder %s %s: %s", self.name, self.pretrained, report)
        others = dict.fromkeys(found.other, "not part of the text tower")
        return report._replace(dropped=report.dropped | others)

    def joint_projection(self) -> JointProjection | None:
        """The projection that came with the weights; see ``TextEncoder``."""
        return self._projection

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of ``name``, read on first use."""
        if self._tokenizer is None:
            text = self.architecture.get("text_cfg") or {}
            self._tokenizer = Tokenizer(text, self.max_words, self.vocabulary)
        return self._tokenizer

    def tokenize(self, texts: list[str], device: torch.device | str = "cpu") -> TextTokens:
        """Cut captions to ``max_words`` tokens and pad them as the tower wants it.

        Raises:
            ValueError: If the tokenizer has words that the tower does not know.
        """
        ids = self.tokenizer(texts)
        if ids.numel() and int(ids.max()) >= self.vocab_size:
            raise ValueError(
                f"the tokenizer gives token {int(ids.max())}, and {self.name} knows only "
                f"{self.vocab_size}; name the tokenizer of this tower"
            )
        mask = torch.ones_like(ids)
        if self._marks_end:
            last = self._last(ids)
            mask = (torch.arange(ids.shape[1]) <= last[:, None]).long()
            if self._causal:  # so longer padding would change nothing
                length = int(last.max()) + 1 if len(last) else 0
                ids, mask = ids[:, :length], mask[:, :length]
        return TextTokens(ids.to(device), mask.to(device))

    def _last(self, ids: Tensor) -> Tensor:
        """Find the token that ends each caption (B, S): (B,)."""
        argmax = self.text.pool_type == "argmax"
        return (ids if argmax else (ids == int(self.text.eos_id)).int()).argmax(1)

    def encode(self, tokens: TextTokens) -> Tensor:
        """Read captions: (B, S, Dt) states after the last norm."""
        text, length = self.text, tokens.input_ids.shape[1]
        # Not cut to the length by slices: graphs of torch.export would then be of some lengths.
        own = torch.arange(length, device=tokens.input_ids.device)
        table = text.positional_embedding.index_select(0, own)
        mask = None
        if self._causal:
            mask = text.attn_mask.index_select(0, own).index_select(1, own)
        x = text.token_embedding(tokens.input_ids) + table
        with attention_kernel(x.device, length, length):
            for block in text.transformer.resblocks:
                x = block(x, attn_mask=mask)
        states: Tensor = text.ln_final(x)
        return states

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Take the state of the last token, or the first one where the tower does: (B, Dt)."""
        if self.text.pool_type == "first":
            return states[:, 0]
        last = (attention_mask.sum(1) - 1).clamp(min=0)
        return states[torch.arange(states.shape[0], device=states.device), last]

    def exported_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the model config, so that no file or name is looked up."""
        name = self.name.replace("\\", "/").rpartition("/")[2]
        sizes = {"max_words": self.max_words, "architecture": self.architecture}
        return {"name": name, "pretrained": None, **sizes}

    def save_vocabulary(self, folder: Path) -> None:
        """Write the files of the tokenizer."""
        self.tokenizer.save(folder)

    def save_sources(self, folder: Path) -> None:
        """Write the tokenizer and the model config."""
        self.save_vocabulary(folder)
        self.complete_vocabulary(folder)

    def complete_vocabulary(self, folder: Path) -> Reading:
        """Write the model config, of which this class needs no more to read captions."""
        (folder / _CONFIG).write_text(json.dumps(self.architecture, indent=2) + "\n")
        return "open_clip"

    def check_vocabulary(self, folder: Path) -> None:
        """Refuse weights that were trained with another vocabulary.

        Args:
            folder: Where another encoder wrote by ``save_vocabulary``.

        Raises:
            ValueError: If numbers of tokens mean other words here.
        """
        text = self.architecture.get("text_cfg") or {}
        theirs = Tokenizer(text, self.max_words, str(folder))
        if theirs.words != self.tokenizer.words:
            raise ValueError(
                f"the weights were trained with the tokenizer in {folder}, which has other words "
                f"than that of {self.name}; name that one by text_encoder.init_args.tokenizer"
            )

    @classmethod
    def arguments_in(cls, folder: Path, exported: Mapping[str, Any]) -> dict[str, Any]:
        """Say where the tokenizer is, and that no weights are to be looked for."""
        own = {**exported, "tokenizer": str(folder), "pretrained": None}
        if (folder / _CONFIG).is_file():
            own["name"] = str(folder / _CONFIG)
        return own


def _projection_in(state: Mapping[str, Tensor], width: int) -> tuple[Tensor, Tensor | None]:
    """Find a tower's projection: weight (E, Dt) and bias (E,); the identity where it has none."""
    if "text_projection" in state:
        return state["text_projection"].T, None
    if "text_projection.weight" in state:
        return state["text_projection.weight"], state.get("text_projection.bias")
    return torch.eye(width), None
