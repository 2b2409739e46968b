"""All annotation files that vmm reads: one line per data set, and one way to read any of them.

A new data set is a reader in one of the files beside this one and a line in ``DATASETS``.
"""

from __future__ import annotations

import logging
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import NamedTuple

from vmm.data.annotations import moments, questions, retrieval, tables, training
from vmm.data.annotations.dataset import Dataset, fit, inside, refuse_id_list, tell
from vmm.data.annotations.ids import NAMED, keep_listed, read_ids
from vmm.data.annotations.options import NoSuchOption
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.row import OddRow
from vmm.data.annotations.source import Source
from vmm.data.schema import is_leftover
from vmm.text_output import number_of

_log = logging.getLogger(__name__)

_TELLING = 8
"""Answers of which one is 0 if they are counted from there."""

_LVU_TEST = {
    "director": 107, "genre": 647, "like_ratio": 140, "relationship": 42, "scene": 86,
    "view_count": 126, "way_speaking": 201, "writer": 168, "year": 143,
}  # fmt: skip
_MLVU_DEV = {
    "plotQA": 539, "needle": 355, "ego": 352, "count": 206, "order": 259, "anomaly_reco": 200,
    "topic_reasoning": 264,
}  # fmt: skip
# Two answers that are no candidate; two that are blank; four candidates that are all blank.
_MLVU_ODD = {"needle": 2, "ego": 2, "topic_reasoning": 1}
# Table VIII of VideoMamba's paper (arXiv 2403.06977) counts other videos than the lists.
_LVU_PAPER = {
    "director": 107, "genre": 584, "like_ratio": 139, "relationship": 41, "scene": 81,
    "view_count": 102, "way_speaking": 188, "writer": 168, "year": 141,
}  # fmt: skip

