"""A small text encoder of one's own: its words are those of the captions, its weights random."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vmm.whole import whole_folder
from vmm.wording import clean_caption

_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_MOST = 30_000
"""Words of a vocabulary, the most frequent; others are spelled out."""


def words_of(caption: str) -> list[str]:
    """Cut a caption into words as the tokenizer of such a folder does before it looks them up.

    It takes accents away, and each Chinese character for a word.
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    text = BertNormalizer(lowercase=True).normalize_str(clean_caption(caption))
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(text)]


def write_words(folder: Path, captions: Sequence[str], sizes: Path, max_words: int) -> int:
    """Write a folder that ``BertTextEncoder`` can name.

    Args:
        folder: To create.
        captions: Whose words it gets. Letters get tokens as well, so that all words can be read.
        sizes: Folder of the BERT whose sizes it has.
        max_words: Tokens that a caption may have, marks included.

    Returns:
        The number of words.

    Raises:
        ValueError: If ``folder`` holds something.
    """
    counts = Counter(word for text in captions for word in words_of(text))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:_MOST]
    letters = sorted({letter for word in counts for letter in word} | {*string.ascii_lowercase})
    marks = [*string.digits, *string.punctuation]
    tokens = [*_MARKS, *words, *letters, *(f"##{letter}" for letter in letters), *marks]
    vocabulary = list(dict.fromkeys(tokens))
    config = json.loads((sizes / "config.json").read_bytes())
    config |= {"vocab_size": len(vocabulary), "max_position_embeddings": max_words}
    with whole_folder(folder) as out:
        (out / "vocab.txt").write_text("".join(f"{t}\n" for t in vocabulary), encoding="utf-8")
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        content = (sizes / "tokenizer_config.json").read_bytes()
        (out / "tokenizer_config.json").write_bytes(content)
    return len(words)
