"""Queries to begin with: captions of what the index holds."""

from __future__ import annotations

from collections.abc import Iterator

from vmm.data.index import MAX_TEXT_BYTES, Entry
from vmm.data.index_files import load_index
from vmm.data.schema import JSON_EXTENSION, TEXT_EXTENSION, captions_of, parse_metadata
from vmm.search.query import Searcher
from vmm.search.sources import Source

_TRIED = 40
_LONGEST = 60


def example_queries(searcher: Searcher, count: int = 4) -> list[str]:
    """Take captions of indexed videos from their shards, spread over the index.

    Args:
        searcher: Has the index.
        count: How many.

    Returns:
        Different captions, perhaps fewer; none if the index is of files, which have no captions.
    """
    members = [source for source in searcher.sources if source.member]
    step = max(1, len(members) // _TRIED)
    found = (text for source in members[::step][:_TRIED] for text in _captions(source))
    short = dict.fromkeys(text for text in found if len(text) <= _LONGEST)
    return list(short)[:: max(1, len(short) // count)][:count]


def _captions(source: Source) -> Iterator[str]:
    """Read the first caption of a sample, if it has one that can be read."""
    try:
        for entry in load_index(str(source.path)).entries:
            if any(f"{entry.key}.{extension}" == source.member for extension in entry.members):
                text, metadata = (
                    _member(source, entry, kind) for kind in (TEXT_EXTENSION, JSON_EXTENSION)
                )
                yield from captions_of(text, parse_metadata(metadata))[:1]
                return
    except OSError:
        return


def _member(source: Source, entry: Entry, extension: str) -> bytes | None:
    offset, size = entry.members.get(extension, (0, 0))
    if not 0 < size <= MAX_TEXT_BYTES[extension]:
        return None
    with source.path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
