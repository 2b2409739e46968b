"""Files of pretraining corpora and of classification sets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import Row
from vmm.data.annotations.source import Source

_MOST_CLASSES = 0.95
"""Share of the classes of a set that a list of it has, at least."""


def webvid(source: Source) -> Iterator[Annotation]:
    """WebVid: CSV of ``videoid, name, page_dir, contentUrl, duration``.

    ``name`` is the caption; the files are ``page_dir/videoid.mp4``.
    """
    for row in source.rows():
        with source.leaving_out():
            video, folder = row.text("videoid"), row.values.get("page_dir")
            yield Annotation(
                key=video,
                media=f"{folder}/{video}" if folder else video,
                captions=row.texts("name"),
                metadata=row.rest("name"),
                aliases=(video,),
            )


def kinetics(source: Source) -> Iterator[Annotation]:
    """Kinetics: CSV of ``label, youtube_id, time_start, time_end, split``, or DeepMind's JSON.

    The clips are named ``ID_SSSSSS_EEEEEE`` by the usual download, with the times in seconds.
    """
    nested = source.suffix == ".json" and isinstance(source.content, dict)
    for row in _kinetics_json(source) if nested else source.rows():
        with source.leaving_out():
            video = row.text("youtube_id")
            start, end = row.integer("time_start"), row.integer("time_end")
            name = f"{video}_{start:06d}_{end:06d}"
            label = row.text("label") if row.filled("label") else None  # the test split has none
            metadata = row.rest("label") | ({"class": label} if label else {})
            yield Annotation(name, name, [label] if label else [], metadata=metadata)


def _kinetics_json(source: Source) -> Iterator[Row]:
    """Give ``{id: {annotations: {label, segment: [start, end]}, subset, ...}}`` as rows."""
    for video, row in source.objects():
        inner = row.values.get("annotations")
        segment = inner.get("segment") if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or not isinstance(segment, list) or len(segment) != 2:
            source.odd.append(row.wrong("a label and a segment in the field 'annotations'"))
            continue
        times = {"time_start": segment[0], "time_end": segment[1]}
        taken = row.rest("annotations", "subset")
        yield Row(row.where, {**taken, "label": inner.get("label"), "youtube_id": video, **times,
                              "split": row.values.get("subset")})  # fmt: skip


def something(source: Source, caption: Literal["label", "template"]) -> Iterator[Annotation]:
    """Something-Something: the official JSON of v2 or the ``id;label`` lists of v1.

    The class number is the template's in ``something-something-v2-labels.json`` beside the file,
    or its line in ``something-something-v1-labels.csv``.

    Args:
        source: The file.
        caption: "label" names the things that are seen, "template" says "something".
    """
    if source.suffix == ".csv":
        yield from _something_v1(source)
        return
    labels = source.beside("something-something-v2-labels.json", "labels.json")
    numbers = labels.object() if labels else None
    for row in source.rows():
        with source.leaving_out():
            video = row.text("id")
            metadata = row.rest("id", "label")
            texts = []
            if row.has("template"):  # the test split has ids only
                template = row.text("template").replace("[", "").replace("]", "")
                texts = [template if caption == "template" else row.text("label")]
                metadata["template"] = template
                metadata["phrase"] = row.values.get("label")
                if numbers is not None:
                    metadata["label"] = numbers.integer(template)
            yield Annotation(video, video, texts, metadata=metadata)


def _something_v1(source: Source) -> Iterator[Annotation]:
    labels = source.beside("something-something-v1-labels.csv")
    numbers = {name: number for number, name in enumerate(labels.lines())} if labels else {}
    for where, cells in source.table(";", columns=1):
        with source.leaving_out():
            row = Row(where, {"id": cells[0], "label": ";".join(cells[1:])})
            video, text = row.text("id"), row.values["label"]
            if not text and not video.isdecimal():
                raise row.wrong(
                    f"the number of a video, not {video!r}; the list of labels belongs beside "
                    "something-something-v1-train.csv, -validation.csv or -test.csv"
                )
            if numbers and text and text not in numbers:
                raise row.wrong(f"a label of {labels and labels.path}, not {text!r}")
            metadata = {"label": numbers[text]} if text and text in numbers else {}
            yield Annotation(video, video, [text] if text else [], metadata=metadata)


something_label = partial(something, caption="label")
something_template = partial(something, caption="template")


def coin(source: Source) -> Iterator[Annotation]:
    """COIN: ``COIN.json``, ``{"database": {id: {class, subset, start, end, annotation, ...}}}``.

    Videos are classified whole; where the task starts and ends in them is in the metadata.
    """
    for video, row in source.objects(source.object().values.get("database")):
        with source.leaving_out():
            name = row.text("class")
            metadata = row.rest("subset", "start", "end", "label")
            subset = row.text("subset")
            metadata |= {
                "split": {"training": "train", "testing": "test"}.get(subset, subset),
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
    """Breakfast: CSV of ``file_name, duration, action, class_id``.

    Some lists write ``P03-cam01-P03_cereals`` for ``P03/cam01/P03_cereals.avi``.
    """
    for row in source.rows():
        with source.leaving_out():
            name = row.text("file_name")
            metadata = row.rest("file_name", "class_id", "duration")
            metadata["label"] = row.integer("class_id")
            if row.filled("duration"):
                metadata["duration"] = row.number("duration")
            path = name.replace("-", "/", 2)
            aliases = (path,) if "/" not in name and path.count("/") == 2 else ()
            caption = [row.text("action")]
            yield Annotation(name, name, caption, metadata=metadata, aliases=aliases)


LVU_LOG_VIEWS = 11.76425435683139
"""What LVU's authors take off the logarithm of a view count, so that its mean is 0."""


