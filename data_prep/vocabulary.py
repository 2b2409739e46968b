"""A tiny BERT folder for the demo: configuration, vocabulary and tokenizer, without weights."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_vocabulary(captions: Iterable[str]) -> list[str]:
    """List the tokens: special ones, the words of the captions, then single characters.

    The characters, also as continuations (``##a``), spell any other ASCII word, so that a user's
    own query is never one big ``[UNK]``.
    """
    words = sorted({word for caption in captions for word in caption.lower().split()})
    characters = string.ascii_lowercase + string.digits
    pieces = [*string.punctuation, *characters, *(f"##{c}" for c in characters)]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *words, *pieces]))


def write_text_encoder(folder: Path, captions: Iterable[str]) -> None:
    """Write a folder that ``transformers`` opens as a BERT configuration and tokenizer.

    Args:
        folder: Created if it is not there.
        captions: All captions; their words get tokens of their own.
    """
    vocabulary = build_vocabulary(captions)
    max_position = 48
    config = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": max_position,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": vocabulary.index("[PAD]"),
    }
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": max_position,
        **dict(zip(names, SPECIAL_TOKENS, strict=True)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
