"""What is where in a shard: one pass over the headers (kept by ``vmm.data.index_files``).

With the index any sample is one ``pread`` away, the number of samples is known before training
starts, and a truncated or damaged shard is noticed instead of ending early without a word.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from vmm.data.schema import (
    AUDIO_EXTENSIONS,
    CLASS_EXTENSION,
    JSON_EXTENSION,
    TEXT_EXTENSION,
    captions_of,
    failure_of,
    is_leftover,
    parse_metadata,
    split_member,
    text_fault,
)
from vmm.portable import read_at

MAX_MEMBER_BYTES = 2**30
MAX_TEXT_BYTES = {TEXT_EXTENSION: 2**16, JSON_EXTENSION: 2**22, CLASS_EXTENSION: 2**10}
TAR_ERRORS = (tarfile.TarError, ValueError, ArithmeticError, OSError, MemoryError, RecursionError)
"""What ``tarfile`` raises for damage; the last for thousands of long names in a row."""
_COMPRESSED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7z", b"\x28\xb5\x2f")
"""How files of gzip, bzip2, xz and Zstandard begin."""

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in ns of a shard."""


@dataclass
class Entry:
    """One sample of a shard."""

    key: str
    members: dict[str, tuple[int, int]]
    """Extension -> (offset, size) in the shard, bytes."""
    captioned: bool = False
    """Whether it has a caption that is not blank."""
    failure: str = ""
    """Why the downloader could not get the media, if it says so; of a sample that has media, why
    its caption cannot be read, if there is one."""


@dataclass
class ShardIndex:
    """All samples of a shard, in order of first appearance."""

    entries: list[Entry]
    damage: str | None = None
    """Why the shard could not be read to its end, None if it could."""
    ignored: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of each member left out."""
    stamp: Stamp | None = None
    """Which state of the shard this describes; None if it could not be opened."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what tells two states of a file apart."""
    return status.st_size, status.st_mtime_ns


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
                if reason := why_ignored(member):
                    index.ignored.append((member.name, reason))
                continue
            key, extension = parts
            entry = entries.setdefault(key, Entry(key, {}))
            if extension in entry.members:
                index.ignored.append((member.name, "repeated name"))
            elif member.size > MAX_TEXT_BYTES.get(extension, MAX_MEMBER_BYTES):
                index.ignored.append((member.name, "too large"))
            else:
                entry.members[extension] = (member.offset_data, member.size)
        for entry in entries.values():
            _read_texts(file, entry)
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
    except TAR_ERRORS as error:
        file.seek(0)
        packed = file.read(3) in _COMPRESSED
        index.damage = "compressed; unpack it" if packed else f"{type(error).__name__}: {error}"
        return
    if len(end) < tarfile.BLOCKSIZE or any(end):
        where = "damaged header" if end else "no end mark, so it is probably cut"
        index.damage = f"{where} at byte {file.tell() - len(end)}"


def why_ignored(member: tarfile.TarInfo) -> str:
    """Say why a member is part of no sample; "" where that is usual: of a folder, or sound."""
    if is_leftover(member.name):
        return "left by a system"
    usual = member.isdir() or member.name.rpartition(".")[2].lower() in AUDIO_EXTENSIONS
    return "" if usual else "not part of a sample"


def _read_texts(file: BinaryIO, entry: Entry) -> None:
    """See whether a sample has a caption, and why it lacks media or caption."""

    def content(extension: str) -> bytes | None:
        offset, size = entry.members.get(extension, (0, 0))
        return read_at(file.fileno(), size, offset) if size else None

    text = content(TEXT_EXTENSION)
    captioned = bool(captions_of(text, {}))
    complete = bool(entry.members.keys() - MAX_TEXT_BYTES.keys())
    if not (captioned and complete):  # the metadata can only add what is missing
        written = content(JSON_EXTENSION)
        metadata = parse_metadata(written)
        captioned = captioned or bool(captions_of(None, metadata))
        if not complete:
            entry.failure = failure_of(metadata)
        elif not captioned:
            entry.failure = text_fault(text, written)
    entry.captioned = captioned
