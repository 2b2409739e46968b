"""Official files of question sets: several questions about one video are several records.

``captions`` is the question; where a set only asks which caption is right, that caption. The
metadata of every record has ``question``, ``options``, ``answer`` and ``question_type`` as
``Annotation`` describes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmm.data.annotations.record import Annotation
from vmm.data.annotations.source import Row, Source

_LETTERED = re.compile(r"^\s*\(?([A-Z])\s*[.):]\s*")
_OPTION_LINE = re.compile(r"\n\s*\(?([A-Z])[.)]\s*")


def _question(
    key: str,
    media: str,
    row: Row,
    question: str,
    answer: int | str | None,
    options: list[str] | None = None,
    question_type: str | None = None,
    taken: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Annotation:
    """Make a record, and see that the answer is one of the options."""
    if options is not None and isinstance(answer, int) and not 0 <= answer < len(options):
        raise row.wrong(f"an answer among {len(options)} options, not number {answer}")
    metadata: dict[str, Any] = row.rest("question", "options", "answer", "question_type", *taken)
    metadata["question"] = question
    if options is not None:
        metadata["options"] = options
    metadata["answer"] = answer
    if question_type is not None:
        metadata["question_type"] = question_type
    caption = question
    if not caption and options is not None and isinstance(answer, int):
        caption = options[answer]
    return Annotation(key, media, [caption] if caption else [], metadata=metadata, aliases=aliases)


def _options(row: Row, *names: str) -> list[str]:
    options = row.texts(*names)
    if len(options) < 2:
        raise row.wrong(f"at least two options in the field {names[0]!r}")
    return options


def msrvtt_mc(source: Source) -> Iterator[Annotation]:
    """MSRVTT-MC: which of five captions is the video's.

    VindLU's JSON of ``video, caption, answer``, or ClipBERT's lines of ``qid, clip_name, options,
    answer``.
    """
    for number, row in enumerate(source.rows()):
        media = row.text("video", "clip_name")
        key = row.text("qid") if row.has("qid") else f"{media}_{number}"
        options = _options(row, "caption", "options")
        taken = ("qid", "video", "clip_name", "caption")
        yield _question(key, media, row, "", row.integer("answer"), options, taken=taken)


def any_questions(source: Source) -> Iterator[Annotation]:
    """Questions of your own: ``video, question, options, answer`` (position or text).

    ``question_id``, ``question_type``, ``duration`` (seconds) and ``statements`` (each option as a
    sentence about the video) may be there as well.
    """
    for number, row in enumerate(source.rows()):
        media = row.text("video")
        options = _options(row, "options")
        answer: int | str | None = None
        if row.has("answer"):
            answer = row.values["answer"]
            if answer not in options:
                answer = row.integer("answer")
        yield _question(
            row.text("question_id") if row.has("question_id") else f"{media}_{number}",
            media,
            row,
            row.text("question"),
            options.index(answer) if isinstance(answer, str) else answer,
            options,
            row.text("question_type") if row.has("question_type") else None,
            ("video", "question_id", "question_type"),
        )


def open_qa(source: Source) -> Iterator[Annotation]:
    """MSRVTT-QA and MSVD-QA: a question and an answer of one word.

    The original JSON (``id, question, answer, video_id``; MSRVTT's ids are numbers), ClipBERT's
    lines (``video_id, question, answer, answer_type``) or VindLU's JSON (``video, question,
    answer, question_id``). MSVD's ``youtube_mapping.txt`` beside the file tells YouTube's names.
    """
    mapping = source.beside("youtube_mapping.txt")
    youtube = {cells[1]: cells[0] for _, cells in mapping.table(" ", 2)} if mapping else {}
    for number, row in enumerate(source.rows()):
        media = row.text("video", "video_id")
        if media.isdecimal() and not row.has("video"):
            media = f"video{media}" if row.has("category_id") else f"vid{media}"
        key = row.text("question_id", "id") if row.has("question_id") or row.has("id") else None
        kind = row.text("answer_type") if row.has("answer_type") else None
        taken = ("video", "video_id", "question_id", "id", "answer_type")
        yield _question(
            key or f"{media}_{number}",
            media,
            row,
            row.text("question"),
            row.text("answer"),
            question_type=kind,
            taken=taken,
            aliases=(youtube[media],) if media in youtube else (),
        )


def read_answer_list(path: Path) -> list[str]:
    """Read the answers among which an open question's is sought: a JSON list of texts.

    Raises:
        ValueError: If the file is something else, or names an answer twice.
    """
    source = Source(path)
    answers = source.content
    if not isinstance(answers, list) or not all(isinstance(a, str) and a for a in answers):
        raise source.wrong("a JSON list of answers")
    if len(set(answers)) < len(answers):
        raise source.wrong("every answer once")
    return answers


def activitynet_qa(source: Source) -> Iterator[Annotation]:
    """ActivityNet-QA: ``{split}_q.json`` with ``{split}_a.json`` beside it; types 0 to 8.

    VindLU's ``anet_qa_*.json`` holds the answers itself.
    """
    if "answer" in source.fields:
        for row in source.rows():
            video = row.text("video")
            taken = ("video", "question_id")
            yield _question(
                row.text("question_id"), video, row, row.text("question"), row.text("answer"),
                taken=taken, aliases=_activitynet_names(video),
            )  # fmt: skip
        return
    beside = source.path.name.replace("_q.json", "_a.json")
    answers = source.beside(beside) if beside != source.path.name else None
    known = {row.text("question_id"): row for row in answers.rows()} if answers else {}
    for row in source.rows():
        key, video = row.text("question_id"), row.text("video_name")
        answer = known.get(key)
        if answers and answer is None:
            raise ValueError(f"{answers.path} has no answer to {row.where}, question_id {key!r}")
        yield _question(
            key,
            f"v_{video}",
            row,
            row.text("question"),
            answer.text("answer") if answer else None,
            question_type=str(answer.integer("type")) if answer else None,
            taken=("video_name", "question_id"),
            aliases=(video,),
        )


def _activitynet_names(video: str) -> tuple[str, ...]:
    return (video.removeprefix("v_"),) if video.startswith("v_") else (f"v_{video}",)


def nextqa(source: Source) -> Iterator[Annotation]:
    """NExT-QA, multiple choice: CSV of ``video, question, answer, qid, type, a0 ... a4``.

    With ``map_vid_vidorID.json`` beside the file, the media is the path that this gives.
    """
    listed = source.beside("map_vid_vidorID.json")
    paths = listed.object() if listed else None
    for row in source.rows():
        video = row.text("video")
        options = [row.text(f"a{i}") for i in range(5)]
        yield _question(
            f"{video}_{row.text('qid')}",
            paths.text(video) if paths else video,
            row,
            row.text("question"),
            row.integer("answer") if row.values.get("answer") else None,
            options,
            row.text("type"),
            ("video", "qid", "type", *(f"a{i}" for i in range(5))),
            (video,),
        )


def egoschema(source: Source) -> Iterator[Annotation]:
    """EgoSchema: ``questions.json``, with ``subset_answers.json`` beside it for the 500 public.

    ``split`` is "subset" for these and "hidden" for the rest, whose answers are not public.
    """
    answers = source.beside("subset_answers.json")
    public = answers.object() if answers else Row("", {})
    names = [f"option {i}" for i in range(5)]
    for row in source.rows():
        video = row.text("q_uid")
        answer = public.integer(video) if public.has(video) else None
        item = _question(
            video, video, row, row.text("question"), answer,
            [row.text(name) for name in names], taken=("q_uid", *names),
        )  # fmt: skip
        item.metadata["split"] = "hidden" if answer is None else "subset"
        yield item


def mlvu(source: Source) -> Iterator[Annotation]:
    """MLVU: one of ``1_plotQA.json`` ... ``9_summary.json``.

    Several tasks have videos of equal name: the media is below the folder named like the file.
    Tasks 8 and 9 have no options.
    """
    for number, row in enumerate(source.rows()):
        kind, video = row.text("question_type"), row.text("video")
        options = _options(row, "candidates") if row.has("candidates") else None
        answer: int | str | None = row.text("answer") if row.has("answer") else None
        if options is not None and answer is not None:
            if answer not in options:
                raise row.wrong(f"an answer among the candidates, not {answer!r}")
            answer = options.index(str(answer))
        yield _question(
            f"{source.path.stem}_{number}",
            f"{source.path.stem}/{video}",
            row,
            row.text("question"),
            answer,
            options,
            kind,
            ("video", "candidates"),
            (f"{source.path.stem.partition('_')[2]}/{video}",),
        )


def longvideobench(source: Source) -> Iterator[Annotation]:
    """LongVideoBench: ``lvb_val.json``; two to five candidates."""
    for row in source.rows():
        yield _question(
            row.text("id"),
            row.text("video_path", "video_id"),
            row,
            row.text("question"),
            row.integer("correct_choice") if row.has("correct_choice") else None,
            _options(row, "candidates"),
            row.text("question_category"),
            ("id", "video_path", "candidates", "correct_choice", "question_category"),
            (row.text("video_id"),),
        )


def videomme(source: Source) -> Iterator[Annotation]:
    """Video-MME: ``videoID, question_id, question, options, answer`` and more, often as Parquet.

    ``duration`` is a word here: short, medium or long.
    """
    for row in source.rows():
        options = [_LETTERED.sub("", option) for option in _options(row, "options")]
        yield _question(
            row.text("question_id"),
            row.text("videoID"),
            row,
            row.text("question"),
            _letter(row),
            options,
            row.text("task_type"),
            ("question_id", "videoID", "task_type"),
        )


def lvbench(source: Source) -> Iterator[Annotation]:
    """LVBench: lines of ``key, type, video_info, qa``, with the options inside the question.

    Or a flat table of ``video_path, question, answer`` and perhaps ``options``.
    """
    for row in source.rows():
        if row.has("qa"):
            shared = row.rest("key", "qa")
            for item in row.rows("qa"):
                inner = Row(item.where, {**shared, **item.values})
                yield _lvbench_question(inner, row.text("key"))
        else:
            yield _lvbench_question(row, row.text("video_path"))


def _lvbench_question(row: Row, media: str) -> Annotation:
    question, *parts = _OPTION_LINE.split("\n" + row.text("question"))
    options = [text.strip() for text in parts[1::2]]
    if row.has("options"):
        options = [_LETTERED.sub("", option) for option in _options(row, "options")]
    elif len(options) < 2 or parts[::2] != list("ABCDEFGH"[: len(options)]):
        raise row.wrong("options (A), (B), ... on lines of their own in the field 'question'")
    kinds = row.texts("question_type") if row.has("question_type") else []
    taken = ("uid", "video_path")
    return _question(
        row.text("uid"), media, row, question.strip(), _letter(row), options,
        ", ".join(kinds) or None, taken,
    )  # fmt: skip


def _letter(row: Row) -> int | None:
    """Turn the letter of the right option into its position."""
    if not row.has("answer"):
        return None
    letter = row.text("answer").upper()
    if not re.fullmatch("[A-Z]", letter):
        raise row.wrong(f"a letter in the field 'answer', not {letter!r}")
    return ord(letter) - ord("A")
