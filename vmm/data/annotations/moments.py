"""Official files of temporal grounding: sentences, and when in a video what they say is seen.

Every sentence is an item. Its metadata has ``moments``, a list of [start, end] in seconds (none
where they are not public), and ``duration`` of the video in seconds where the file says it. Of
highlights it has QVHighlights's ``relevant_clip_ids``, numbers of clips of two seconds, and
``saliency_scores``, of each of these the marks 0 ("very bad") to 4 ("very good") of all annotators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import OddRow, Row
from vmm.data.annotations.source import Source

_LENGTHS = "Charades_v1_{}.csv"
_HIGHLIGHTS = ("relevant_clip_ids", "saliency_scores")
_BEST_MARK = 4


def charades_sta(source: Source) -> Iterator[Annotation]:
    """Charades-STA: lines ``VIDEO START END##SENTENCE`` (Gao et al. 2017, arXiv 1705.02101).

    The lengths of the videos are in ``Charades_v1_train.csv`` or ``Charades_v1_test.csv`` of
    Charades, which is read where it stands beside.
    """
    lengths = _lengths(source)
    seen: Counter[str] = Counter()
    for number, line in enumerate(source.lines(), 1):
        if not line:
            continue
        with source.leaving_out():
            place, mark, sentence = line.partition("##")
            where, cells = f"{source.path}, line {number}", place.split()
            if not mark or len(cells) != 3:
                raise OddRow(f"{where}: expected VIDEO START END##SENTENCE, not {line[:100]!r}")
            values: dict[str, Any] = dict(zip(("video", "start", "end"), cells, strict=True))
            row = Row(where, values | {"sentence": sentence})
            video = cells[0]
            seen[video] += 1
            metadata: dict[str, Any] = {"moments": [_moment(row, row.values)]}
            if video in lengths:
                metadata["duration"] = lengths[video]
            key = f"{video}_{seen[video] - 1}"
            yield Annotation(key, video, [row.text("sentence")], metadata=metadata)


def _lengths(source: Source) -> dict[str, float]:
    split = "train" if "train" in source.path.name else "test"
    table = source.beside(_LENGTHS.format(split))
    if table is None:
        return {}
    return {row.text("id"): row.number("length") for row in table.rows() if row.filled("length")}


def activitynet_moments(source: Source) -> Iterator[Annotation]:
    """ActivityNet Captions: ``{v_ID: {duration, timestamps, sentences}}``, a sentence an item."""
    for name, row in source.objects():
        with source.leaving_out():
            for number, (sentence, span) in enumerate(_timed_sentences(row)):
                where = f"{row.where}, sentence {number}"
                with source.leaving_out():
                    one = Row(where, {"sentence": sentence, "timestamp": span})
                    metadata: dict[str, Any] = {"moments": [_pair(one, span)]}
                    if row.filled("duration"):
                        metadata["duration"] = row.number("duration")
                    yield Annotation(
                        f"{name}_{number}",
                        name,
                        [one.text("sentence")],
                        metadata=metadata,
                        aliases=(name.removeprefix("v_"),),
                    )


def _timed_sentences(row: Row) -> list[tuple[str, Any]]:
    sentences, times = row.texts("sentences"), row.values.get("timestamps")
    if not isinstance(times, list) or len(times) != len(sentences):
        raise row.wrong("as many [start, end] in the field 'timestamps' as 'sentences'")
    return list(zip(sentences, times, strict=True))


def qvhighlights(source: Source) -> Iterator[Annotation]:
    """QVHighlights: JSON lines of ``qid, query, vid, duration, relevant_windows, ...``.

    Lei et al. 2021 (arXiv 2107.09609). The test split as released first has no windows.
    """
    for row in source.rows():
        with source.leaving_out():
            yield _described(row, row.text("qid"), row.text("vid"))


def own_moments(source: Source) -> Iterator[Annotation]:
    """Records of ``video, query`` and ``relevant_windows`` or one ``start`` and ``end``.

    What else QVHighlights's files have is read as well.
    """
    seen: Counter[str] = Counter()
    for row in source.rows():
        with source.leaving_out():
            video = row.text("video")
            seen[video] += 1
            key = row.text("qid") if row.filled("qid") else f"{video}_{seen[video] - 1}"
            yield _described(row, key, video)


def _described(row: Row, key: str, video: str) -> Annotation:
    windows = row.values.get("relevant_windows")
    if windows is None and row.filled("start", "end"):
        moments = [_moment(row, row.values)]
    else:
        if not isinstance(windows, list | None):
            raise row.wrong("a list of [start, end] in the field 'relevant_windows'")
        moments = [_pair(row, window) for window in windows or []]
    metadata: dict[str, Any] = {"moments": moments}
    if row.filled("duration"):
        metadata["duration"] = row.number("duration")
    if row.has(*_HIGHLIGHTS):
        metadata |= _highlights(row)
    return Annotation(key, video, [row.text("query")], metadata=metadata)


def _highlights(row: Row) -> dict[str, Any]:
    """Check which clips have marks, and that all have as many."""
    numbers, marks = (row.values[name] for name in _HIGHLIGHTS)
    lists = isinstance(numbers, list) and isinstance(marks, list) and len(numbers) == len(marks)
    if not lists or not all(_whole(n) and n >= 0 for n in numbers):
        raise row.wrong("as many 'saliency_scores' as whole 'relevant_clip_ids'")
    width = len(marks[0]) if marks and isinstance(marks[0], list) else 0
    for given in marks:
        fits = isinstance(given, list) and len(given) == width > 0
        if not fits or not all(_whole(m) and 0 <= m <= _BEST_MARK for m in given):
            raise row.wrong("of each clip as many 'saliency_scores', from 0 to 4")
    return {name: row.values[name] for name in _HIGHLIGHTS}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pair(row: Row, window: Any) -> list[float]:
    if not isinstance(window, list) or len(window) != 2:
        raise row.wrong(f"[start, end] in seconds, not {str(window)[:80]}")
    return _moment(row, dict(zip(("start", "end"), window, strict=True)))


def _moment(row: Row, values: dict[str, Any]) -> list[float]:
    """Read ``start`` and ``end``."""
    there = Row(row.where, values)
    start, end = there.number("start"), there.number("end")
    if not 0 <= start < end:
        raise row.wrong(f"0 <= start < end, not {start:g} and {end:g}")
    return [start, end]
