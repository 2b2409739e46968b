"""A folder with a folder of each class, as ImageNet is kept: there is no annotation file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vmm.data.annotations.media import media_kind
from vmm.data.annotations.record import Annotation
from vmm.data.schema import MEDIA_EXTENSIONS, is_leftover

CLASS_FOLDERS = "class-folders"
"""What such a data set is called on the command line."""


def class_folders(root: Path) -> list[Annotation]:
    """List the images and videos below the folders of classes.

    Args:
        root: The folder. Classes are numbered in the order of their folders' names, as usual.

    Returns:
        An item of each file, in the order of the classes and names; ``label`` and ``class`` in its
        metadata.

    Raises:
        ValueError: If it is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the one that holds a folder of each class")
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not is_leftover(p.name))
    items = []
    for label, name in enumerate(names):
        for file in media_below(root / name):
            media, metadata = f"{name}/{file}", {"label": label, "class": name}
            kind = media_kind(file, "image")
            items.append(Annotation(media, media, [name], kind, metadata=metadata))
    if not items:
        raise ValueError(
            f"no image or video is in a folder of {root}; every class has a folder of its own there"
        )
    return items


def media_below(root: Path) -> list[str]:
    """List the images and videos below a folder, by their paths from it, in order."""
    known = {extension for extensions in MEDIA_EXTENSIONS.values() for extension in extensions}
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_leftover(name))
        for file in sorted(name for name in files if not is_leftover(name)):
            if file.rpartition(".")[2].lower() in known:
                path = os.path.relpath(os.path.join(folder, file), root)
                found.append(path.replace(os.sep, "/"))
    return found


def class_names(items: Sequence[Annotation]) -> list[str]:
    """Give the names of all classes by number, "" where nobody names one.

    Args:
        items: Of a data set. Where its annotations have no numbers, those of the alphabetical
            order of the names are usual.

    Returns:
        Empty if nothing is named.
    """
    named = [item.metadata for item in items if "class" in item.metadata]
    numbers = {m["label"]: str(m["class"]) for m in named if type(m.get("label")) is int}
    if len(numbers) == 0:
        return sorted({str(m["class"]) for m in named})
    return [numbers.get(number, "") for number in range(max(numbers) + 1)]
