"""The labelled clips that probes learn from, and those that they are tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.labels import (
    Truth,
    number_classes,
    read_labelled,
    sources_of,
    truths_in_shards,
    truths_of,
)
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips, kind_in
from vmm.evaluation.probe.options import Options
from vmm.text_output import number_of


class Part(NamedTuple):
    """Clips to learn from, or to test on."""

    media: ShardClips | AnnotatedClips
    truths: list[Truth]


class Labelled(NamedTuple):
    """What the clips of both parts show."""

    names: list[str]
    """Of the classes that there are training clips of."""
    train: Tensor
    """(clips,) int64, numbers of classes; -1 where nobody says."""
    test: Tensor
    train_videos: Tensor
    """(clips,) int64, numbers of the videos that clips are parts of."""
    test_videos: Tensor


def read_parts(options: Options, clip: ClipSettings) -> tuple[Part, Part]:
    """Find the clips to learn from and those to test on.

    Args:
        options: Where they are.
        clip: How a video becomes the model's input.

    Raises:
        ValueError: If one cannot be read, or both are the same or of different kinds.
    """
    protocol = options.protocol
    if protocol is None:
        train, test = (
            _in_shards(shards, clip, options.class_field)
            for shards in (options.train_shards or "", options.given_shards())
        )
    else:
        (train_file, train_media), (file, media) = options.official_train(), options.official()
        test_items = read_labelled(protocol, file)
        train_items = read_labelled(protocol, train_file, train=True)
        if (train_items, train_media) == (test_items, media):
            raise ValueError(
                f"{file} is given to train on and to test on, and does not say which clips are "
                "for training; give --train-annotations"
            )
        train = Part(AnnotatedClips(train_items, train_media, clip), truths_of(train_items))
        test = Part(AnnotatedClips(test_items, media, clip), truths_of(test_items))
    if train.media.kind != test.media.kind:
        raise ValueError(
            f"there are {train.media.kind}s to learn from and {test.media.kind}s to test on; give "
            "two sets of one kind"
        )
    return train, test


def _in_shards(shards: str, clip: ClipSettings, field: str | None) -> Part:
    media = ShardClips(shards, clip, captioned=False, kind=kind_in(shards))
    return Part(media, truths_in_shards(media, field))


def number(train: Sequence[Truth], test: Sequence[Truth]) -> Labelled:
    """Number the classes and videos of both parts alike.

    Classes go by their names where all have one, else by the numbers of the annotations.

    Raises:
        ValueError: If a class has fewer than two training clips, a class of the test clips has
            none, or no test clip has a label.
    """
    everything = [*train, *test]
    labelled = [t for t in everything if t.name is not None or t.label is not None]
    if all(truth.name is not None for truth in labelled):
        everything = [truth._replace(label=None) for truth in everything]
    classes = number_classes(everything)
    ours, theirs = classes.labels[: len(train)], classes.labels[len(train) :]
    known = [n for n in torch.unique(ours).tolist() if n >= 0]
    shown = [classes.names[n] or f"class {n}" for n in known]
    strange = sorted({n for n in theirs.tolist() if n >= 0} - set(known))
    if strange:
        first = classes.names[strange[0]] or f"class {strange[0]}"
        without = number_of(
            len(strange), "class of the test clips has", "classes of the test clips have"
        )
        raise ValueError(
            f"{without} no training clip, e.g. {first!r}; a probe cannot know them: give training "
            "clips of them, or test clips without them"
        )
    place = torch.full((len(classes.names) + 1,), -1)  # its last entry is that of label -1
    place[torch.tensor(known, dtype=torch.int64)] = torch.arange(len(known))
    ours, theirs = place[ours.clamp(min=-1)], place[theirs.clamp(min=-1)]
    refuse_few(ours, shown)
    if not bool((theirs >= 0).any()):
        raise ValueError("not one of the test clips has a label; see --class-field")
    videos = sources_of([*train, *test])
    return Labelled(shown, ours, theirs, videos[: len(train)], videos[len(train) :])


def refuse_few(labels: Tensor, names: Sequence[str]) -> None:
    """Refuse classes with fewer training clips than a probe needs.

    Args:
        labels: (clips,) int64 of the training clips; -1 does not count.
        names: Of the classes.

    Raises:
        ValueError: If there is one class only, or one has fewer than two clips.
    """
    if len(names) < 2:
        raise ValueError(
            f"all training clips are of the class {names[0]!r}; a probe tells classes apart: give "
            "clips of two or more, or another --class-field"
            if names
            else "not one of the training clips has a label; see --class-field"
        )
    counts = Counter(labels.tolist())
    few = [name for number, name in enumerate(names) if counts[number] < 2]
    if few:
        raise ValueError(
            f"{len(few)} of {len(names)} classes have fewer than two training clips that can be "
            f"read, e.g. {few[0]!r}: one to learn from and one to choose settings on; give more "
            "clips of them, or leave these classes out"
        )
