"""Videos to search in: files in folders, and the samples of shards."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vmm.data.index_files import load_index
from vmm.data.schema import VIDEO_EXTENSIONS, is_leftover, media_member, remedy
from vmm.portable import read_at

_SUFFIXES = {f".{extension}" for extension in VIDEO_EXTENSIONS}
_SHARD = ".tar"
_BLOCK = 2**20


class NothingThereError(ValueError):
    """Nothing can be read where videos were named: a mistake, or a drive that is away."""


@dataclass(frozen=True, order=True)
class Source:
    """A video.

    Attributes:
        path: Of the file or shard, absolute and without links.
        member: Name of the video in the shard; empty for a file.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        # Not joined as paths are: a member's name may begin at the root, and would hide the shard.
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and time of the last change in ns of the file.

        Raises:
            OSError: If it is not there.
        """
        status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def content(self) -> bytes | Path:
        """Return what to decode: the file, or the bytes of the sample.

        Raises:
            OSError: If it is not there any more, or a link has taken its place.
        """
        if os.path.realpath(self.path) != str(self.path):
            raise OSError("a link has taken its place, which is not followed")
        if not self.member:
            return self.path
        places = _places(self.path, self.stamp())
        if self.member not in places:
            raise OSError("the shard no longer holds it")
        offset, size = places[self.member]
        with self.path.open("rb") as file:
            data = read_at(file.fileno(), size, offset)
        if len(data) != size:
            raise OSError(f"the shard ends before byte {offset + size}")
        return data

    def is_in(self, root: Path) -> bool:
        """Tell whether it is a file or folder, absolute and without links, or below it."""
        inside = f"{str(root).rstrip(os.sep)}{os.sep}"
        return self.path == root or str(self.path).startswith(inside)

    def share(self, shares: int) -> int:
        """Return which of some equal shares of all videos this one belongs to."""
        digest = hashlib.blake2b(str(self).encode(errors="backslashreplace"), digest_size=8)
        return int.from_bytes(digest.digest(), "big") % shares


@lru_cache(maxsize=4)
def _places(shard: Path, stamp: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return offset and size of each member; kept while the shard does not change."""
    return {
        f"{entry.key}.{extension}": place
        for entry in load_index(str(shard)).entries
        for extension, place in entry.members.items()
    }


def digest_of(content: bytes | Path) -> str:
    """Return a hash of a video's bytes.

    Raises:
        OSError: If the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def find_sources(inputs: Sequence[Path]) -> tuple[list[Source], dict[Source, str]]:
    """Find the videos among files, shards and folders with all that is in them.

    Links are followed where they are named as an input, not where they are met in a folder, unless
    they lead to a place in that folder.

    Args:
        inputs: Videos, shards (``.tar``) and folders.

    Returns:
        The videos in order, each once, and what cannot be used with the reason.

    Raises:
        NothingThereError: If an input does not exist, or none has a video.
        ValueError: If an input is no video.
    """
    found: dict[Source, None] = {}
    problems: dict[Source, str] = {}
    for given in inputs:
        if not given.exists():
            raise NothingThereError(
                f"there is no {given}; name videos, .tar shards, or folders of them"
            )
        path = given.resolve()
        if not path.is_dir() and path.suffix.lower() not in {_SHARD, *_SUFFIXES}:
            known = f"known are {' '.join(sorted(_SUFFIXES))} and {_SHARD} shards"
            why = remedy(str(given)) or known
            raise ValueError(f"{given} is no video that can be read; {why}")
        unreadable: list[OSError] = []
        for file in _walk(path, unreadable.append) if path.is_dir() else [path]:
            target = file
            if file != path and file.is_symlink():  # else it is where it seems to be
                target = Path(os.path.realpath(file))  # of links in a circle, one of them
            if target != path and path not in target.parents:
                problems[Source(file)] = f"a link out of the folder, to {target}; not followed"
            elif _is_no_file(target):
                problems[Source(target)] = "a pipe or device, no file"
            elif unread := remedy(target.name):
                problems[Source(target)] = unread
            elif target.suffix.lower() == _SHARD:
                sources, problem = _in_shard(target)
                found.update(dict.fromkeys(sources))
                if problem:
                    problems[Source(target)] = problem
            else:
                found[Source(target)] = None
        for error in unreadable:
            problems[Source(Path(error.filename))] = (
                f"a folder that cannot be read: {error.strerror}"
            )
    if not found and not problems:
        raise NothingThereError(f"no video in {', '.join(map(str, inputs))}")
    return list(found), problems


def _is_no_file(path: Path) -> bool:
    """Tell pipes and devices from files; what is not there may be a file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _walk(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not is_leftover(name))
        for name in sorted(files):
            known = Path(name).suffix.lower() in {_SHARD, *_SUFFIXES} or remedy(name)
            if known and not is_leftover(name):
                yield Path(where, name)


def _in_shard(path: Path) -> tuple[list[Source], str]:
    index = load_index(str(path))
    found = []
    for entry in index.entries:
        if extension := media_member(entry.members, "video"):
            found.append(Source(path, f"{entry.key}.{extension}"))
    if index.damage:
        return found, f"damaged shard: {index.damage}"
    return found, "" if found else "no videos in this shard"
