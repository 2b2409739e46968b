r"""Fonts that have the characters that are drawn: no picture shows a box in place of a letter.

DejaVu Sans comes with matplotlib and is always there; it has the letters of Europe and much more.
For other characters the fonts that happen to be installed are looked through; one that no font has
is drawn as its escape, such as ``\u732b``. matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from vmm.text_output import visible


def drawable(text: str) -> str:
    """Return a text in one line of which every character can be drawn, see ``choose_fonts``.

    Invisible marks that no font has are left out, other such characters are escaped.
    """
    known = frozenset[int]().union(*map(characters, choose_fonts([text])))
    return "".join(c if ord(c) in known else _replacement(c) for c in visible(text))


def choose_fonts(texts: Iterable[str]) -> list[str]:
    """Choose fonts that have the characters of some texts between them.

    Returns:
        Paths: DejaVu Sans, then as few installed ones as are needed. Of a text's characters the
        first font that has one should draw it.
    """
    chosen = [_first_font()]
    wanted = frozenset(map(ord, "".join(texts)))
    missing = wanted - characters(chosen[0])
    while missing:
        best = max(_installed(), key=lambda path: len(missing & characters(path)), default="")
        found = missing & characters(best) if best else frozenset()
        if not found:
            break
        chosen.append(best)
        missing -= found
    return chosen


@lru_cache(maxsize=4096)
def characters(path: str) -> frozenset[int]:
    """Return the code points that a font has; none if it cannot be used."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache(maxsize=1)
def _first_font() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@lru_cache(maxsize=1)
def _installed() -> list[str]:
    from matplotlib.font_manager import findSystemFonts

    # "Last resort" fonts draw boxes on purpose.
    return sorted(p for p in findSystemFonts() if "lastresort" not in Path(p).name.lower())


def _replacement(character: str) -> str:
    """Say what is drawn instead of a character that no font has."""
    code = ord(character)
    if unicodedata.category(character) == "Cf" or unicodedata.name(character, "").startswith(
        "VARIATION SELECTOR"
    ):
        return ""
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
