"""Tokenizers from their folder, without torch and transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmm.recipe_files import here_or_packaged
from vmm.wording import clean_caption

_FILE, _VOCABULARY = "tokenizer.json", "vocab.txt"


@dataclass(frozen=True)
class FolderTokenizer:
    """A tokenizer that cuts nothing.

    Args:
        tokenizer: Of the package ``tokenizers``.
        unknown: Token of what the vocabulary cannot express; None = there is none.
    """

    tokenizer: Any
    unknown: int | None

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Tokenise captions, cleaned as vmm's BERT cleans them, marks at both ends included."""
        cleaned = [clean_caption(text) for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch(cleaned)]


def read_tokenizer(folder: Path) -> FolderTokenizer:
    """Read a tokenizer.

    Args:
        folder: With ``tokenizer.json``, or the ``vocab.txt`` of a BERT without upper case, such as
            ``recipes/encoders/bert_demo``, an exported encoder, or a downloaded text encoder.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    try:
        from tokenizers import BertWordPieceTokenizer, Tokenizer
    except ModuleNotFoundError as error:
        raise ValueError("--tokenizer needs the package tokenizers; install it") from error
    folder = Path(here_or_packaged(str(folder)))
    file, vocabulary = folder / _FILE, folder / _VOCABULARY
    try:
        if file.is_file():
            tokenizer: Any = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
        elif vocabulary.is_file():
            tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        else:
            raise ValueError(
                f"{folder} has neither {_FILE} nor {_VOCABULARY}; name a folder with one"
            )
    except Exception as error:  # the package raises bare exceptions
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{folder} holds no tokenizer that can be read: {error}") from error
    known = (tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>"))
    return FolderTokenizer(tokenizer, next((token for token in known if token is not None), None))
