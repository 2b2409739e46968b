"""Official files of question sets: several questions about one video are several records.

``captions`` is the question; where a set only asks which caption is right, that caption. The
metadata of every record has ``question``, ``options``, ``answer`` and ``question_type`` as
``Annotation`` describes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vmm.data.annotations.options import (
    NoSuchOption,
    Options,
    place_of_letter,
    place_of_text,
    read_options,
    split_question,
)
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import Row
from vmm.data.annotations.source import Source

_OPTION_COLUMNS = (*(f"option{i}" for i in range(26)), *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


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
    if options is not None and isinstance(answer, int):
        if not 0 <= answer < len(options):
            text = f"an answer among {len(options)} options, not number {answer}"
            error = NoSuchOption(str(row.wrong(text)))
            error.by_one = answer == len(options)
            raise error
        if not options[answer]:
            raise row.wrong(f"an answer that is not blank, as option {answer} is")
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


def msrvtt_mc(source: Source) -> Iterator[Annotation]:
    """MSRVTT-MC: which of five captions is the video's.

    VindLU's JSON of ``video, caption, answer``, or ClipBERT's lines of ``qid, clip_name, options,
    answer``.
    """
    for number, row in enumerate(source.rows()):
        with source.leaving_out():
            media = row.text("video", "clip_name")
            key = row.text("qid") if row.has("qid") else f"{media}_{number}"
            options = read_options(row, "caption", "options").texts
            taken = ("qid", "video", "clip_name", "caption")
            yield _question(key, media, row, "", row.integer("answer"), options, taken=taken)


def any_questions(source: Source) -> Iterator[Annotation]:
    """Questions of your own: ``video, question, options, answer`` (position, letter or text).

    ``question_id``, ``question_type``, ``duration`` (seconds) and ``statements`` (each option as a
    sentence about the video) may be there as well. ``candidates`` are options too; in a table these
    are in the columns ``option0``, ``option1`` ... or ``A``, ``B`` ...
    """
    for number, row in enumerate(source.rows()):
        with source.leaving_out():
            media = row.text("video")
            options = read_options(row, "options", "candidates")
            yield _question(
                row.text("question_id") if row.has("question_id") else f"{media}_{number}",
                media,
                row,
                row.text("question"),
                place_of_text(row, options),
                options.texts,
                row.text("question_type") if row.filled("question_type") else None,
                ("video", "question_id", "question_type", "candidates", *_OPTION_COLUMNS),
            )


def open_qa(source: Source, numbered: str) -> Iterator[Annotation]:
    """MSRVTT-QA and MSVD-QA: a question and an answer of one word.

    The original JSON (``id, question, answer, video_id``) or the same as a table, ClipBERT's lines
    (``video_id, question, answer, answer_type``) or VindLU's JSON (``video, question, answer,
    question_id``). MSVD's ``youtube_mapping.txt`` beside the file tells YouTube's names.

    Args:
        source: The file.
        numbered: What stands before the number where a video is called by its number.
    """
    mapping = source.beside("youtube_mapping.txt")
    youtube = {cells[1]: cells[0] for _, cells in mapping.table(" ", 2)} if mapping else {}
    for number, row in enumerate(source.rows()):
        with source.leaving_out():
            media = row.text("video", "video_id")
            if not row.has("video") and re.fullmatch(r"\d+(\.0)?", media):
                media = f"{numbered}{media.removesuffix('.0')}"
            named = row.filled("question_id") or row.filled("id")
            kind = row.text("answer_type") if row.filled("answer_type") else None
            yield _question(
                row.text("question_id", "id") if named else f"{media}_{number}",
                media,
                row,
                row.text("question"),
                row.text("answer"),
                question_type=kind,
                taken=("video", "video_id", "question_id", "id", "answer_type"),
                aliases=(youtube[media],) if media in youtube else (),
            )


msrvtt_qa = partial(open_qa, numbered="video")
msvd_qa = partial(open_qa, numbered="vid")


def read_answer_list(path: Path) -> list[str]:
    """Read the answers among which an open question's is sought.

    Args:
        path: A JSON list of texts, or JSON from texts to numbers.

    Raises:
        ValueError: If the file is something else, or names an answer twice.
    """
    source = Source(path)
    answers = source.content
    if isinstance(answers, dict) and all(type(number) is int for number in answers.values()):
        answers = sorted(answers, key=answers.__getitem__)
    if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
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
            with source.leaving_out():
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
        with source.leaving_out():
            key, video = row.text("question_id"), row.text("video_name")
            answer = known.get(key)
            if answers and answer is None:
                raise row.wrong(f"an answer to question_id {key!r} in {answers.path}")
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
    """NExT-QA, multiple choice: a table of ``video, question, answer, qid, type, a0 ... a4``.

    With ``map_vid_vidorID.json`` beside the file, the media is the path that this gives.
    """
    listed = source.beside("map_vid_vidorID.json")
    paths = listed.object() if listed else None
    names = [f"a{i}" for i in range(5)]
    for row in source.rows():
        with source.leaving_out():
            video = row.text("video")
            options = Options([row.text(name) for name in names], {})
            answer = None
            if row.filled("answer"):  # NExT-GQA's training file says it in words
                numbered = str(row.values["answer"]).strip().isdecimal()
                answer = row.integer("answer") if numbered else place_of_text(row, options)
            yield _question(
                f"{video}_{row.text('qid')}",
                paths.text(video) if paths else video,
                row,
                row.text("question"),
                answer,
                options.texts,
                row.text("type"),
                ("video", "qid", "type", *names),
                (video,),
            )


def egoschema(source: Source) -> Iterator[Annotation]:
    """EgoSchema: ``questions.json``, with ``subset_answers.json`` beside it for the 500 public.

    Or the table of ``video_idx, question, option, answer`` that others made of it. ``split`` is
    "subset" for questions with a public answer and "hidden" for the rest.
    """
    answers = source.beside("subset_answers.json")
    public = answers.object() if answers else Row("", {})
    names = [f"option {i}" for i in range(5)]
    for row in source.rows():
        with source.leaving_out():
            video = row.text("q_uid", "video_idx")
            options = read_options(row, "option").texts
            if len(options) != len(names):
                raise row.wrong(f"{len(names)} options, not {len(options)}")
            answer = public.integer(video) if public.has(video) else None
            if answer is None and row.filled("answer"):
                answer = row.integer("answer")
            # The server wants every question answered, even one without words.
            question = row.text("question") if row.filled("question") else ""
            item = _question(
                video, video, row, question, answer, options,
                taken=("q_uid", "video_idx", "option", *names),
            )  # fmt: skip
            item.metadata["split"] = "hidden" if answer is None else "subset"
            yield item


def mlvu(source: Source) -> Iterator[Annotation]:
    """MLVU: one of ``1_plotQA.json`` ... ``9_summary.json``.

    Several tasks have videos of equal name: the media is below the folder named like the file.
    Tasks 8 and 9 have no options.
    """
    folder = source.path.stem
    for number, row in enumerate(source.rows()):
        with source.leaving_out():
            video = row.text("video")
            options = read_options(row, "candidates").texts if row.has("candidates") else None
            answer: int | str | None = row.text("answer") if row.has("answer") else None
            if options is not None and answer is not None:
                if answer not in options:
                    raise row.wrong(f"an answer among the candidates, not {answer!r}")
                answer = options.index(str(answer))
            yield _question(
                row.text("question_id") if row.filled("question_id") else f"{folder}_{number}",
                f"{folder}/{video}",
                row,
                row.text("question"),
                answer,
                options,
                row.text("question_type"),
                ("video", "candidates", "question_id"),
                (f"{folder.partition('_')[2]}/{video}",),
            )


def longvideobench(source: Source) -> Iterator[Annotation]:
    """LongVideoBench: ``lvb_val.json``, or its table with ``option0`` ...; two to five candidates.

    The test's table gives -1 for every right answer, which is not public.
    """
    for row in source.rows():
        with source.leaving_out():
            answer = row.integer("correct_choice") if row.filled("correct_choice") else -1
            yield _question(
                row.text("id"),
                row.text("video_path", "video_id"),
                row,
                row.text("question"),
                None if answer == -1 else answer,
                read_options(row, "candidates").texts,
                row.text("question_category"),
                ("id", "video_path", "candidates", "correct_choice", "question_category",
                 *_OPTION_COLUMNS),
                (row.text("video_id"),),
            )  # fmt: skip


def videomme(source: Source) -> Iterator[Annotation]:
    """Video-MME: ``videoID, question_id, question, options, answer`` and more, often as Parquet.

    ``duration`` is a word here: short, medium or long.
    """
    for row in source.rows():
        with source.leaving_out():
            options = read_options(row, "options")
            yield _question(
                row.text("question_id"),
                row.text("videoID"),
                row,
                row.text("question"),
                place_of_letter(row, options),
                options.texts,
                row.text("task_type"),
                ("question_id", "videoID", "task_type"),
            )


def lvbench(source: Source) -> Iterator[Annotation]:
    """LVBench: lines of ``key, type, video_info, qa``, with the options inside the question.

    Or a flat list of ``video_path, question, answer`` and perhaps ``options``, or of ``video,
    question, candidates, answer``.
    """
    for number, row in enumerate(source.rows()):
        with source.leaving_out():
            if not row.has("qa"):
                media = row.text("video_path", "video")
                key = row.text("uid") if row.filled("uid") else f"{media}_{number}"
                yield _lvbench_question(row, key, media)
                continue
            shared = row.rest("key", "qa")
            for item in row.rows("qa"):
                with source.leaving_out():
                    inner = Row(item.where, {**shared, **item.values})
                    yield _lvbench_question(inner, inner.text("uid"), row.text("key"))


def _lvbench_question(row: Row, key: str, media: str) -> Annotation:
    if row.has("options") or row.has("candidates"):
        # The question may hold them as well.
        question = re.split(r"\n\s*\(?A[.)]", "\n" + row.text("question"))[0].strip()
        options = read_options(row, "options", "candidates")
    else:
        question, options = split_question(row, row.text("question"))
    kinds = row.texts("question_type") if row.has("question_type") else []
    return _question(
        key, media, row, question, place_of_letter(row, options), options.texts,
        ", ".join(filter(None, kinds)) or None, ("uid", "video_path", "video", "candidates"),
    )  # fmt: skip