def lvu(source: Source) -> Iterator[Annotation]:
    """LVU: columns ``class_id class_name youtube_id imdb_id`` between spaces.

    The tasks like_ratio (``like_count dislike_count ...``) and view_count (``view_count ...``) have
    a number to predict instead of a class: ``target`` in the metadata, where the others have
    ``label``. It is 10 times the share of likes, and the natural logarithm of the views less
    ``LVU_LOG_VIEWS``, as the published errors are measured. (The authors also take 9.138 off the
    former; no error changes by a constant that a model has learnt.) A file with other columns holds
    the number itself.
    """
    for row in source.rows():
        with source.leaving_out():
            video = row.text("youtube_id")
            metadata = row.rest("class_id")
            if row.has("class_name"):
                metadata["label"] = row.integer(next(iter(row.values)))
                name = row.text("class_name")
            else:
                metadata["target"] = _lvu_target(row)
                name = f"{metadata['target']:.6g}"
            yield Annotation(video, video, [name.replace("_", " ")], metadata=metadata)


def _lvu_target(row: Row) -> float:
    if "like_count" in row.values:
        likes, dislikes = row.number("like_count"), row.number("dislike_count")
        if min(likes, dislikes) < 0 or likes + dislikes <= 0:
            raise row.wrong(f"numbers of likes and dislikes, not {likes:g} and {dislikes:g}")
        return 10 * likes / (likes + dislikes)
    if "view_count" in row.values:
        views = row.integer("view_count")
        if views < 1:
            raise row.wrong(f"a number of views in the field 'view_count', not {views}")
        return math.log(views) - LVU_LOG_VIEWS
    return row.number(next(iter(row.values)))  # the first column, whatever it is called


_PATH_LABEL_SECONDS = re.compile(
    r"(?P<path>.*[^\s,;])[\s,;]+(?P<label>-?\d+(?:\.0*)?)[\s,;]+(?P<duration>\d+(?:\.\d*)?)"
)
_PATH_LABEL = re.compile(r"(?P<path>.*[^\s,;])[\s,;]+(?P<label>-?\d+(?:\.0*)?)")


def labelled_cells(line: str) -> dict[str, str] | None:
    """Take a line ``path label`` or ``path label duration`` apart; None if it is something else.

    Cells stand between commas, semicolons or white space, which may be in the path as well.
    """
    found = _PATH_LABEL_SECONDS.fullmatch(line) or _PATH_LABEL.fullmatch(line)
    return found.groupdict() if found else None


def labelled_list(source: Source) -> Iterator[Annotation]:
    """VideoMAE's and VideoMamba's lists without header: ``path label`` and maybe a duration.

    Those of TSN and its kind, ``path frames label``, are told by their numbers. The caption is the
    label.
    """
    frames_first = _counts_frames(source)
    for number, line in enumerate(source.lines(), 1):
        if not line:
            continue
        with source.leaving_out():
            cells = labelled_cells(line)
            if frames_first and cells and "duration" in cells:
                cells = {"path": cells["path"], "label": cells["duration"]}
            row = Row(f"{source.path}, line {number}", cells or _as_cells(line))
            path, label = row.text("path"), row.integer("label")
            metadata: dict[str, Any] = {"label": label}
            if row.has("duration"):
                metadata["duration"] = row.number("duration")
            yield Annotation(path, path, [str(label)], metadata=metadata)


def _counts_frames(source: Source) -> bool:
    """Tell ``path frames label`` from ``path label duration``.

    Classes are counted from 0 and hardly one is missing; durations and numbers of frames are not.
    """
    lines = [labelled_cells(line) or {} for line in source.lines()]
    pairs = {(cells["label"], cells.get("duration", "")) for cells in lines if cells}
    first, second = ({pair[place] for pair in pairs} for place in (0, 1))
    whole = all(cell.isdecimal() for cell in (*first, *second))
    if not whole or len(second) < 2:  # such as a duration of 0 for all
        return False
    return _like_classes(second) and not _like_classes(first)


def _like_classes(cells: set[str]) -> bool:
    numbers = set(map(int, cells))
    return 0 in numbers and len(numbers) >= _MOST_CLASSES * (max(numbers) + 1)


def _as_cells(line: str) -> dict[str, str]:
    """Name the cells of a line that is none of a labelled list, for its error."""
    cells = line.split("," if "," in line else None)
    return dict(zip(("path", "label", "duration"), cells, strict=False))
