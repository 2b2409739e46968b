"""Tables of one's own: a row per clip, with the name of its file and what is said about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from vmm.data.annotations.media import media_kind
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import Row
from vmm.data.annotations.source import Source

MEDIA_FIELDS = (
    "video", "image", "file", "file_name", "path", "file_path", "video_path", "image_path",
    "video_file", "video_name", "video_id", "media",
)  # fmt: skip
"""Columns that may name the file, in any spelling; the first that is there and filled counts."""
CAPTION_FIELDS = ("caption", "text", "sentence", "captions", "prompt", "description", "title")
CLASS_FIELDS = ("class", "label", "category", "class_name")
_START_FIELDS = ("start", "start_time")
_END_FIELDS = ("end", "end_time")


def plain_name(column: str) -> str:
    """Write a column's name as all spellings of it are compared: ``File Name`` is ``file_name``."""
    return _KNOWN.get(_folded(column), column)


def _folded(column: str) -> str:
    return re.sub(r"[\s_-]", "", column).lower()


_KNOWN = {
    _folded(name): name
    for name in (
        *MEDIA_FIELDS, *CAPTION_FIELDS, *CLASS_FIELDS, *_START_FIELDS, *_END_FIELDS, "split",
    )
}  # fmt: skip


def captions(source: Source) -> Iterator[Annotation]:
    """Records of a file and its caption: VindLU's, UMT's and VideoMamba's, and anybody's own.

    JSON list, JSON lines, SQLite (table ``annos``), CSV with header, or Parquet. The media is in
    one of ``MEDIA_FIELDS``, the caption or a list of them in one of ``CAPTION_FIELDS``; ``start``
    and ``end`` (seconds) and ``split`` are used where they are there.
    """
    for row in map(_plain, source.rows()):
        with source.leaving_out():
            texts = [text for cell in row.texts(*CAPTION_FIELDS) for text in _listed(cell)]
            yield _item(row, texts, next(filter(row.filled, CAPTION_FIELDS), CAPTION_FIELDS[0]))


def classes(source: Source) -> Iterator[Annotation]:
    """Records of a file and its class, in one of ``CLASS_FIELDS``, which is also the caption.

    Classes that are numbers keep them; names are numbered in the order of the alphabet.
    """
    items: list[Annotation] = []
    for row in map(_plain, source.rows()):
        with source.leaving_out():
            items.append(_item(row, [row.text(*CLASS_FIELDS)], *CLASS_FIELDS))
    names = sorted({name for item in items for name in item.captions})
    numbered = all(map(str.isdecimal, names))
    for item in items:
        (name,) = item.captions
        label = {"label": int(name)} if numbered else {"label": names.index(name), "class": name}
        yield item._replace(metadata=item.metadata | label)


def _listed(cell: str) -> list[str]:
    """Take apart a list that was written into a cell, as pandas does: ``['one', 'two']``."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell]
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [cell]
    texts = isinstance(found, list) and all(isinstance(text, str) for text in found)
    return [text.strip() for text in found] if texts and found else [cell]


def _plain(row: Row) -> Row:
    """Give the columns of a record the names by which they are looked for."""
    values: dict[str, object] = {}
    for name, value in row.values.items():
        values.setdefault(plain_name(str(name)), value)
    return Row(row.where, values)


def _item(row: Row, texts: list[str], *taken: str) -> Annotation:
    name = row.text(*MEDIA_FIELDS)
    start, end = (
        next((row.number(field) for field in fields if row.filled(field)), None)
        for fields in (_START_FIELDS, _END_FIELDS)
    )
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise row.wrong(f"0 <= start < end, not {start} and {end}")
    media = next(filter(row.filled, MEDIA_FIELDS))
    return Annotation(
        key=name if start is None and end is None else f"{name}_{start}_{end}",
        media=name,
        captions=texts,
        kind=media_kind(name, "image" if media.startswith("image") else "video"),
        start=start,
        end=end,
        metadata=row.rest(media, *taken, *_START_FIELDS, *_END_FIELDS),
    )
