r"""Text from outside: the one place where bytes become lines and clean Unicode.

Half a surrogate pair (``"\ud83d"`` is valid JSON) cannot be written, tokenised or printed. It
becomes U+FFFD, the sign for a character that was lost, and the rest of the text stays. Lines end
where files end them, not at every character that Unicode calls a separator, as ``str.splitlines``
has it: U+2028, U+0085 or a form feed may stand inside a caption.

Standard library only: the annotation readers and ``vmm.shards`` must not need torch.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

LOST = "\ufffd"
"""What stands for half a surrogate pair."""

# Longest first: UTF-32's little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HALF = re.compile("[\ud800-\udfff]")
# A whole pair, half of one, or any other escape: a backslash that is escaped itself begins none.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\.",
    re.DOTALL,
)


def clean_text(text: str) -> str:
    """Replace halves of surrogate pairs by U+FFFD; two that make a pair become its character."""
    if _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_json(text: str) -> tuple[str, int]:
    """Replace the escapes of halves of surrogate pairs in JSON by those of U+FFFD.

    Args:
        text: JSON, or a line of it; not yet parsed.

    Returns:
        (the same with clean escapes, how many were replaced).
    """
    if "\\ud" not in text and "\\uD" not in text:
        return text, 0
    number = 0

    def whole(found: re.Match[str]) -> str:
        nonlocal number
        if found["half"] is None:
            return found[0]
        number += 1
        return r"\ufffd"

    return _ESCAPE.sub(whole, text), number


def decode_text(data: bytes) -> str:
    """Decode the bytes of a text file: UTF-8, or what its byte order mark says.

    Args:
        data: The whole file.

    Returns:
        The text without mark and halves of surrogate pairs; line ends are as they were.

    Raises:
        ValueError: If it is in another encoding, or holds NUL, as UTF-16 without a mark does.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        try:  # some programs write each half of a pair by itself
            text = data.decode(encoding, "surrogatepass")
        except UnicodeDecodeError:
            name = encoding.removesuffix("-sig").upper()
            raise ValueError(
                f"not {name} ({error.reason} at byte {error.start}); convert it, "
                "e.g. `iconv -f WINDOWS-1252 -t UTF-8`"
            ) from error
    if (place := text.find("\0")) >= 0:
        raise ValueError(
            f"no text: there is a NUL at character {place}; it is damaged, or UTF-16 without a "
            "byte order mark: convert it, e.g. `iconv -f UTF-16LE -t UTF-8`"
        )
    return clean_text(text)


def read_text(path: Path) -> str:
    """Read a text file, see ``decode_text``.

    Raises:
        ValueError: If it cannot be read or decoded; names the file.
    """
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error


def split_lines(text: str) -> list[str]:
    r"""Split at ``\n`` and ``\r\n``; at ``\r`` only where the whole text has no ``\n``.

    The last line is not followed by an empty one.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
