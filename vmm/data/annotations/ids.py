"""Lists of ids: which items of an annotation file to keep, and which caption of each."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from vmm.data.annotations.media import stem
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import OddRow
from vmm.data.annotations.source import Source

_log = logging.getLogger(__name__)

NAMED = 5
"""Odd rows, missing ids and the like that a sentence names."""

# Columns that hold the ids where a table has several.
_ID_COLUMNS = ("video_id", "videoid", "videoID", "video", "vid", "id", "q_uid", "youtube_id",
               "clip_name", "image_id", "name", "file_name")  # fmt: skip


def keep_listed(
    items: list[Annotation], wanted: dict[str, int | None], ids: Path, path: Path
) -> tuple[list[Annotation], list[OddRow]]:
    """Keep the listed items, and give the captions that are chosen but not there.

    Args:
        items: With blank captions in their places.
        wanted: From ``read_ids``.
        ids: The list's file.
        path: The items' file.

    Raises:
        ValueError: If the list names none of the items.
    """
    kept = []
    odd: list[OddRow] = []
    found = set()
    for item in items:
        names = (item.key, item.media, stem(item.media), *item.aliases)
        name = next((name for name in names if name in wanted), None)
        if name is None:
            continue
        found.add(name)
        choice = wanted[name]
        if choice is not None:
            if not 0 <= choice < len(item.captions):
                text = f"{ids} chooses caption {choice} of {name!r}, which has {len(item.captions)}"
                odd.append(OddRow(text))
                continue
            if not item.captions[choice]:
                odd.append(OddRow(f"{ids} chooses caption {choice} of {name!r}, which is blank"))
                continue
            item = item._replace(captions=[item.captions[choice]])
        kept.append(item)
    if missing := [name for name in wanted if name not in found]:
        text = "%s lists %d ids of which %d are not in %s, the first are %s"
        _log.warning(text, ids, len(wanted), len(missing), path, ", ".join(missing[:NAMED]))
    if not found:
        raise ValueError(f"none of the ids in {ids} is in {path}")
    return kept, odd


def read_ids(path: Path) -> dict[str, int | None]:
    """Read a list of ids, with extension or without.

    Args:
        path: Text file with an id per line, CSV with a column such as ``video_id``, JSON or pickle
            of a list, or of a dictionary from ids to the caption to use, or to records.

    Returns:
        Id without extension -> position of the one caption to use, or None for all.

    Raises:
        ValueError: If the file is none of these.
    """
    source = Source(path)
    if source.suffix in (".txt", ".csv", ".tsv"):
        return dict.fromkeys(map(stem, _listed(source)))
    content = source.content
    if isinstance(content, list) and all(type(name) in (str, int) for name in content):
        return {stem(str(name)): None for name in content}
    if isinstance(content, dict) and all(type(value) is int for value in content.values()):
        return {stem(str(name)): choice for name, choice in content.items()}
    if isinstance(content, dict) and all(isinstance(v, dict | list) for v in content.values()):
        return {stem(str(name)): None for name in content}
    raise source.wrong("a list of ids, or a dictionary from ids to caption numbers")


def _listed(source: Source) -> list[str]:
    """Take the ids from a table with a header, or from lines."""
    lines = [line for line in source.lines() if line]
    if lines and source.suffix != ".txt":
        column = next((name for name in _ID_COLUMNS if name in source.fields), None)
        if column is not None and (len(source.fields) > 1 or column == lines[0].strip('"')):
            return [row.text(column) for row in source.rows() if row.filled(column)]
    return lines


def is_id_list(source: Source) -> bool:
    """Tell a list of ids from annotations: one word a line, or JSON of such, maybe with numbers."""
    try:
        words = source.content if source.suffix == ".json" else source.lines()
    except ValueError:
        return False
    if isinstance(words, dict) and all(type(value) is int for value in words.values()):
        words = list(words)
    if not isinstance(words, list) or not words:
        return False
    return all(isinstance(word, str) and not re.search(r"[\s,;{]", word) for word in words)
