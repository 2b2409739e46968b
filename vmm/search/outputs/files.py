"""What the outputs share: safe names of files, several files where one will not do, sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmm.whole import whole_file

FILMS_INSTEAD = "`--out FOLDER/` cuts films of them"
"""What helps those who search by a command."""
FEWER = "give a smaller --top"
"""The same, where hits are too many."""
_NAMED = 5
_LONGEST = 80  # bytes: a name has room for 255


def safe_name(text: str) -> str:
    """Make a part of a file's name: letters, digits, ``.``, ``-`` and ``_``; never empty."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    return name.encode()[:_LONGEST].decode(errors="ignore") or "unnamed"


def unique_name(name: str, taken: set[str]) -> str:
    """Number a name that is taken, and take it.

    Args:
        name: Any.
        taken: Names in small letters, which to some systems are the same as capital ones.
    """
    number, unique = 1, name
    while unique.casefold() in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique.casefold())
    return unique


def some_of(texts: Sequence[str]) -> str:
    """List a few texts, and say how many more there are."""
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return "; ".join(texts[:_NAMED]) + more


def write_texts(out: Path, texts: Mapping[str, str]) -> list[str]:
    """Write a file, or one for each label, which comes before the end of the name.

    Args:
        out: The file; its folder is made.
        texts: Label -> content; a single one is written to ``out`` itself.

    Returns:
        A sentence for each.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    said = []
    for label, text in texts.items():
        path = out.with_name(f"{out.stem}.{label}{out.suffix}") if len(texts) > 1 else out
        with whole_file(path) as file:
            file.write_text(text, encoding="utf-8")
        said.append(f"wrote {path}")
    return said
