"""What is where in a shard: one pass over the headers, kept as JSON beside the shard.

With the index any sample is one ``pread`` away, the number of samples is known before training
starts, and a truncated or damaged shard is noticed instead of ending early without a word.
"""

from __future__ import annotations

import json
import logging
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vmm.data.schema import (
    JSON_EXTENSION,
    TEXT_EXTENSION,
    captions_of,
    parse_metadata,
    split_member,
)

_log = logging.getLogger(__name__)

INDEX_VERSION = 1
INDEX_SUFFIX = ".index.json"
MAX_MEMBER_BYTES = 2**30
_MAX_TEXT_BYTES = 2**20


@dataclass
class Entry:
    """One sample of a shard."""

    key: str
    members: dict[str, tuple[int, int]]
    """Extension -> (offset, size) in the shard, bytes."""
    captioned: bool = False
    """Whether it has a caption that is not blank."""


@dataclass
class ShardIndex:
    """All samples of a shard, in order of first appearance."""

    entries: list[Entry]
    damage: str | None = None
    """Why the shard could not be read to its end, None if it could."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Members left out: reason -> count."""


def load_indexes(paths: list[str]) -> list[ShardIndex]:
    """Load or build the indexes of many shards at once."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(load_index, paths))


def load_index(path: str) -> ShardIndex:
    """Return a shard's index, from the file beside it if that is up to date.

    A new index is written beside the shard where that is possible; else it is only returned.

    Args:
        path: The shard.

    Raises:
        OSError: If the shard cannot be read.
    """
    stamp = _stamp(path)
    stored = Path(path + INDEX_SUFFIX)
    try:
        content = json.loads(stored.read_bytes())
        if content["stamp"] == stamp:
            return _from_json(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # absent, damaged or of another version: build it again
    index = scan_shard(path)
    _store(stored, {"stamp": stamp, **_to_json(index)})
    return index


def scan_shard(path: str) -> ShardIndex:
    """Read the headers of a shard and see which samples have a caption.

    Only regular files of plain tars count; member names become keys, never file names.

    Args:
        path: The shard.

    Returns:
        Every complete member; ``damage`` says if the shard ends early.

    Raises:
        OSError: If the shard cannot be opened.
    """
    index = ShardIndex([])
    entries: dict[str, Entry] = {}
    with open(path, "rb") as file:
        for member in _members(file, index):
            parts = split_member(member.name)
            if parts is None or not member.isreg() or member.issparse():
                _count(index.ignored, "not part of a sample")
                continue
            key, extension = parts
            entry = entries.setdefault(key, Entry(key, {}))
            if extension in entry.members:
                _count(index.ignored, "repeated name")
            elif member.size > MAX_MEMBER_BYTES:
                _count(index.ignored, "too large")
            else:
                entry.members[extension] = (member.offset_data, member.size)
        for entry in entries.values():
            entry.captioned = _has_caption(file, entry)
    index.entries = list(entries.values())
    return index


def _members(file: BinaryIO, index: ShardIndex) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar; where it is damaged, say so in ``index.damage`` and stop.

    ``tarfile`` takes a damaged header for the end of the archive, and a negative size sends it
    backwards for ever; both are caught here.
    """
    total = os.fstat(file.fileno()).st_size
    last = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.offset <= last or member.size < 0:
                    index.damage = f"impossible header at byte {member.offset}"
                    return
                if member.offset_data + member.size > total:
                    index.damage = f"cut inside a member at byte {total}"
                    return
                last = member.offset
                tar.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
                yield member
            file.seek(tar.offset)
            end = file.read(2 * tarfile.BLOCKSIZE)  # the end mark: two blocks of zeros
    except (tarfile.TarError, ValueError, ArithmeticError, OSError, MemoryError) as error:
        index.damage = f"{type(error).__name__}: {error}"
        return
    if len(end) < tarfile.BLOCKSIZE or any(end):
        where = "damaged header" if end else "no end mark, so it is probably cut"
        index.damage = f"{where} at byte {file.tell() - len(end)}"


def _has_caption(file: BinaryIO, entry: Entry) -> bool:
    def content(extension: str) -> bytes | None:
        offset, size = entry.members.get(extension, (0, 0))
        return os.pread(file.fileno(), min(size, _MAX_TEXT_BYTES), offset) if size else None

    return bool(
        captions_of(content(TEXT_EXTENSION), {})
        or captions_of(None, parse_metadata(content(JSON_EXTENSION)))
    )


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _stamp(path: str) -> list[int]:
    status = os.stat(path)
    return [INDEX_VERSION, status.st_size, status.st_mtime_ns]


def _to_json(index: ShardIndex) -> dict[str, Any]:
    return {
        "damage": index.damage,
        "ignored": index.ignored,
        "entries": [[e.key, int(e.captioned), e.members] for e in index.entries],
    }


def _from_json(content: dict[str, Any]) -> ShardIndex:
    entries = [
        Entry(key, {name: (int(o), int(n)) for name, (o, n) in members.items()}, bool(captioned))
        for key, captioned, members in content["entries"]
    ]
    return ShardIndex(entries, content["damage"], content["ignored"])


def _store(path: Path, content: dict[str, Any]) -> None:
    """Write beside the shard, whole or not at all; a read-only folder is no error."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(content, separators=(",", ":")))
        partial.replace(path)
    except OSError as error:
        _log.info("cannot keep the index %s (%s); it is built again next time", path, error)
