"""Official files of the sets that retrieval is measured on.

Sentences of the same video become one record with several captions. Where a data set hands out
clips that were cut already, the times in the source video are metadata, not ``start`` and ``end``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmm.data.annotations.media import stem
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import Row
from vmm.data.annotations.source import Source

DIDEMO_SECONDS = 30.0
"""DiDeMo's descriptions are about the first 30 seconds of a video."""


def msrvtt(source: Source) -> Iterator[Annotation]:
    """MSR-VTT: ``MSRVTT_data.json``, Frozen's ``MSR_VTT.json``, or the 1k-A test as a CSV."""
    if "sentence" in source.fields and "video_id" in source.fields:
        for row in source.rows():
            with source.leaving_out():
                name = row.text("video_id")
                metadata = row.rest("video_id", "sentence") | {"split": "test"}
                yield Annotation(name, name, row.texts("sentence"), metadata=metadata)
        return
    content = source.object()
    if content.has("annotations"):
        for row in content.rows("annotations"):
            with source.leaving_out():
                name = row.text("image_id")
                yield Annotation(name, name, row.texts("caption"))
        return
    if not content.has("videos", "sentences"):
        raise content.wrong("the fields 'videos' and 'sentences', or 'annotations'")
    said, videos = content.rows("sentences"), content.rows("videos")
    known = {str(row.values.get("video_id")).strip() for row in videos}
    sentences: dict[str, list[str]] = {}
    for row in said:
        with source.leaving_out():
            name = row.text("video_id")
            if name not in known:
                raise row.wrong(f"every sentence's video among 'videos', not {name!r}")
            sentences.setdefault(name, []).extend(row.texts("caption"))
    for row in videos:
        with source.leaving_out():
            name = row.text("video_id")
            metadata = row.rest("video_id", "start time", "end time")
            metadata["source_start"] = row.optional_number("start time")
            metadata["source_end"] = row.optional_number("end time")
            yield Annotation(name, name, sentences.get(name, []), metadata=metadata)


def msvd(source: Source) -> Iterator[Annotation]:
    """MSVD: ``raw-captions.pkl``, ``{id: [[word, ...], ...]}``; choose a split by its id list.

    Or the corpus itself, ``AllVideoDescriptions.txt`` of ``ID caption`` lines.
    """
    if source.suffix == ".txt":
        yield from _msvd_corpus(source)
        return
    content = source.content
    if not isinstance(content, dict):
        raise source.wrong("a dictionary that maps ids to lists of tokenised captions")
    for name, captions in content.items():
        with source.leaving_out():
            row = Row(f"{source.path}, {str(name)[:80]!r}", {"id": name, "captions": captions})
            key = row.text("id")
            if not isinstance(captions, list) or not all(map(_is_sentence, captions)):
                raise row.wrong("a list of captions, each a list of words")
            texts = [c if isinstance(c, str) else " ".join(c) for c in captions]
            yield Annotation(key, key, [text.strip() for text in texts])


def _msvd_corpus(source: Source) -> Iterator[Annotation]:
    for number, line in enumerate(source.lines(), 1):
        name, _, caption = line.partition(" ")
        if name and not line.startswith("#"):
            with source.leaving_out():
                row = Row(f"{source.path}, line {number}", {"caption": caption})
                yield Annotation(name, name, [row.text("caption")])


def _is_sentence(caption: Any) -> bool:
    words = isinstance(caption, list | tuple) and all(isinstance(w, str) for w in caption)
    return words or isinstance(caption, str)


