"""Files of pretraining corpora and of classification sets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Literal

from vmm.data.annotations.media import media_kind
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.source import Row, Source

MEDIA_FIELDS = ("video", "image", "file", "file_name", "path")
CAPTION_FIELDS = ("caption", "text", "sentence")


def captions(source: Source) -> Iterator[Annotation]:
    """Records of a file and its caption: VindLU's, UMT's and VideoMamba's, and anybody's own.

    JSON list, JSON lines, SQLite (table ``annos``), CSV with header, or Parquet. The media is in
    one of ``MEDIA_FIELDS``, the caption or a list of them in one of ``CAPTION_FIELDS``; ``start``
    and ``end`` (seconds) and ``split`` are used where they are there.
    """
    for row in source.rows():
        name = row.text(*MEDIA_FIELDS)
        start, end = row.optional_number("start"), row.optional_number("end")
        if (start or 0) < 0 or (end is not None and end <= (start or 0)):
            raise row.wrong(f"0 <= start < end, not {start} and {end}")
        yield Annotation(
            key=name if start is None and end is None else f"{name}_{start}_{end}",
            media=name,
            captions=row.texts(*CAPTION_FIELDS),
            kind=media_kind(name, "image" if row.has("image") else "video"),
            start=start,
            end=end,
            metadata=row.rest(*MEDIA_FIELDS, *CAPTION_FIELDS, "start", "end"),
        )


def webvid(source: Source) -> Iterator[Annotation]:
    """WebVid: CSV of ``videoid, name, page_dir, contentUrl, duration``.

    ``name`` is the caption; the files are ``page_dir/videoid.mp4``.
    """
    for row in source.rows():
        video, folder = row.text("videoid"), row.values.get("page_dir")
        yield Annotation(
            key=video,
            media=f"{folder}/{video}" if folder else video,
            captions=row.texts("name"),
            metadata=row.rest("name"),
            aliases=(video,),
        )


def kinetics(source: Source) -> Iterator[Annotation]:
    """Kinetics: CSV of ``label, youtube_id, time_start, time_end, split``.

    The clips are named ``ID_SSSSSS_EEEEEE`` by the usual download, with the times in seconds.
    """
    for row in source.rows():
        video = row.text("youtube_id")
        start, end = row.integer("time_start"), row.integer("time_end")
        name = f"{video}_{start:06d}_{end:06d}"
        label = row.texts("label") if "label" in row.values else []  # the test split has none
        metadata = row.rest("label") | ({"class": label[0]} if label else {})
        yield Annotation(name, name, label, metadata=metadata)


def something(source: Source, caption: Literal["label", "template"]) -> Iterator[Annotation]:
    """Something-Something: the official JSON of v2 or the ``id;label`` lists of v1.

    The class number is the template's in ``something-something-v2-labels.json`` beside the file,
    or its line in ``something-something-v1-labels.csv``.

    Args:
        source: The file.
        caption: "label" names the things that are seen, "template" says "something".
    """
    if source.path.suffix == ".csv":
        yield from _something_v1(source)
        return
    labels = source.beside("something-something-v2-labels.json", "labels.json")
    numbers = labels.object() if labels else None
    for row in source.rows():
        video = row.text("id")
        metadata = row.rest("id")
        texts = []
        if row.has("template"):  # the test split has ids only
            template = row.text("template").replace("[", "").replace("]", "")
            texts = [template if caption == "template" else row.text("label")]
            metadata["template"] = template
            metadata["phrase"] = metadata.pop("label", None)
            if numbers is not None:
                metadata["label"] = numbers.integer(template)
        yield Annotation(video, video, texts, metadata=metadata)


def _something_v1(source: Source) -> Iterator[Annotation]:
    labels = source.beside("something-something-v1-labels.csv")
    numbers = {name: number for number, name in enumerate(labels.lines())} if labels else {}
    for where, cells in source.table(";", columns=1):
        video, text = cells[0], ";".join(cells[1:])
        if numbers and text and text not in numbers:
            raise ValueError(f"{where}: expected a label of {labels and labels.path}, not {text!r}")
        metadata = {"label": numbers[text]} if text in numbers else {}
        yield Annotation(video, video, [text] if text else [], metadata=metadata)


something_label = partial(something, caption="label")
something_template = partial(something, caption="template")


def coin(source: Source) -> Iterator[Annotation]:
    """COIN: ``COIN.json``, ``{"database": {id: {class, subset, start, end, annotation, ...}}}``.

    Videos are classified whole; where the task starts and ends in them is in the metadata.
    """
    for video, row in source.objects(source.object().values.get("database")):
        name = row.text("class")
        metadata = row.rest("subset", "start", "end")
        metadata |= {
            "split": {"training": "train", "testing": "test"}.get(row.text("subset")),
            "task_start": row.optional_number("start"),
            "task_end": row.optional_number("end"),
        }
        if row.has("recipe_type"):
            metadata["label"] = row.integer("recipe_type")
        yield Annotation(video, video, [_words(name)], metadata=metadata)


def _words(name: str) -> str:
    """Take ``PutOnHairExtensions`` apart."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower() or name


def breakfast(source: Source) -> Iterator[Annotation]:
    """Breakfast: CSV of ``file_name, duration, action, class_id``."""
    for row in source.rows():
        name = row.text("file_name")
        metadata = row.rest("file_name", "class_id") | {
            "label": row.integer("class_id"),
            "duration": row.number("duration"),
        }
        yield Annotation(name, name, [row.text("action")], metadata=metadata)


def lvu(source: Source) -> Iterator[Annotation]:
    """LVU: columns ``class_id class_name youtube_id imdb_id`` between spaces.

    The tasks like_ratio and view_count have a number to predict instead of a class: ``target`` in
    the metadata, where the others have ``label``.
    """
    for row in source.rows():
        video = row.text("youtube_id")
        value = row.number(next(iter(row.values)))  # the first column, whatever its task calls it
        whole = value == int(value) and row.has("class_name")
        name = row.text("class_name", *row.values)
        metadata = row.rest("class_id") | ({"label": int(value)} if whole else {"target": value})
        yield Annotation(video, video, [name.replace("_", " ")], metadata=metadata)


def labelled_list(source: Source) -> Iterator[Annotation]:
    """VideoMAE's and VideoMamba's lists without header: ``path label`` and maybe a duration.

    Cells stand between commas or spaces; the caption is the label.
    """
    lines = source.lines()
    delimiter = "," if lines and "," in lines[0] else " "
    for where, cells in source.table(delimiter, columns=2):
        row = Row(where, dict(zip(("path", "label", "duration"), cells, strict=False)))
        path = row.text("path")
        metadata = {"label": row.integer("label")}
        if len(cells) > 2:
            metadata["duration"] = row.number("duration")  # type: ignore[assignment]
        yield Annotation(path, path, [cells[1]], metadata=metadata)
