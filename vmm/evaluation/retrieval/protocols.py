"""Published test sets: what each must look like, and what others reach on it.

The annotation files are read by ``vmm.data.annotations``; here is what makes a number comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vmm.data.annotations.ids import read_ids
from vmm.data.annotations.media import stem
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import read_annotations


class Protocol(NamedTuple):
    """A test set as papers use it."""

    title: str
    """As tables call it."""
    dataset: str
    """Name in ``vmm.data.annotations.registry.DATASETS``."""
    split: str | None = None
    """What the official file calls it, where one file holds several splits."""
    videos: int | None = None
    """Published size; None where it is not fixed."""
    captions: tuple[int, int] | None = None
    """Fewest and most captions of a video."""
    paragraph: bool = False
    """Whether the captions of a video are joined to one."""
    shared_captions: bool = False
    """Whether several videos are right answers to one caption."""
    id_form: str = ""
    """Regular expression of all ids without extension, where they have a form."""
    training_id: Callable[[str], bool] | None = None
    """Tells a training video by its id, where ids say it."""


_MSRVTT_ID = r"video\d{1,4}"


def _msrvtt_training(name: str) -> bool:
    """MSR-VTT numbers its 10,000 videos; the test split begins at 7010."""
    number = name.removeprefix("video")
    return number.isdecimal() and int(number) < 7010


PROTOCOLS: dict[str, Protocol] = {
    "msrvtt-1ka": Protocol(
        "MSRVTT-1kA", "msrvtt", "test", 1000, (1, 1), False, False, _MSRVTT_ID, _msrvtt_training
    ),
    "msrvtt-7k": Protocol(  # another training set, the same test
        "MSRVTT-7k", "msrvtt", "test", 1000, (1, 1), False, False, _MSRVTT_ID, _msrvtt_training
    ),
    "msrvtt-full": Protocol(
        "MSRVTT full", "msrvtt", "test", 2990, (20, 20), False, False, _MSRVTT_ID, _msrvtt_training
    ),
    "msvd": Protocol("MSVD", "msvd", None, 670, (2, 100)),
    "didemo": Protocol(
        "DiDeMo", "didemo", None, 1004, (1, 1), paragraph=True, id_form=r"\d+@N\d+_.+"
    ),
    "activitynet": Protocol(
        "ActivityNet", "activitynet", None, 4917, (1, 1), paragraph=True, id_form=r"(v_)?.{11}"
    ),
    "lsmdc": Protocol("LSMDC", "lsmdc", None, 1000, (1, 1)),
    "vatex": Protocol("VATEX", "vatex", None, 1500, (10, 10)),
    "flickr30k": Protocol("Flickr30k", "flickr30k", "test", 1000, (5, 5)),
    "coco": Protocol("COCO", "coco", "test", 5000, (5, 7)),
    "ssv2-label": Protocol("SSv2-label", "ssv2"),
    "ssv2-template": Protocol("SSv2-template", "ssv2-template", shared_captions=True),
    "captions": Protocol("captions", "captions"),
}
"""Name on the command line -> protocol. ``captions`` is any VindLU or UMT JSON."""


class Published(NamedTuple):
    """Zero-shot R@1 of a model, text-to-video and video-to-text."""

    model: str
    scores: str
    t2v: float
    v2t: float | None


_RERANKED, _DUAL, _WEIGHTED = "re-ranked, k=128", "dual encoder", "dual softmax"

# From the models' papers and repositories, restated: (t2v, v2t) of the titles in order.
_TITLES = ("MSRVTT-1kA", "DiDeMo", "ActivityNet", "LSMDC", "MSVD")
_Pair = tuple[float, float | None] | None
_ROWS: tuple[tuple[str, str, tuple[_Pair, ...]], ...] = (
    ("VideoMamba-M 5M", _RERANKED,
     ((32.0, 28.2), (36.6, 38.3), (35.9, 32.8), (18.0, 15.9), (38.0, 57.5))),
    ("VideoMamba-M 17M", _RERANKED,
     ((34.7, 29.5), (42.0, 42.3), (40.1, 34.2), (18.4, 16.5), (40.3, 61.8))),
    ("VideoMamba-M 25M", _RERANKED,
     ((35.6, 29.1), (43.1, 43.8), (41.0, 37.1), (20.4, 17.9), (42.0, 62.7))),
    ("UMT-B 25M", _RERANKED, ((35.2, 30.3), (41.2, 40.8), (35.5, 32.8), (19.1, 15.7), None)),
    ("UMT-B 25M", _DUAL, ((27.7, 26.2), None, None, None, None)),
    ("UMT-L 25M", _RERANKED,
     ((40.7, 37.1), (48.6, 49.9), (41.9, 39.4), (24.9, 21.9), (49.0, None))),
    ("InternVideo2-s2 1B", _RERANKED,
     ((51.9, 50.9), (57.0, 54.3), (60.4, 54.8), (32.0, 27.3), (58.1, 83.3))),
    ("InternVideo2-CLIP 1B", _DUAL, ((50.0, None), None, None, None, None)),
    ("InternVideo2-CLIP L14", _DUAL, ((42.1, None), None, None, None, None)),
    ("InternVideo2-CLIP B14", _DUAL, ((40.3, None), None, None, None, None)),
    ("InternVideo2-CLIP S14", _DUAL, ((35.6, None), None, None, None, None)),
    ("PE-core G14", _WEIGHTED, ((51.2, None), None, None, None, None)),
    ("PE-core L14", _WEIGHTED, ((50.3, None), None, None, None, None)),
    ("PE-core B16", _WEIGHTED, ((47.6, None), None, None, None, None)),
    ("PE-core S16", _WEIGHTED, ((39.3, None), None, None, None, None)),
    ("PE-core T16", _WEIGHTED, ((28.8, None), None, None, None, None)),
)  # fmt: skip


def published(title: str) -> list[Published]:
    """List what others reach on a test set, by its title; empty where nothing is known."""
    if title not in _TITLES:
        return []
    column = _TITLES.index(title)
    return [
        Published(model, scores, *pair)
        for model, scores, pairs in _ROWS
        if (pair := pairs[column]) is not None
    ]


def read_protocol(name: str, annotations: Path, ids: Path | None = None) -> list[Annotation]:
    """Read the items of a published test set from an official file.

    Args:
        name: Of ``PROTOCOLS``.
        annotations: The file, or the folder of one that comes in several.
        ids: A list of the ids to keep.

    Raises:
        ValueError: If the name is unknown, a file cannot be read, or nothing is left.
    """
    protocol = protocol_of(name)
    items = read_annotations(annotations, protocol.dataset, ids=ids)
    splits = {str(item.metadata["split"]) for item in items if "split" in item.metadata}
    if ids is None and protocol.split in splits:
        items = [item for item in items if str(item.metadata.get("split")) == protocol.split]
    return items


def read_training_ids(path: Path) -> frozenset[str]:
    """Read which videos a model was trained on: a list of ids, or any annotation file.

    Returns:
        Ids without folders and extensions.

    Raises:
        ValueError: If the file is neither.
    """
    try:
        return frozenset(stem(item.media) for item in read_annotations(path))
    except ValueError:  # not annotations; a list of ids is told by nothing
        return frozenset(read_ids(path))


def protocol_of(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"there is no test set {name!r}; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
