"""What is off with a probe: clips in both sets, choices at an end, too little to learn from.

Shape legend: see ``vmm.types``; N training clips, M test clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vmm.evaluation.common.class_accuracy import hits
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.common.labels import Truth
from vmm.evaluation.probe.options import Probe
from vmm.evaluation.probe.readers import Reading

_ALIKE = 1e-3
"""Distance of two standardised vectors, as a share of their usual length, that only rounding is."""
_FEW = 5
_CHUNK = 64


@dataclass(frozen=True)
class ProbeSubject:
    """What is checked.

    Attributes:
        train: Of the training clips that were read and have a label.
        test: Of the test clips that count.
        labels: (N,) int64, classes of the training clips.
        asked: (M,) int64, classes of the test clips.
        names: Of the classes.
        vectors: (N, D) float64, standardised, of the training clips.
        seen: (m, D), of the test clips that could be read.
        rows: (m,) int64, numbers of these among the test clips.
        readings: Probe -> what it says, of the model.
        scores: Probe -> (M, K) float64, see ``measure``.
        control: Whether random weights were probed too, if that was wanted.
        of_stage_1: Whether the model is of a run of stage 1.
    """

    train: Sequence[Truth]
    test: Sequence[Truth]
    labels: Tensor
    asked: Tensor
    names: Sequence[str]
    vectors: Tensor
    seen: Tensor
    rows: Tensor
    readings: Mapping[Probe, Reading]
    scores: Mapping[Probe, Tensor]
    control: bool
    of_stage_1: bool


def lint_probe(subject: ProbeSubject) -> list[Finding]:
    """List what is off."""
    return [finding for check in _CHECKS for finding in check(subject)]


def _same_video(subject: ProbeSubject) -> Iterator[Finding]:
    learnt = {truth.source for truth in subject.train} - {None}
    twice = torch.tensor([truth.source in learnt for truth in subject.test])
    if bool(twice.any()):
        first = subject.test[int(twice.nonzero()[0])].source
        yield Finding(
            "same-video",
            f"{int(twice.sum())} of {len(twice)} test clips are of a video that training clips "
            f"are of too, by its name, e.g. {first!r}",
            _without(subject, twice),
        )


def _same_features(subject: ProbeSubject) -> Iterator[Finding]:
    limit = _ALIKE * subject.vectors.shape[1] ** 0.5
    nearest = [
        torch.cdist(some, subject.vectors).amin(1) for some in torch.split(subject.seen, _CHUNK)
    ]
    alike = torch.zeros(len(subject.test), dtype=torch.bool)
    alike[subject.rows] = torch.cat(nearest) < limit
    if bool(alike.any()):
        first = subject.test[int(alike.nonzero()[0])].key
        yield Finding(
            "same-features",
            f"{int(alike.sum())} of {len(alike)} test clips have the very features of a training "
            f"clip, e.g. {first!r}: the same recording, or one that the model cannot tell from it",
            _without(subject, alike),
        )


def _without(subject: ProbeSubject, left_out: Tensor) -> str:
    """Say what the numbers would be without some of the test clips."""
    if bool(left_out.all()):
        return "what a probe says of clips that it learnt from is no measure: take other test clips"
    kept = ~left_out
    values = [
        f"{probe} {100 * hits(scores[kept], subject.asked[kept], 1).mean().item():.1f}"
        for probe, scores in subject.scores.items()
    ]
    return f"a probe may know them by heart; top-1 without them: {', '.join(values)}"


def _few(subject: ProbeSubject) -> Iterator[Finding]:
    counts = Counter(subject.labels.tolist())
    few = [name for number, name in enumerate(subject.names) if counts[number] < _FEW]
    if few:
        yield Finding(
            "few-clips",
            f"{len(few)} of {len(subject.names)} classes have fewer than {_FEW} training clips, "
            f"e.g. {few[0]!r}",
            "with others of them the numbers would be others, which no interval here shows",
        )


def _edge(subject: ProbeSubject) -> Iterator[Finding]:
    for probe, reading in subject.readings.items():
        if reading.edge:
            said = ", ".join(f"{name} {value:g}" for name, value in reading.chosen.items())
            yield Finding(
                "edge",
                f"of what the {probe} probe tries, the last was chosen: {said}",
                "with more it might be a little better",
            )


def _not_converged(subject: ProbeSubject) -> Iterator[Finding]:
    for probe, reading in subject.readings.items():
        if not reading.converged:
            yield Finding(
                "not-converged",
                f"the fit of the {probe} probe did not come to its end",
                "its number may be a little too low",
            )


def _stage_1(subject: ProbeSubject) -> Iterator[Finding]:
    if subject.of_stage_1:
        yield Finding(
            "stage-1",
            "the run is one of stage 1, which does not reach what comes after its taps: the last "
            "norms and, as published, the last mixer",
            "what the probes read has passed these random weights, which stage 2 or fine-tuning "
            "trains; the numbers may be too low",
        )


def _no_control(subject: ProbeSubject) -> Iterator[Finding]:
    if not subject.control:
        yield Finding(
            "no-control",
            "the model could not be made anew with random weights",
            "how much of the numbers its training is worth is not known",
        )


_CHECKS: tuple[Callable[[ProbeSubject], Iterator[Finding]], ...] = (
    _same_video,
    _same_features,
    _few,
    _edge,
    _not_converged,
    _stage_1,
    _no_control,
)