# Sizes are those that the data sets' authors or the usual splits' authors publish. Kinetics has
# none: its releases differ.
DATASETS: dict[str, Dataset] = {
    "captions": Dataset(
        tables.captions, "captions",
        tuple(map(" ".join, product(tables.MEDIA_FIELDS, tables.CAPTION_FIELDS))), plain=True,
    ),
    "class-table": Dataset(
        tables.classes, "classes",
        tuple(map(" ".join, product(tables.MEDIA_FIELDS, tables.CLASS_FIELDS))), plain=True,
    ),
    "msrvtt": Dataset(
        retrieval.msrvtt, "captions", ("videos sentences", "video_id sentence"),
        ("MSRVTT*.json", "MSR_VTT*.json", "MSRVTT*.csv"),
        {"1k-A train": 9000, "1k-A test": 1000, "7k train": 7010, "miech train": 6656,
         "miech test": 1000, "full train": 6513, "full validate": 497, "full test": 2990},
    ),
    "msvd": Dataset(
        retrieval.msvd, "captions", (), ("raw-captions.pkl", "AllVideoDescriptions.txt"),
        {"train": 1200, "val": 100, "test": 670},
    ),
    "didemo": Dataset(
        retrieval.didemo, "captions", ("annotation_id times description",), ("*_data.json",),
        {"train": 8392, "val": 1065, "test": 1004, "paper's test": 1036}, paragraph=True,
    ),
    "activitynet": Dataset(
        retrieval.activitynet, "captions", ("timestamps sentences duration",), ("val_[12].json",),
        {"train": 10009, "val_1": 4917, "val_2": 4885}, paragraph=True,
    ),
    "lsmdc": Dataset(  # the 101,079 are sentences: a few clips have several
        retrieval.lsmdc, "captions", (), ("LSMDC*.csv",), {"train": 101079, "test": 1000},
    ),
    "vatex": Dataset(
        retrieval.vatex, "captions", ("videoID enCap",), ("vatex_*.json",),
        {"train": 25991, "val": 3000, "public test": 6000, "hgr val": 1500, "hgr test": 1500},
    ),
    "flickr30k": Dataset(
        retrieval.karpathy, "captions", ("images filename sentences",), ("dataset_flickr30k.json",),
        {"train": 29000, "val": 1014, "test": 1000},
    ),
    "coco": Dataset(
        retrieval.karpathy, "captions", ("images filename sentences cocoid",),
        ("dataset_coco.json",), {"train": 82783, "restval": 30504, "val": 5000, "test": 5000},
    ),
    "webvid": Dataset(training.webvid, "captions", ("videoid name",), ("results_*.csv",)),
    "kinetics": Dataset(
        training.kinetics, "classes",
        ("youtube_id time_start time_end", "annotations subset url duration"),
    ),
    "ssv2": Dataset(
        training.something_label, "classes", ("id template placeholders",),
        ("something-something-v*.json", "something-something-v*.csv"),
        {"train": 168913, "validation": 24777, "test": 27157},
    ),
    "ssv2-template": Dataset(
        training.something_template, "classes",
        sizes={"train": 168913, "validation": 24777, "test": 27157},
    ),
    "coin": Dataset(
        training.coin, "classes", ("database",), ("COIN.json",),
        {"train": 9030, "test": 2797, "paper's train": 9026, "paper's test": 2796},
    ),
    "breakfast": Dataset(
        training.breakfast, "classes", ("file_name duration action class_id",),
        sizes={"train": 1357, "test": 355, "paper's train": 1577, "paper's test": 410},
    ),
    "lvu": Dataset(
        training.lvu, "classes", ("youtube_id imdb_id",),
        sizes={f"{task} test": size for task, size in _LVU_TEST.items()}
        | {f"{task} paper's test": size for task, size in _LVU_PAPER.items()},
    ),
    "labelled-list": Dataset(
        training.labelled_list, "classes", (), ("train.csv", "val.csv", "test.csv"),
    ),
    "questions": Dataset(
        questions.any_questions, "questions",
        ("video question options answer", "video question option0 answer",
         "video question A B answer"),
        ("*-questions.json",),
    ),
    "msrvtt-mc": Dataset(
        questions.msrvtt_mc, "questions", ("video caption answer", "clip_name options answer"),
        ("msrvtt_mc_test*",), {"test": 2990},
    ),
    "msrvtt-qa": Dataset(
        questions.msrvtt_qa, "questions",
        ("question answer video_id category_id", "question answer video_id",
         "question answer question_id video"),
        ("msrvtt_qa*",), {"train": 158581, "val": 12278, "test": 72821},
    ),
    "msvd-qa": Dataset(
        questions.msvd_qa, "questions",
        ("question answer video_id", "question answer question_id video"), ("msvd_qa*",),
        {"train": 30933, "val": 6415, "test": 13157},
    ),
    "activitynet-qa": Dataset(
        questions.activitynet_qa, "questions",
        ("video_name question question_id", "question answer question_id video"),
        ("anet_qa*", "*_q.json"), {"train": 32000, "val": 18000, "test": 8000},
    ),
    "nextqa": Dataset(
        questions.nextqa, "questions", ("video question qid type a0 a4",),
        sizes={"train": 34132, "val": 4996, "test": 8564},
    ),
    "egoschema": Dataset(
        questions.egoschema, "questions", ("q_uid question", "video_idx question option"),
        ("questions.json",),
        {"all": 5031, "subset": 500},
    ),
    "mlvu": Dataset(
        questions.mlvu, "questions", ("video question question_type duration",),
        ("[1-9]_*.json",),
        {f"dev {task}": size for task, size in _MLVU_DEV.items()}
        | {"dev": sum(_MLVU_DEV.values())},
        odd={f"dev {task}": odd for task, odd in _MLVU_ODD.items()}
        | {"dev": sum(_MLVU_ODD.values())},
    ),
    "longvideobench": Dataset(
        questions.longvideobench, "questions",
        ("video_id question candidates duration_group",
         "video_id question option0 duration_group"),
        ("lvb_*.json",), {"val": 1337, "test": 5341},
    ),
    "videomme": Dataset(
        questions.videomme, "questions", ("videoID question_id options task_type",),
        sizes={"test": 2700},
    ),
    "lvbench": Dataset(
        questions.lvbench, "questions",
        ("key qa video_info", "video_path uid question time_reference",
         "video question candidates answer time_reference"),
        ("video_info.meta.jsonl",), {"test": 1549},
    ),
    "moments": Dataset(
        moments.own_moments, "moments",
        ("video query relevant_windows", "video query start end"), ("*-moments.jsonl",),
    ),
    "charades-sta": Dataset(
        moments.charades_sta, "moments", (), ("charades_sta_*.txt",),
        {"train": 12408, "test": 3720}, odd={"train": 4},
    ),
    "activitynet-moments": Dataset(
        moments.activitynet_moments, "moments",
        sizes={"train": 37421, "val_1": 17505, "val_2": 17031}, odd={"train": 4},
    ),
    "qvhighlights": Dataset(
        moments.qvhighlights, "moments", ("qid query vid",), ("highlight_*.jsonl",),
        {"train": 7218, "val": 1550, "test": 1542},
    ),
}  # fmt: skip


