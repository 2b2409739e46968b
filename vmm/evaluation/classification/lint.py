"""What is off with a classification: classes, numbers, views, samples.

Shape legend: see ``vmm.types``; N samples, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from vmm.data.views import Views
from vmm.evaluation.common.class_accuracy import hits, readable_rows
from vmm.evaluation.common.class_protocols import ClassProtocol
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.common.labels import Classes, Truth
from vmm.text_output import number_of

_SHUFFLES = 20


@dataclass(frozen=True)
class ClassSubject:
    """What is checked.

    Attributes:
        protocol: The test set that it is called; None = nobody's.
        truths: Of all samples.
        classes: Their names and numbers.
        outputs: Classes that the model tells apart.
        views: How each video was seen.
        scores: (N, K), see ``vmm.evaluation.common.class_accuracy.hits``.
        numbered_by_model: Whether class numbers must be those of a trained classifier.
        sampling: How frames were chosen; None = in a way of its own.
    """

    protocol: ClassProtocol | None
    truths: Sequence[Truth]
    classes: Classes
    outputs: int
    views: Views
    scores: Tensor
    numbered_by_model: bool
    sampling: str = ""


def lint_classes(subject: ClassSubject) -> list[Finding]:
    """List what is off."""
    checks = (
        _size,
        _twice,
        _views,
        _frames,
        _unknown,
        _out_of_range,
        _count,
        _contradicted,
        _order,
        _tied,
    )
    return [finding for check in checks for finding in check(subject)]


def lint_samples(
    protocol: ClassProtocol | None, truths: Sequence[Truth], views: Views
) -> list[Finding]:
    """List what is off with a set of numbers to predict, which has no classes."""
    none = Classes([], "", torch.empty(0))
    subject = ClassSubject(protocol, truths, none, 1, views, torch.empty(0, 1), False)
    return [finding for check in (_size, _twice, _views) for finding in check(subject)]


def _size(subject: ClassSubject) -> Iterator[Finding]:
    protocol, found = subject.protocol, len(subject.truths)
    if protocol is None or protocol.size is None:
        return
    if found not in (protocol.size, protocol.paper_size):
        paper = protocol.paper_size not in (None, protocol.size)
        usual = f"{protocol.size}" + f" in the lists and {protocol.paper_size} in the paper" * paper
        yield Finding(
            "size",
            f"{number_of(found, 'sample')}, {protocol.title} has {usual}",
            "on a part of the set, or another split, the number is not the published one's peer",
        )


def _twice(subject: ClassSubject) -> Iterator[Finding]:
    counts = Counter(truth.media for truth in subject.truths)
    twice = [media for media, count in counts.items() if count > 1]
    if twice:
        yield Finding(
            "sample-twice",
            f"{number_of(len(twice), 'file is', 'files are')}"
            f" listed more than once, e.g. {twice[0]}",
            "they count more than once; the interval takes them for one video",
        )
    bases = Counter(PurePosixPath(media).name.partition(".")[0] for media in counts)
    merged = sum(count - 1 for count in bases.values() if count > 1)
    if merged:
        yield Finding(
            "base-names",
            f"{number_of(merged, 'file has', 'files have')}"
            " the base name of another one in another folder",
            f"the published code merges their views: it would report on {len(bases)} videos; here "
            "every sample stands for itself",
        )


def _views(subject: ClassSubject) -> Iterator[Finding]:
    protocol, views = subject.protocol, subject.views
    if protocol is not None and subject.numbered_by_model and (views.clips, views.crops) != (
        protocol.clips, protocol.crops
    ):  # fmt: skip
        yield Finding(
            "views",
            f"{number_of(views.clips, 'clip')} x {number_of(views.crops, 'crop')}, "
            f"published {protocol.title} numbers have {protocol.clips} x {protocol.crops}",
            "fewer views usually cost a point or two",
        )


def _frames(subject: ClassSubject) -> Iterator[Finding]:
    protocol, sampling = subject.protocol, subject.sampling
    if protocol and subject.numbered_by_model and sampling not in ("", protocol.sampling):
        yield Finding(
            "frames",
            f"frames are chosen by the rule {sampling}, in published {protocol.title} numbers by "
            f"{protocol.sampling}",
            "the number is of other frames than its peers'",
        )


def _unknown(subject: ClassSubject) -> Iterator[Finding]:
    unknown = [t for t, n in zip(subject.truths, subject.classes.labels, strict=True) if n == -1]
    if unknown:
        names = Counter(truth.name for truth in unknown).most_common(1)[0][0]
        yield Finding(
            "unknown-class",
            f"{number_of(len(unknown), 'sample has', 'samples have')}"
            f" a class that is not in the list, e.g. {names!r}",
            "they are never right",
        )


def _out_of_range(subject: ClassSubject) -> Iterator[Finding]:
    labels = subject.classes.labels
    outside = labels[(labels >= subject.outputs) | (labels < -1)]
    if len(outside):
        first = bool((labels > 0).all()) and int(labels.max()) == subject.outputs
        hint = "; the numbers seem to begin at 1" if first else ""
        yield Finding(
            "label-range",
            f"{number_of(len(outside), 'label is', 'labels are')}"
            f" not in 0..{subject.outputs - 1}, e.g. "
            f"{int(outside[0])}{hint}",
            "these samples are never right" + ("; nor are the others" if first else ""),
        )


def _count(subject: ClassSubject) -> Iterator[Finding]:
    listed = len(subject.classes.names)
    expected = subject.protocol.classes if subject.protocol else None
    if subject.numbered_by_model and listed != subject.outputs:
        yield Finding(
            "class-count",
            f"the list has {listed} classes, the model {subject.outputs}",
            "numbers may stand for other classes; a list that lacks some shifts those after them",
        )
    elif expected not in (None, listed):
        yield Finding(
            "class-count",
            f"{number_of(listed, 'class', 'classes')}, the set has {expected}",
            "among fewer classes guessing is easier",
        )


def _contradicted(subject: ClassSubject) -> Iterator[Finding]:
    """Find labels whose number and name are two classes of the list."""
    names = [_words(name or "") for name in subject.classes.names]
    wrong = [
        truth
        for truth in subject.truths
        if truth.label is not None
        and truth.name is not None
        and _words(truth.name) in names
        and names.index(_words(truth.name)) != truth.label
    ]
    if wrong:
        yield Finding(
            "class-order",
            f"{number_of(len(wrong), 'sample has', 'samples have')}"
            " a number that the list gives to another class, e.g. "
            f"{wrong[0].name!r} is {wrong[0].label} in the annotations",
            "one of both is in another order than the model's; the accuracy means nothing",
        )


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _order(subject: ClassSubject) -> Iterator[Finding]:
    """Find classes in another order than the model's.

    Accuracy is then low, and yet each prediction stands for one class: naming every
    predicted class after the majority of its samples, the model is right much more often than by
    the same naming of shuffled labels.
    """
    labels, scores = subject.classes.labels, subject.scores
    rows = readable_rows(scores) & (labels >= 0)
    labels, predicted = labels[rows], scores[rows].argmax(1)
    if not subject.numbered_by_model or len(labels) < 2 * subject.outputs or subject.outputs < 3:
        return
    top_1 = hits(scores[rows], labels, 1).mean().item()
    generator = torch.Generator().manual_seed(0)
    renamed = _renamed_accuracy(predicted, labels)
    shuffled = torch.tensor(
        [
            _renamed_accuracy(predicted, labels[torch.randperm(len(labels), generator=generator)])
            for _ in range(_SHUFFLES)
        ]
    )
    by_chance = shuffled.mean().item() + 5 * shuffled.std().item()
    if renamed > max(by_chance, 3 * top_1):
        yield Finding(
            "class-order",
            f"top-1 is {100 * top_1:.1f} %, but with its classes renamed the model would be right "
            f"in {100 * renamed:.1f} % (with shuffled labels {100 * shuffled.mean().item():.1f} %)",
            "the class list is in another order than the checkpoint's; the accuracy means nothing",
        )


def _renamed_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Give the accuracy if each predicted class gets the name of most of its samples."""
    pairs = Counter(zip(predicted.tolist(), labels.tolist(), strict=True))
    best: dict[int, int] = {}
    for (guess, _), count in pairs.items():
        best[guess] = max(best.get(guess, 0), count)
    return sum(best.values()) / len(labels)


def _tied(subject: ClassSubject) -> Iterator[Finding]:
    scores = subject.scores[readable_rows(subject.scores)]
    tied = ((scores == scores.amax(1, keepdim=True)).sum(1) > 1).sum().item() if len(scores) else 0
    if tied:
        yield Finding(
            "ties",
            f"{tied} of {len(scores)} samples have several best classes of equal score",
            "each of them counts as chosen equally often",
        )
