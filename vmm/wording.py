"""Captions as a tokenizer sees them: which are cut, and which words it does not know.

Standard library only: ``vmm.shards`` looks at shards without torch.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Tokenize = Callable[[list[str]], list[list[int]]]
"""Captions to tokens, marks at both ends included, nothing cut."""

_EXAMPLES = 3
_LONGEST = 40
"""Characters of a word that are shown."""
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
"""A run of letters and digits; each Chinese character is a word, as it is to BERT's tokenizers."""
_OFTEN = 0.1
"""Share of the words from which on more than rare ones are missing in a vocabulary."""
_REMEDY = (
    "if they are many, train with a text encoder whose vocabulary has them, e.g. "
    "`vmm fit -c RECIPE -c overlays/minilm.yaml`"
)


_DROPPED, _PARTING = r"[,.'!?\"()*#:;~]", r"[-/]"

CLEANING: list[dict[str, Any]] = [
    {"type": "Lowercase"},
    {"type": "Replace", "pattern": {"Regex": _DROPPED}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": _PARTING}, "content": " "},
    {"type": "Replace", "pattern": {"String": "<person>"}, "content": "person"},
]
"""What ``clean_caption`` does but for white space, as a ``tokenizer.json`` says it."""


def clean_caption(text: str) -> str:
    """Lower-case a caption and strip punctuation, as the published system does.

    Hyphens and slashes separate words; ``<person>`` becomes a word.
    """
    text = re.sub(_DROPPED, "", text.lower())
    text = re.sub(_PARTING, " ", text).replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).strip()


@dataclass(frozen=True)
class CaptionCheck:
    """What becomes of captions.

    Attributes:
        captions: How many were looked at.
        max_words: Tokens that a caption may have, marks included.
        longest: Tokens of the longest one.
        cut: Captions with more.
        merged: Different captions that are the same as another one once they are cut.
        cut_examples: Some that are cut.
        words: How many were looked at, each as often as it comes.
        spelled: Words that the tokenizer has in no piece of their own.
        spelled_examples: The most frequent of them -> their pieces.
        unknown: Words of which it knows no pieces either: all of them look the same.
        unknown_examples: The most frequent of them.
        lettered_examples: The most frequent of those that it spells letter by letter.
    """

    captions: int
    max_words: int
    longest: int
    cut: int
    merged: int
    cut_examples: list[str]
    words: int
    spelled: int
    spelled_examples: dict[str, int]
    unknown: int
    unknown_examples: list[str]
    lettered_examples: list[str]

    def said(self, little: bool = True) -> dict[str, str]:
        """Say what is off and what helps, by the name of the fault; nothing if nothing is.

        Args:
            little: Also what is usual: every vocabulary spells out some words.
        """
        found = {}
        if self.cut:
            same = f", after which {self.merged} are no longer told apart" if self.merged else ""
            shown = "; ".join(f"{text[:80]!r}" for text in self.cut_examples)
            found["cut-captions"] = (
                f"{self.cut} of {self.captions} captions ({self.cut / self.captions:.1%}) are cut "
                f"to max_words {self.max_words}{same}, e.g. {shown}; raise "
                f"text_encoder.init_args.max_words (the longest has {self.longest})"
            )
        often = 0 if little else _OFTEN * self.words
        if self.spelled > often:
            pieces = (f"{word!r} ({n} pieces)" for word, n in self.spelled_examples.items())
            found["spelled-words"] = (
                f"{self.spelled} of {self.words} words ({self.spelled / self.words:.1%}) are "
                f"spelled out in pieces, e.g. {', '.join(pieces)}; {_REMEDY}"
            )
        if self.unknown > often:
            shown = ", ".join(map(repr, self.unknown_examples))
            found["unknown-words"] = (
                f"{self.unknown} of {self.words} words ({self.unknown / self.words:.1%}) are "
                f"unknown, which makes all of them one, e.g. {shown}; {_REMEDY}"
            )
        return found


def check_captions(
    captions: Sequence[str], tokenize: Tokenize, max_words: int, unknown: int | None = None
) -> CaptionCheck:
    """Look what a tokenizer makes of captions.

    Args:
        captions: Some; all that are given are tokenised.
        tokenize: The tokenizer.
        max_words: Tokens that a caption may have, marks included.
        unknown: The token of what has no other; None = there is none.
    """
    counts = Counter(captions)
    different = list(counts)
    tokens = dict(zip(different, tokenize(different), strict=True)) if different else {}
    cut = [text for text in different if len(tokens[text]) > max_words]
    same: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    for text in different:
        ids = tuple(tokens[text])
        same[_shortened(ids, max_words)].add(ids)
    merged = sum(len(group) for group in same.values() if len(group) > 1)
    words = Counter(word for text in captions for word in _WORD.findall(text))
    pieces = _pieces(list(words), tokenize)
    lost = [word for word in words if unknown in pieces[word]]
    spelled = [word for word in words if len(pieces[word]) > 1 and unknown not in pieces[word]]
    lettered = [word for word in spelled if _in_letters(word, len(pieces[word]))]
    return CaptionCheck(
        captions=len(captions),
        max_words=max_words,
        longest=max(map(len, tokens.values()), default=0),
        cut=sum(counts[text] for text in cut),
        merged=merged,
        cut_examples=cut[:_EXAMPLES],
        words=words.total(),
        spelled=sum(words[word] for word in spelled),
        spelled_examples={_brief(word): len(pieces[word]) for word in _most(spelled, words)},
        unknown=sum(words[word] for word in lost),
        unknown_examples=[*map(_brief, _most(lost, words))],
        lettered_examples=[*map(_brief, _most(lettered, words))],
    )


def _shortened(ids: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """Cut tokens as tokenizers do: the mark at the end stays."""
    return ids if len(ids) <= limit else (*ids[: limit - 1], ids[-1])


def _pieces(words: list[str], tokenize: Tokenize) -> dict[str, list[int]]:
    """Give the tokens of words, as they are inside of a caption."""
    if not words:
        return {}
    alone, *within = tokenize(["a", *(f"a {word}" for word in words)])
    ends = len(alone) - 2  # the letter a, between the marks
    return {word: ids[1 + ends : -1] for word, ids in zip(words, within, strict=True)}


def _in_letters(word: str, pieces: int) -> bool:
    """Tell words of letters from those of signs, each of which means something by itself."""
    return pieces == len(word) and word.lower() != word.upper()


def _most(some: list[str], words: Counter[str]) -> list[str]:
    return sorted(some, key=lambda word: -words[word])[:_EXAMPLES]


def _brief(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[:_LONGEST]}..."
