r"""Text to people: the one way to print it, and to write it to pages, tables and pictures.

Names of files come from anywhere. Bytes in them that are not UTF-8 are half surrogate pairs in
Python and cannot be encoded; other characters would move the cursor of a terminal, end a line or
turn the letters after them around. All of these are shown as escapes such as ``\xe9``.

JSON needs none of this: ``json.dumps`` writes ASCII, whatever the text, unless told otherwise.

Standard library only: every command prints with it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# Controls, ends of lines that Unicode has, embeddings and overrides of the direction, halves of
# surrogate pairs, and what XML forbids.
_HIDDEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_IN_LINE = re.compile(f"[{_HIDDEN}]")
_IN_TEXT = re.compile(f"(?![\t\n])[{_HIDDEN}]")


def visible(text: str, *, lines: bool = False) -> str:
    """Escape what cannot be shown, or would do something instead of being shown.

    Args:
        text: Of anybody.
        lines: Whether it may have several lines, and tabs; else their ends are escaped too.

    Returns:
        Text that UTF-8, HTML and XML can hold.
    """
    return (_IN_TEXT if lines else _IN_LINE).sub(_escape, text)


def say(text: str, *, lines: bool = False) -> None:
    """Print to standard output, whatever it can encode: the rest is escaped too.

    Args:
        text: Of anybody.
        lines: See ``visible``.
    """
    encoding = sys.stdout.encoding or "utf-8"
    shown = visible(text, lines=lines).encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(shown + "\n")


def number_of(number: int, one: str, many: str = "") -> str:
    """Say how many there are: ``number_of(2, "clip is", "clips are")``; without ``many``, an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def lasting(seconds: float) -> str:
    """Say how long something lasts: ``24.1 seconds``, ``3.0 minutes``, ``1.5 hours``."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


def complain(text: str) -> None:
    """Print a mistake, which may have several lines, to standard error."""
    sys.stderr.write(visible(text, lines=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a page or a table in UTF-8, see ``visible``."""
    path.write_text(visible(text, lines=True), encoding="utf-8")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it in a name
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
