"""What is in each video, by name and by number, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vmm.data.annotations.class_folders import CLASS_FOLDERS, class_folders
from vmm.data.annotations.class_list import plain_name, read_class_names
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import read_annotations
from vmm.data.annotations.source import Source
from vmm.data.annotations.training import labelled_cells
from vmm.data.faults import SampleError
from vmm.data.schema import captions_of, labels_of
from vmm.evaluation.common.class_protocols import ClassProtocol
from vmm.evaluation.common.results import content_hash
from vmm.evaluation.common.sources import ShardClips
from vmm.losses.classification import ProblemType

_MOST_CLASSES = 10**6
_SOURCES = ("media", "url", "video", "video_id", "videoid", "youtube_id")
"""Fields of a sample's JSON that name its video: ``make_shards``' and downloaders'."""


class Truth(NamedTuple):
    """What a sample is said to show."""

    key: str
    """The sample's id."""
    media: str
    """Its file, as the annotations name it."""
    name: str | None = None
    """Name of its class."""
    label: int | None = None
    """Number of its class, as the file has it."""
    target: float | None = None
    """Number to predict."""
    several: tuple[tuple[str | None, float | None], ...] = ()
    """Name and number of each of its classes, if it may have several."""
    source: str | None = None
    """What names the video that it is a part of, here and in other sets; None = nothing does."""


class Classes(NamedTuple):
    """The classes of a test set."""

    names: list[str | None]
    """By number; None where nobody says."""
    origin: str
    """How the numbers came about."""
    labels: Tensor
    """(samples,) int64; -1 where the class is unknown."""


def read_labelled(
    protocol: ClassProtocol, annotations: Path, ids: Path | None = None, train: bool = False
) -> list[Annotation]:
    """Read the samples of a classification set from an official file.

    Lists of ``path label`` without header, as VideoMamba and VideoMAE have them, are taken for
    every set.

    Args:
        protocol: The set.
        annotations: The file, or a folder with a folder of each class.
        ids: A list of the ids to keep.
        train: Of a file that holds several splits take that to train on, not that to measure on.

    Raises:
        ValueError: If a file cannot be read or nothing is left.
    """
    if protocol.dataset == CLASS_FOLDERS:
        return class_folders(annotations)
    dataset = "labelled-list" if _is_labelled_list(annotations) else protocol.dataset
    items = read_annotations(annotations, dataset, ids=ids)
    found = {str(item.metadata["split"]) for item in items if "split" in item.metadata}
    if train:
        wanted = [split for split in found if split.startswith("train")]
    else:
        wanted = [split for split in protocol.splits if split in found]
    return [i for i in items if not wanted or str(i.metadata.get("split")) in wanted]


def _is_labelled_list(path: Path) -> bool:
    """Tell a list without header by its first line: a path, a whole number, maybe a duration."""
    if path.suffix not in (".csv", ".txt"):
        return False
    first = next((line for line in Source(path).lines() if line), "")
    return labelled_cells(first) is not None


def truths_of(items: Sequence[Annotation]) -> list[Truth]:
    """Take classes, or numbers to predict, from annotations."""
    truths = []
    for item in items:
        name = item.metadata.get("class")
        if not isinstance(name, str):
            name = item.captions[0] if item.captions else None
        label = item.metadata.get("label")
        if type(label) is not int:  # of somebody's own file: a name, or anything
            label = None
        if label is not None and name == str(label):
            name = None  # a list of numbers
        target = item.metadata.get("target")
        truths.append(Truth(item.key, item.media, name, label, target, source=item.media))
    return truths


def truths_in_shards(
    clips: ShardClips, field: str | None = None, problem_type: ProblemType = "single_label"
) -> list[Truth]:
    """Take classes, or numbers to predict, from the samples' JSON.

    Args:
        clips: The samples.
        field: Where they are, see ``vmm.data.schema.labels_of``.
        problem_type: What the labels are.

    Raises:
        ValueError: If no sample has one, or one has several.
    """
    truths = []
    for place in range(len(clips)):
        try:
            key, metadata = clips.metadata(place)
        except SampleError:
            truths.append(Truth(f"#{place}", f"#{place}"))
            continue
        labels = labels_of(metadata, captions_of(None, metadata), field)
        source = next((s for name in _SOURCES if isinstance(s := metadata.get(name), str)), None)
        if problem_type == "multi_label":
            truths.append(Truth(key, key, several=tuple(labels), source=source))
            continue
        if len(labels) > 1:
            raise ValueError(
                f"{key} has {len(labels)} labels, and the model says one class of each sample; "
                "train one with model.init_args.problem_type multi_label, or name another field"
            )
        name, value = labels[0] if labels else (None, None)
        if problem_type == "regression":
            truths.append(Truth(key, key, target=value, source=source))
        else:
            whole = value is not None and value == int(value)
            number = int(value) if whole else None  # type: ignore[arg-type]
            truths.append(Truth(key, key, name, number, source=source))
    if not any((t.name, t.label, t.target, t.several) != (None, None, None, ()) for t in truths):
        raise ValueError(
            f"no sample's JSON has a text or a number in {field or 'label'!r}; name the field of "
            "the class with --class-field, e.g. attributes.shape"
        )
    return truths


def number_classes(truths: Sequence[Truth], file: Path | None = None) -> Classes:
    """Give every class its number.

    Args:
        truths: Of all samples.
        file: List of the names in the order of their numbers, see ``read_class_names``; None = the
            numbers of the annotations, or, where they have none, places in the sorted names.

    Raises:
        ValueError: If the file cannot be read, or one number has two names.
    """
    names: list[str | None] = []
    found: dict[int, str] = {}
    if file is not None:
        names, origin = [*read_class_names(file)], f"the order of {file.name}"
    elif any(truth.label is not None for truth in truths):
        origin = "the numbers in the annotations"
        for truth in truths:
            if truth.label is None or truth.label < 0:
                continue
            if truth.label > _MOST_CLASSES:
                raise ValueError(f"{truth.key!r} has class number {truth.label}; count from 0")
            names += [None] * (truth.label + 1 - len(names))
            if truth.name is not None and found.setdefault(truth.label, truth.name) != truth.name:
                raise ValueError(
                    f"class {truth.label} is {found[truth.label]!r} and {truth.name!r}; a number "
                    "must stand for one class"
                )
        for label, name in found.items():
            names[label] = name
    else:
        names = [*sorted({truth.name for truth in truths if truth.name is not None})]
        origin = "the alphabetical order of the names"
    number = {plain_name(name): i for i, name in enumerate(names) if name is not None}
    labels = [
        truth.label if truth.label is not None else number.get(plain_name(truth.name or ""), -1)
        for truth in truths
    ]
    return Classes(names, origin, torch.tensor(labels, dtype=torch.int64))


def sources_of(truths: Sequence[Truth]) -> Tensor:
    """Number the videos that samples are parts of: (samples,) int64."""
    videos: dict[str, int] = {}
    names = (truth.source or truth.media for truth in truths)
    return torch.tensor([videos.setdefault(name, len(videos)) for name in names])


def hash_of(truths: Sequence[Truth]) -> str:
    """Tell what was asked apart, in 16 digits."""
    return content_hash(sorted([t.key, t.name, t.label, t.target, *t.several] for t in truths))
