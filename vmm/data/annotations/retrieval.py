"""Official files of the sets that retrieval is measured on.

Sentences of the same video become one record with several captions. Where a data set hands out
clips that were cut already, the times in the source video are metadata, not ``start`` and ``end``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vmm.data.annotations.media import stem
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.source import Row, Source

DIDEMO_SECONDS = 30.0
"""DiDeMo's descriptions are about the first 30 seconds of a video."""


def msrvtt(source: Source) -> Iterator[Annotation]:
    """MSR-VTT: ``MSRVTT_data.json``, Frozen's ``MSR_VTT.json``, or the 1k-A test as a CSV."""
    if "sentence" in source.fields and "video_id" in source.fields:
        for row in source.rows():
            name = row.text("video_id")
            metadata = row.rest("video_id", "sentence") | {"split": "test"}
            yield Annotation(name, name, row.texts("sentence"), metadata=metadata)
        return
    content = source.object()
    if content.has("annotations"):
        for row in content.rows("annotations"):
            name = row.text("image_id")
            yield Annotation(name, name, row.texts("caption"))
        return
    if not content.has("videos", "sentences"):
        raise content.wrong("the fields 'videos' and 'sentences', or 'annotations'")
    sentences: dict[str, list[str]] = {}
    for row in content.rows("sentences"):
        sentences.setdefault(row.text("video_id"), []).extend(row.texts("caption"))
    for row in content.rows("videos"):
        name = row.text("video_id")
        metadata = row.rest("video_id", "start time", "end time")
        metadata["source_start"] = row.optional_number("start time")
        metadata["source_end"] = row.optional_number("end time")
        yield Annotation(name, name, sentences.pop(name, []), metadata=metadata)
    if sentences:
        raise content.wrong(f"every sentence's video among 'videos', not {next(iter(sentences))!r}")


def msvd(source: Source) -> Iterator[Annotation]:
    """MSVD: ``raw-captions.pkl``, ``{id: [[word, ...], ...]}``; choose a split by its id list."""
    content = source.content
    if not isinstance(content, dict):
        raise source.wrong("a dictionary that maps ids to lists of tokenised captions")
    for name, captions in content.items():
        if not isinstance(captions, list) or not all(map(_is_sentence, captions)):
            raise ValueError(
                f"{source.path}, {name!r}: expected a list of captions, each a list of words"
            )
        texts = [c if isinstance(c, str) else " ".join(c) for c in captions]
        yield Annotation(str(name), str(name), [text.strip() for text in texts if text.strip()])


def _is_sentence(caption: Any) -> bool:
    words = isinstance(caption, list | tuple) and all(isinstance(w, str) for w in caption)
    return words or isinstance(caption, str)


def didemo(source: Source) -> Iterator[Annotation]:
    """DiDeMo: ``{train,val,test}_data.json``, one description a record.

    Some videos are listed under two extensions, so the media is named by its stem. ``moments`` in
    the metadata are the descriptions with ``times``, the annotators' choices as (first, last) in
    units of 5 seconds.
    """
    moments: dict[str, list[Row]] = {}
    for row in source.rows():
        if not row.has("annotation_id", "times"):
            raise row.wrong("the fields 'annotation_id' and 'times'")
        moments.setdefault(stem(row.text("video")), []).append(row)
    for video, rows in moments.items():
        fields = ("description", "times", "annotation_id")
        yield Annotation(
            key=video,
            media=video,
            captions=[caption for row in rows for caption in row.texts("description")],
            start=0.0,
            end=DIDEMO_SECONDS,
            metadata={"moments": [{name: row.values[name] for name in fields} for row in rows]},
        )


def activitynet(source: Source) -> Iterator[Annotation]:
    """ActivityNet Captions: ``{v_ID: {duration, timestamps, sentences}}``.

    Some people's files lack the ``v_`` before YouTube's id.
    """
    for name, row in source.objects():
        sentences, times = row.texts("sentences"), row.values.get("timestamps")
        if not isinstance(times, list):
            raise row.wrong("a list of [start, end] in the field 'timestamps'")
        metadata = {**row.rest("sentences"), "duration": row.number("duration")}
        yield Annotation(
            name, name, sentences, metadata=metadata, aliases=(name.removeprefix("v_"),)
        )


def lsmdc(source: Source) -> Iterator[Annotation]:
    """LSMDC: tab-separated, no header: clip id, four times in the film, sentence."""
    for where, cells in source.table("\t", columns=6):
        name, sentence = cells[0], "\t".join(cells[5:])
        if not name:
            raise ValueError(f"{where}: expected a clip id in the first column")
        times = dict(zip(("start_aligned", "end_aligned", "start_extracted", "end_extracted"),
                         cells[1:5], strict=True))  # fmt: skip
        yield Annotation(name, name, [sentence] if sentence else [], metadata=times)


def vatex(source: Source) -> Iterator[Annotation]:
    """VATEX: ``{videoID, enCap, chCap}``; the clips are named like the ids."""
    for row in source.rows():
        name = row.text("videoID")
        metadata = row.rest("videoID", "enCap", "chCap")
        if row.has("chCap"):
            metadata["captions_zh"] = row.texts("chCap")
        yield Annotation(name, name, row.texts("enCap"), metadata=metadata)


def karpathy(source: Source) -> Iterator[Annotation]:
    """Flickr30k and COCO in Karpathy's splits: ``dataset_flickr30k.json``, ``dataset_coco.json``.

    COCO's usual training set is ``split="train+restval"``.
    """
    for row in source.object().rows("images"):
        name, folder = row.text("filename"), row.values.get("filepath")
        captions = [c for sentence in row.rows("sentences") for c in sentence.texts("raw")]
        yield Annotation(
            key=name,
            media=f"{folder}/{name}" if folder else name,
            captions=captions,
            kind="image",
            metadata=row.rest("filename", "filepath", "sentences"),
        )


def merge_captions(annotations: list[Annotation]) -> list[Annotation]:
    """Make one record of all that are about the same media, with the captions of all in order.

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
                f"{item.media!r} is in the split {first.metadata.get('split')!r} and in "
                f"{item.metadata.get('split')!r}; remove it from one of them"
            )
        else:
            first.captions.extend(item.captions)
    return list(merged.values())


def as_paragraph(item: Annotation) -> Annotation:
    """Join an item's captions to one, as DiDeMo and ActivityNet are evaluated."""
    return item._replace(captions=[" ".join(item.captions)] if item.captions else [])
