"""Media names and files: which file of a folder an annotation means."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

from vmm.data.faults import SampleError
from vmm.data.schema import (
    MEDIA_EXTENSIONS,
    UNREAD_EXTENSIONS,
    Media,
    is_leftover,
    remedy,
)

_EXTENSIONS = frozenset(
    extension
    for table in (MEDIA_EXTENSIONS, UNREAD_EXTENSIONS)
    for names in table.values()
    for extension in names
)


class MediaError(SampleError):
    """A name that leads to no file, or to several.

    Args:
        reason: "missing", "ambiguous" or "unsupported".
        detail: What was looked for and found.
    """

    def __str__(self) -> str:
        return f"{self.reason} media: {self.detail}"


def stem(name: str) -> str:
    """Drop the folders and the extension of a media name; dots inside ids stay."""
    return _split(name)[0][-1]


def media_kind(name: str, otherwise: Media) -> Media:
    """Tell what a file is by its extension, and what to take it for where that tells nothing."""
    extension = _split(name)[1]
    return next((kind for kind, names in MEDIA_EXTENSIONS.items() if extension in names), otherwise)


class MediaFolder:
    """The videos or images below a folder, listed once.

    A name may be an id, a file name or a path, with or without extension. Where both the name and
    the file have folders, these must agree: ``3_ego/5.mp4`` is not ``4_count/5.mp4``. A name never
    leads out of the folder.

    Args:
        root: The folder; links to other folders are followed.
        kind: Which files to list.

    Raises:
        ValueError: If it is no folder or holds no such file.
    """

    def __init__(self, root: Path, kind: Media) -> None:
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder; give the one that holds the media")
        self.root = root
        self.kind: Media = kind
        self._by_stem: dict[str, list[str]] = {}
        self._unread: dict[str, str] = {}
        seen: set[str] = set()
        for folder, folders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link back into the tree
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not is_leftover(name))
            for file in sorted(name for name in files if not is_leftover(name)):
                extension = file.rpartition(".")[2].lower()
                path = os.path.relpath(os.path.join(folder, file), root).replace(os.sep, "/")
                if extension in MEDIA_EXTENSIONS[kind]:
                    self._by_stem.setdefault(stem(path), []).append(path)
                elif remedy(file, kind):
                    self._unread.setdefault(stem(path), path)
        if not self._by_stem:
            unread = next((f"; {remedy(path, kind)}" for path in self._unread.values()), "")
            raise ValueError(
                f"there is no {kind} in {root}; looked for "
                f"{', '.join(sorted(MEDIA_EXTENSIONS[kind]))}{unread}"
            )

    def find(self, *names: str) -> Path:
        """Return the file that the first of these names to lead anywhere leads to.

        Raises:
            MediaError: If no name leads to a file, or one leads to several.
        """
        for name in names:
            found = self._candidates(name)
            if len(found) > 1:
                raise MediaError("ambiguous", f"{name!r} is {' and '.join(found[:3])}")
            if found:
                file = self.root / found[0]
                if file.exists() and not file.is_file():  # reading it might never end
                    what = f"{name!r} is {found[0]}, a pipe or device, no file"
                    raise MediaError("unsupported", what)
                return file
        for name in names:
            if unread := self._unread.get(stem(name)):
                why = remedy(unread, self.kind)
                raise MediaError("unsupported", f"{name!r} is {unread}: {why}")
        raise MediaError("missing", f"{names[0]!r} is not in {self.root}")

    def _candidates(self, name: str) -> list[str]:
        parts, extension = _split(name)
        found = []
        for path in self._by_stem.get(parts[-1], ()):
            own, _ = _split(path)
            common = min(len(own), len(parts))
            if own[-common:] == parts[-common:]:
                found.append(path)
        for better in (
            [path for path in found if _split(path) == (parts, extension)],
            [path for path in found if _split(path)[0] == parts],
            [path for path in found if _split(path)[1] == extension],
        ):
            if better:
                return better
        return found


def _split(name: str) -> tuple[tuple[str, ...], str]:
    """Return (folders and stem, extension in lower case or "") of a name.

    Some file systems take accents apart: names are compared in one Unicode form. A dot at the end,
    as some of DiDeMo's names have it, is an extension that was lost.
    """
    path = unicodedata.normalize("NFC", name.replace("\\", "/"))
    *folders, base = [part for part in PurePosixPath(path).parts if part not in ("/", ".")] or [""]
    head, _, extension = base.rpartition(".")
    if not head or extension.lower() not in _EXTENSIONS:
        head, extension = base, ""
    return (*folders, head.rstrip(".") or head), extension.lower()
