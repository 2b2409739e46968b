"""What text encoders share that have a tokenizer of transformers and fuse by layers of BERT.

Shape legend: see ``vmm.types`` and ``vmm.models.text_interface``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmm.models.bert import BertLayer, fuse_through, project_for
from vmm.models.library_files import complete_tokenizer, refuse_other_words
from vmm.models.text_interface import FusionEncoder, Reading, VisionKV
from vmm.types import TextTokens


class TokenizedTextEncoder(FusionEncoder):
    """Base of text encoders with such a tokenizer and such layers, if any."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The transformers tokenizer, read on first use."""

    @abstractmethod
    def _fusion_layers(self) -> Sequence[BertLayer]:
        """Give the layers that look at a video, or refuse if there is none."""

    def _worded(self, texts: list[str]) -> list[str]:
        """Give captions as the tokenizer is to see them; by default as they are."""
        return texts

    def _cleaning(self) -> list[dict[str, Any]]:
        """Give ``_worded`` as normalizers of the package tokenizers; by default none."""
        return []

    @property
    def pad_id(self) -> int:
        """Token that fills captions up to a common length."""
        return int(self.tokenizer.pad_token_id)

    @property
    def unknown_id(self) -> int | None:
        """Token of words of which the vocabulary has no pieces, if there is one."""
        number: int | None = self.tokenizer.unk_token_id
        return number

    def tokenize(self, texts: list[str], device: torch.device | str = "cpu") -> TextTokens:
        """Cut captions to ``max_words`` tokens and pad them to the longest of the batch."""
        encoded = self.tokenizer(
            self._worded(texts),
            padding="longest",
            padding_side="right",
            truncation=True,
            max_length=self.max_words,
        )
        ids, mask = (
            torch.tensor(encoded[name], dtype=torch.int64, device=device)
            for name in ("input_ids", "attention_mask")
        )
        return TextTokens(ids, mask)

    def whole_tokens(self, texts: list[str]) -> list[list[int]]:
        """See ``TextEncoder.whole_tokens``."""
        if not texts:
            return []
        # Not verbose: it would warn of long captions, which is what is being found out.
        ids: list[list[int]] = self.tokenizer(self._worded(texts), verbose=False)["input_ids"]
        return ids

    def save_vocabulary(self, folder: Path) -> None:
        """Write the tokenizer."""
        self.tokenizer.save_pretrained(folder)

    def complete_vocabulary(self, folder: Path) -> Reading | None:
        """See ``TextEncoder.complete_vocabulary``."""
        done = complete_tokenizer(folder, self.max_words, self._cleaning())
        return "tokenizers" if done else None

    def check_vocabulary(self, folder: Path) -> None:
        """Refuse weights that were trained with another vocabulary; see ``TextEncoder``."""
        refuse_other_words(self.tokenizer, folder)

    @classmethod
    def arguments_in(cls, folder: Path, exported: Mapping[str, Any]) -> dict[str, Any]:
        """Say where the tokenizer is, and that no weights are to be looked for."""
        return {**exported, "name": str(folder), "pretrained": False}

    def project_vision(self, vision: Tensor, mask: Tensor | None = None) -> VisionKV:
        """See ``FusionEncoder.project_vision``: (B, N, Dv), mask (B, N)."""
        return project_for(self._fusion_layers(), vision, mask)

    def fuse(self, states: Tensor, attention_mask: Tensor, vision: VisionKV) -> Tensor:
        """See ``FusionEncoder.fuse``: (M, S, Dt) states and (M, S) mask to (M, S, Dt)."""
        return fuse_through(self._fusion_layers(), states, attention_mask, vision)