def didemo(source: Source) -> Iterator[Annotation]:
    """DiDeMo: ``{train,val,test}_data.json``, one description a record.

    Some videos are listed under two extensions, so the media is named by its stem. ``moments`` in
    the metadata are the descriptions with ``times``, the annotators' choices as (first, last) in
    units of 5 seconds.
    """
    moments: dict[str, list[tuple[Row, list[str]]]] = {}
    for row in source.rows():
        with source.leaving_out():
            if not row.has("annotation_id", "times"):
                raise row.wrong("the fields 'annotation_id' and 'times'")
            video, texts = stem(row.text("video")), row.texts("description")
            moments.setdefault(video, []).append((row, texts))
    for video, rows in moments.items():
        fields = ("description", "times", "annotation_id")
        yield Annotation(
            key=video,
            media=video,
            captions=[caption for _, texts in rows for caption in texts],
            start=0.0,
            end=DIDEMO_SECONDS,
            metadata={"moments": [{name: row.values[name] for name in fields} for row, _ in rows]},
        )


def activitynet(source: Source) -> Iterator[Annotation]:
    """ActivityNet Captions: ``{v_ID: {duration, timestamps, sentences}}``.

    Some people's files lack the ``v_`` before YouTube's id.
    """
    for name, row in source.objects():
        with source.leaving_out():
            sentences, times = row.texts("sentences"), row.values.get("timestamps")
            if not isinstance(times, list):
                raise row.wrong("a list of [start, end] in the field 'timestamps'")
            metadata = row.rest("sentences", "duration")
            if row.filled("duration"):
                metadata["duration"] = row.number("duration")
            yield Annotation(
                name, name, sentences, metadata=metadata, aliases=(name.removeprefix("v_"),)
            )


def lsmdc(source: Source) -> Iterator[Annotation]:
    """LSMDC: tab-separated, no header: clip id, four times in the film, sentence."""
    for where, cells in source.table("\t", columns=6):
        with source.leaving_out():
            name = Row(where, {"clip": cells[0]}).text("clip")
            times = dict(zip(("start_aligned", "end_aligned", "start_extracted", "end_extracted"),
                             cells[1:5], strict=True))  # fmt: skip
            yield Annotation(name, name, ["\t".join(cells[5:])], metadata=times)


def vatex(source: Source) -> Iterator[Annotation]:
    """VATEX: ``{videoID, enCap, chCap}``; the clips are named like the ids."""
    for row in source.rows():
        with source.leaving_out():
            name = row.text("videoID")
            metadata = row.rest("videoID", "enCap", "chCap")
            if row.has("chCap"):
                metadata["captions_zh"] = [caption for caption in row.texts("chCap") if caption]
            yield Annotation(name, name, row.texts("enCap"), metadata=metadata)


def karpathy(source: Source) -> Iterator[Annotation]:
    """Flickr30k and COCO in Karpathy's splits: ``dataset_flickr30k.json``, ``dataset_coco.json``.

    COCO's usual training set is ``split="train+restval"``.
    """
    for row in source.object().rows("images"):
        with source.leaving_out():
            name, folder = row.text("filename"), row.values.get("filepath")
            captions = [c for sentence in row.rows("sentences") for c in sentence.texts("raw")]
            yield Annotation(
                key=name,
                media=f"{folder}/{name}" if folder else name,
                captions=captions,
                kind="image",
                metadata=row.rest("filename", "filepath", "sentences"),
            )


def merge_captions(annotations: list[Annotation], path: Path) -> list[Annotation]:
    """Make one record of all that are about the same media, with the captions of all in order.

    Args:
        annotations: Of all files of the set.
        path: Where they are from.

    Raises:
        ValueError: If the same media are in two splits.
    """
    merged: dict[tuple[Any, ...], Annotation] = {}
    for item in annotations:
        where = (item.media, item.start, item.end)
        first = merged.get(where)
        if first is None:
            merged[where] = item
        elif item.metadata.get("split") != first.metadata.get("split"):
            raise ValueError(
                f"{path}: {item.media!r} is in the split {first.metadata.get('split')!r} and in "
                f"{item.metadata.get('split')!r}; remove it from one of them"
            )
        else:
            first.captions.extend(item.captions)
    return list(merged.values())


def as_paragraph(item: Annotation) -> Annotation:
    """Join an item's captions to one, as DiDeMo and ActivityNet are evaluated."""
    return item._replace(captions=[" ".join(item.captions)] if item.captions else [])
