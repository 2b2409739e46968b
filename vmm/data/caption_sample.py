"""Some captions of shards, read without their media.

A look at ten million samples takes as long as one at ten thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from vmm.data.index import Entry
from vmm.data.index_files import load_index
from vmm.data.schema import JSON_EXTENSION, TEXT_EXTENSION, captions_of, parse_metadata
from vmm.portable import read_at

_SHARDS = 8
_Item = TypeVar("_Item")


def sample_captions(paths: Sequence[str], number: int) -> list[str]:
    """Read the captions of some samples, at even distances in a few shards.

    Args:
        paths: The shards.
        number: Samples to read, at most.

    Returns:
        All captions of these samples; none of shards that cannot be read.
    """
    found: list[str] = []
    chosen = _spread(paths, _SHARDS)
    for path in chosen:
        entries = [entry for entry in load_index(path).entries if entry.captioned]
        try:
            with open(path, "rb", buffering=0) as file:
                for entry in _spread(entries, -(-number // len(chosen))):
                    found += _captions(file.fileno(), entry)
        except OSError:
            continue
    return found


def _captions(descriptor: int, entry: Entry) -> list[str]:
    def text(extension: str) -> bytes | None:
        offset, size = entry.members.get(extension, (0, 0))
        return read_at(descriptor, size, offset) if size else None

    return captions_of(text(TEXT_EXTENSION), parse_metadata(text(JSON_EXTENSION)))


def _spread(items: Sequence[_Item], number: int) -> list[_Item]:
    """Take items at even distances."""
    wanted = min(number, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * wanted)] for i in range(wanted)]