class Reading(NamedTuple):
    """What an annotation file holds."""

    items: list[Annotation]
    odd: list[str]
    """What is wrong with each row that was left out."""


def read_annotations(
    path: Path,
    dataset: str | None = None,
    *,
    split: str | None = None,
    ids: Path | None = None,
    paragraph: bool | None = None,
) -> list[Annotation]:
    """Read an annotation file of any known data set.

    Args:
        path: The file; of sets that come in several, the folder that holds them. What belongs to
            it (answers, label numbers) is looked for beside it under its official name.
        dataset: A name of ``DATASETS``; None = told by the file's fields and name. Files of the
            VindLU layout may be given for every set of captions.
        split: Keep these splits of a file that holds several, as the file calls them, joined by
            "+" as in "train+restval".
        ids: Keep the items of this list: a text file of names, a CSV with the column ``video_id``,
            a JSON list, or a pickle such as MSR-VTT's ``jsfusion_val_caption_idx.pkl``, which
            chooses one caption of each.
        paragraph: Join the captions of a video to one; None = what the data set's protocol does.

    Returns:
        The items in the order of the file; at least one. Odd rows are left out, and the log says
        how many and which; ``read_with_odd_rows`` gives them too.

    Raises:
        ValueError: If a file is missing or not of this kind, nearly all of its rows are odd, an id
            stands for two different things, or nothing is left.
    """
    return read_with_odd_rows(path, dataset, split=split, ids=ids, paragraph=paragraph).items


def read_with_odd_rows(
    path: Path,
    dataset: str | None = None,
    *,
    split: str | None = None,
    ids: Path | None = None,
    paragraph: bool | None = None,
) -> Reading:
    """Read an annotation file as ``read_annotations`` does, and give what was left out."""
    sources = [Source(file) for file in _files(path, dataset)]
    entry = _entry(dataset or detect(sources[0]))
    items: list[Annotation] = []
    odd: list[OddRow] = []
    for source in sources:
        items += _read(entry, source)
        odd += source.odd
    if entry.content == "captions":
        items = retrieval.merge_captions(items, path)
    items = _unique(items, path)
    if split is not None:
        items = _of_splits(items, split, path)
    if ids is not None:
        wanted = read_ids(ids)
        if entry.content != "captions":  # the numbers beside the ids are answers or classes
            wanted = dict.fromkeys(wanted)
        items, unchosen = keep_listed(items, wanted, ids, path)
        _refuse_if_odd(unchosen, len(items))
        odd += unchosen
    items = _without_blanks(items, path)
    if entry.paragraph if paragraph is None else paragraph:
        items = [retrieval.as_paragraph(item) for item in items]
    if not items:
        raise ValueError(f"{path} holds no item; add records to it, or name another file")
    if odd:
        named = "; ".join(str(error).partition("; the record has")[0] for error in odd[:NAMED])
        more = f" (and {len(odd) - NAMED} more)" if len(odd) > NAMED else ""
        _log.warning("%s: %d odd rows are left out: %s%s", path, len(odd), named, more)
    return Reading(items, [str(error) for error in odd])


