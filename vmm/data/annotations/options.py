"""Options of a question in their places, and which of them the answer means.

A place is what an answer names, so no option is ever dropped before it: a blank one stays, as "".
"""

from __future__ import annotations

import ast
import re
from typing import Any, NamedTuple

from vmm.data.annotations.row import OddRow, Row

# "A. x", "(A) x", "A) x", "A: x"; no letter begins "A.D. 476".
_LETTERED = re.compile(r"^\s*\(?([A-Za-z])\s*(?:\)|[.:](?=\s|$))\s*")
_IN_QUESTION = re.compile(r"\n\s*\(?([A-Z])[.)][^\S\n]*")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class NoSuchOption(OddRow):
    """An answer whose number no option has."""

    by_one = False
    """Whether it would be the last option's if they were counted from 1."""


class Options(NamedTuple):
    """The options of a question."""

    texts: list[str]
    """Without letters; "" where the file has a blank one."""
    letters: dict[str, int]
    """What an answer may call an option -> its place."""


def read_options(row: Row, *names: str) -> Options:
    """Take the options from a list in one of these fields, or from columns of their own.

    A list may be written into one cell of a table, as Python or JSON writes it; an object may give
    each option its letter. Columns are ``option0``, ``option1`` ... or ``A``, ``B`` ...

    Raises:
        OddRow: If there are fewer than two.
    """
    found = next((row.values[name] for name in names if row.values.get(name) is not None), None)
    if isinstance(found, str) and found.lstrip().startswith("["):
        found = _written_list(found)
    if isinstance(found, dict) and list(found) == list(_ALPHABET[: len(found)]):
        found = list(found.values())
    if found is None:
        found = _columns(row)
    if isinstance(found, list | tuple) and all(_is_option(item) for item in found):
        texts = ["" if item is None else str(item).strip() for item in found]
        while found and found[-1] is None:  # tables give every question as many
            found = found[:-1]
        if len(found) >= 2:
            return without_letters(texts[: len(found)])
    raise row.wrong(f"at least two options in the field {names[0]!r}")


def _is_option(item: Any) -> bool:
    return item is None or (isinstance(item, str | int | float) and not isinstance(item, bool))


def _written_list(text: str) -> Any:
    """Read a list of texts from a cell; nothing in it is run."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _columns(row: Row) -> list[Any]:
    """Collect numbered or lettered fields; "N/A" at the end stands for no option."""
    lettered = []
    for letter in _ALPHABET:
        if letter not in row.values:
            break
        lettered.append(row.values[letter])
    while lettered and lettered[-1] in (None, "", "N/A"):
        lettered.pop()
    if lettered:
        return lettered
    for form in ("option{}", "option {}", "option_{}", "a{}"):
        found: list[Any] = []
        while form.format(len(found)) in row.values:
            found.append(row.values[form.format(len(found))])
        while found and found[-1] in (None, "N/A"):
            found.pop()
        if found:
            return found
    return []


def without_letters(texts: list[str]) -> Options:
    """Take "A. ", "(B) " ... off, if these are the options' letters and no part of their words."""
    by_place = dict(zip(_ALPHABET, range(len(texts)), strict=False))
    own = [match[1].upper() if (match := _LETTERED.match(text)) else None for text in texts]
    bare = [_LETTERED.sub("", text) for text in texts]
    lettered = [letter for letter in own if letter]
    in_order = all(own[place] in (None, letter) for letter, place in by_place.items())
    if in_order and 2 * len(lettered) > sum(map(bool, texts)):
        return Options(bare, by_place)
    if len(lettered) == sum(map(bool, texts)) == len(set(lettered)) > 0:
        return Options(bare, {letter: place for place, letter in enumerate(own) if letter})
    return Options(texts, by_place)


def split_question(row: Row, text: str) -> tuple[str, Options]:
    """Take a question apart that has its options on lines of their own.

    Raises:
        OddRow: If they are not (A), (B), ... in this order.
    """
    question, *parts = _IN_QUESTION.split("\n" + text)
    letters, options = parts[::2], [part.strip() for part in parts[1::2]]
    if len(options) < 2 or letters != list(_ALPHABET[: len(options)]):
        raise row.wrong("options (A), (B), ... on lines of their own in the field 'question'")
    return question.strip(), Options(options, {letter: i for i, letter in enumerate(letters)})


def place_of_letter(row: Row, options: Options) -> int | None:
    """Tell the place of an answer that is a letter, or a letter and its option's text.

    Raises:
        OddRow: If it is neither.
    """
    if not row.has("answer"):
        return None
    answer = row.text("answer")
    if answer in options.texts and answer.upper() not in options.letters:
        return options.texts.index(answer)
    found = re.fullmatch(r"\(?([A-Za-z])\s*[.):]?", answer)
    letter = found or _LETTERED.match(answer)
    if letter is None:
        raise row.wrong(f"a letter in the field 'answer', not {answer.upper()[:80]!r}")
    place = options.letters.get(letter[1].upper())
    if place is None:
        raise row.wrong(f"an answer among {len(options.texts)} options, not {answer[:80]!r}")
    if found is None and options.texts[place] != answer[letter.end() :].strip():
        raise row.wrong(f"the option that its answer names, not {answer[:80]!r}")
    return place


def place_of_text(row: Row, options: Options) -> int | None:
    """Tell the place of an answer that is an option's text, a position or a letter.

    Raises:
        OddRow: If it is none of these.
    """
    if not row.has("answer"):
        return None
    answer = row.values["answer"]
    if isinstance(answer, str):
        if answer.strip() and answer.strip() in options.texts:
            return options.texts.index(answer.strip())
        if re.fullmatch(r"\s*\(?[A-Za-z]\s*[.):]?\s*", answer) or _LETTERED.match(answer):
            return place_of_letter(row, options)
    return row.integer("answer")
