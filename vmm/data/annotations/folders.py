"""Folders without an annotation file: what is said about a clip is in names, or in texts beside it.

Nothing tells which of these a folder is, so it is named on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vmm.data.annotations.class_folders import CLASS_FOLDERS, class_folders, media_below
from vmm.data.annotations.media import media_kind
from vmm.data.annotations.record import Annotation
from vmm.data.text_input import read_text, split_lines


def file_names(root: Path) -> list[Annotation]:
    """Take the names of files for captions: of ``a_dog_runs-02.mp4`` that is "a dog runs".

    Args:
        root: The folder of the files; folders in it may be nested.

    Returns:
        An item of each image or video; without caption where a name has no letters.

    Raises:
        ValueError: If there is none.
    """
    return [_item(name, [_words(Path(name).stem)]) for name in _media(root)]


def text_files(root: Path) -> list[Annotation]:
    """Take ``NAME.txt`` beside ``NAME.mp4`` for its captions, one in a line.

    Args:
        root: The folder of the files; folders in it may be nested.

    Returns:
        An item of each image or video; without caption where there is no text beside it.

    Raises:
        ValueError: If there is no image or video, no text beside any, or one cannot be read.
    """
    items, found = [], 0
    for name in _media(root):
        text = (root / name).with_suffix(".txt")
        found += text.is_file()
        items.append(_item(name, split_lines(read_text(text)) if text.is_file() else []))
    if not found:
        raise ValueError(
            f"no video or image in {root} has a text beside it; text-files wants NAME.txt beside "
            "NAME.mp4"
        )
    return items


def _media(root: Path) -> list[str]:
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the one that holds the videos or images")
    if names := media_below(root):
        return names
    raise ValueError(f"there is no image or video in {root}")


def _item(name: str, captions: list[str]) -> Annotation:
    stripped = [caption.strip() for caption in captions]
    return Annotation(name, name, [c for c in stripped if c], media_kind(name, "video"))


def _words(stem: str) -> str:
    """Write a file's name as words, without the numbers at its ends that tell files apart."""
    words = re.split(r"[\s_.+-]+", stem)
    while words and not re.search(r"[^\W\d_]", words[0]):
        words.pop(0)
    while words and not re.search(r"[^\W\d_]", words[-1]):
        words.pop()
    return " ".join(words)


class Folder(NamedTuple):
    """A way to keep clips and what is said about them."""

    read: Callable[[Path], list[Annotation]]
    what: str


FOLDERS = {
    CLASS_FOLDERS: Folder(class_folders, "a folder of each class"),
    "file-names": Folder(file_names, "the names of the files are the captions"),
    "text-files": Folder(text_files, "NAME.txt beside NAME.mp4"),
}
"""By what they are called on the command line."""