def _read(entry: Dataset, source: Source) -> list[Annotation]:
    try:
        items = list(_layout(entry, source).read(source))
        _refuse_if_odd(source.odd, len(items))
        _refuse_if_counted_from_1(source, items)
    except ValueError:
        refuse_id_list(source)
        raise
    return items


def _refuse_if_counted_from_1(source: Source, items: list[Annotation]) -> None:
    """Leaving out only the answers that are too high would keep the others one too high."""
    beyond = [error for error in source.odd if isinstance(error, NoSuchOption)]
    none_is_0 = not any(item.metadata.get("answer") == 0 for item in items)
    enough = len(items) + len(beyond) >= _TELLING
    if beyond and none_is_0 and enough and all(error.by_one for error in beyond):
        raise ValueError(f"{beyond[0]}; no answer is 0: are they counted from 1? count from 0")


def _refuse_if_odd(odd: list[OddRow], usable: int) -> None:
    """Take a file for another kind, or for broken, if nine of ten rows are odd.

    Raises:
        ValueError: With what is wrong with the first.
    """
    if odd and len(odd) >= 9 * usable:
        rows = len(odd) + usable
        others = f"; {len(odd)} of {rows} rows are odd" if rows > 1 else ""
        raise ValueError(f"{odd[0]}{others}")


def detect(source: Source) -> str:
    """Tell whose file it is.

    Raises:
        ValueError: If no data set or several fit.
    """
    return tell(source, DATASETS)


def _layout(entry: Dataset, source: Source) -> Dataset:
    """Choose between a set's own layout and VindLU's, which exists for every set of captions."""
    general = DATASETS["captions"]
    # VindLU's caption is called so; a description may be a set's own file with a column missing.
    usual = (
        entry.content in ("captions", "classes") and not fit(entry, source) and fit(general, source)
    )
    usual = usual and not source.fields.isdisjoint(("caption", "text", "sentence"))
    return general if usual else entry


def _entry(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]


def _files(path: Path, dataset: str | None) -> list[Path]:
    if not path.is_dir():
        return [path]
    if dataset is None:
        raise ValueError(f"{path} is a folder; give a file, or name the data set{inside(path)}")
    patterns = _entry(dataset).files
    if not patterns:
        raise ValueError(f"{path} is a folder; {dataset}'s files have no usual names, so give one")
    there = (file for file in path.iterdir() if not is_leftover(file.name))
    found = sorted(p for p in there if any(fnmatch(p.name, x) for x in patterns))
    if not found:
        raise ValueError(f"{path} holds none of {dataset}'s files ({', '.join(patterns)})")
    return found


def _unique(items: list[Annotation], path: Path) -> list[Annotation]:
    """Drop items that are repeated; two different ones with one id are an error."""
    unique: dict[str, Annotation] = {}
    for item in items:
        first = unique.setdefault(item.key, item)
        if first != item:
            raise ValueError(
                f"{path}: the id {item.key!r} stands for two different items; remove one"
            )
    if len(unique) < len(items):
        _log.warning("%s repeats %d items; each is used once", path, len(items) - len(unique))
    return list(unique.values())


def _without_blanks(items: list[Annotation], path: Path) -> list[Annotation]:
    """Leave out blank captions, and count those beside others, which nobody else sees missing."""
    filled = [item._replace(captions=[c for c in item.captions if c]) for item in items]
    pairs = zip(items, filled, strict=True)
    if lost := sum(len(a.captions) - len(b.captions) for a, b in pairs if b.captions):
        blank = number_of(lost, "caption is blank", "captions are blank")
        _log.warning("%s: %s beside others of the same clip, and left out", path, blank)
    return filled


def _of_splits(items: list[Annotation], split: str, path: Path) -> list[Annotation]:
    wanted = set(split.split("+"))
    there = {str(item.metadata["split"]) for item in items if "split" in item.metadata}
    if not wanted <= there:
        raise ValueError(
            f"{path} has no split {' and '.join(sorted(wanted - there))!r}; "
            f"it has {', '.join(sorted(there)) or 'no splits: one file is one split'}; "
            "name one that it has, or give percent with /, e.g. 80/10/10"
        )
    return [item for item in items if str(item.metadata.get("split")) in wanted]
