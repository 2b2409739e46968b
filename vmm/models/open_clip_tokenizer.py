"""Tokenizers of the models of open_clip: CLIP's own, and those of transformers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmm.hub import here_or_hub
from vmm.models.clip_tower import import_open_clip

_BPE = "bpe_simple_vocab_16e6.txt.gz"
"""The vocabulary of CLIP's tokenizer, as open_clip has it."""


class Tokenizer:
    """The tokenizer of an open_clip model, from files.

    Args:
        text: ``text_cfg`` of the model's config.
        context_length: Tokens of a caption; longer ones are cut.
        source: Folder or file of the vocabulary; None = what the config names, or CLIP's.

    Raises:
        ValueError: If the vocabulary cannot be read.
    """

    def __init__(self, text: Mapping[str, Any], context_length: int, source: str | None) -> None:
        open_clip = import_open_clip()
        options = dict(text.get("tokenizer_kwargs") or {})
        named = text.get("hf_tokenizer_name")
        try:
            if named:
                place = here_or_hub(str(source or named))
                mode = text.get("tokenizer_mode")
                self._call = open_clip.tokenizer.HFTokenizer(
                    place, context_length, tokenizer_mode=mode, **options
                )
            else:
                file = Path(source or open_clip.tokenizer.default_bpe())
                self.file = file / _BPE if file.is_dir() else file
                self._call = open_clip.tokenizer.SimpleTokenizer(
                    str(self.file), context_length=context_length, **options
                )
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"cannot read the tokenizer {source or named or 'of CLIP'}; give the folder of its "
                f"files, or its name on the hub and a network. {error}"
            ) from error

    def __call__(self, texts: list[str]) -> Tensor:
        """Cut captions into tokens: (B, context length) int64, padded."""
        return torch.as_tensor(self._call(texts))

    def save(self, folder: Path) -> None:
        """Write its files."""
        if hasattr(self, "file"):
            shutil.copyfile(self.file, folder / _BPE)
        else:
            self._call.save_pretrained(str(folder))

    @property
    def words(self) -> dict[str, int]:
        """All tokens by their text."""
        own = hasattr(self, "file")
        return dict(self._call.encoder if own else self._call.tokenizer.get_vocab())
