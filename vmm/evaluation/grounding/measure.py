"""From windows to numbers, what they must be compared with, and whether the video helped.

All numbers are percent, means over sentences, with errors clustered by video. Q counts the
sentences that are measured: those whose moments are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vmm.evaluation.common.clustered import clustered_mean
from vmm.evaluation.common.helped import of_readable, said_of
from vmm.evaluation.grounding.metrics import (
    MARKS,
    RANGES,
    THRESHOLDS,
    Floats,
    average_precision,
    best_iou,
    highlight_precision,
    hit_at_1,
    in_range,
    marks_of_clips,
)
from vmm.evaluation.grounding.proposals import Prior, centre, clip_scores, from_curve, whole
from vmm.evaluation.grounding.protocols import MomentQuery
from vmm.evaluation.grounding.scoring import VideoCurves

METHODS = {"head": "trained head", "curve": "relevance curve"}
BLIND = {
    "centre": "middle half",
    "whole": "whole video, the longest window",
    "prior": "where training moments lie",
}
"""Controls that see nothing."""
CONTROLS = {"shuffled": "frames in random order", **BLIND}
RECALL_IOUS = (0.3, 0.5, 0.7)
RECALL_DEPTHS = (1, 5)
PRECISION_IOUS = (0.5, 0.75)
CURVE_IOUS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""IoUs at which the chart of recall is drawn."""
LENGTHS = RANGES | {"over 150 s": (150.0, float("inf"))}


class Found(NamedTuple):
    """What a method finds for one sentence."""

    windows: Floats
    """(N, 3) start, end and score, best first."""
    clips: Floats
    """(C,) scores of clips of two seconds, for highlights."""


Answers = dict[str, Found]
"""Method or control -> what it finds; empty where the video cannot be read."""


def answers_of(
    queries: Sequence[MomentQuery], videos: Sequence[VideoCurves], prior: Prior | None
) -> list[Answers]:
    """Answer every sentence by every method and control.

    Args:
        queries: In the order in which they were scored.
        videos: From ``vmm.evaluation.grounding.scoring.score_videos``.
        prior: Of the training split, if it is known.
    """
    taken = [0] * len(videos)
    answers = []
    for query in queries:
        video, place = videos[query.video], taken[query.video]
        taken[query.video] += 1
        answers.append({} if video.problem else _answers(video, place, prior))
    return answers


def _answers(video: VideoCurves, place: int, prior: Prior | None) -> Answers:
    edges = np.array(video.edges)
    duration = float(edges[-1])
    found: Answers = {}
    if video.windows:
        inside = clip_scores(np.array(video.inside[place]), edges)
        found["head"] = Found(np.array(video.windows[place]).reshape(-1, 3), inside)
    for name, curves in (("curve", video.curves), ("shuffled", video.shuffled)):
        curve = np.array(curves[place])
        found[name] = Found(from_curve(curve, edges), clip_scores(curve, edges))
    blind: dict[str, Callable[[float], Floats]] = {"centre": centre, "whole": whole}
    if prior is not None:
        blind["prior"] = prior
    for name, propose in blind.items():
        windows = propose(duration)
        start, end = windows[0, :2]
        ends = np.array([0, start, end, duration])
        found[name] = Found(windows, clip_scores(np.array([0.0, 1.0, 0.0]), ends))
    return found


def metrics_of(query: MomentQuery, found: Found | None, true: Floats) -> dict[str, float]:
    """Measure one answer: name of the metric -> percent.

    Args:
        query: With its marks, for highlights.
        found: The answer; None = there is none, a miss.
        true: (M, 2) moments.
    """
    none = found is None
    windows = np.zeros((0, 2)) if found is None else found.windows[:, :2]
    best = {n: best_iou(windows, true, n) for n in RECALL_DEPTHS}
    precision = average_precision(windows, true)
    values = {f"R{n}@{m}": float(best[n] >= m) for n in RECALL_DEPTHS for m in RECALL_IOUS}
    values["mIoU"] = best[1]
    values |= {f"mAP@{m}": float(precision[THRESHOLDS.index(m)]) for m in PRECISION_IOUS}
    values["mAP"] = float(precision.mean())
    if query.marks and query.duration:
        marks = marks_of_clips(query.duration, query.clips, query.marks)
        for name, least in MARKS.items():
            clips = np.zeros(1) if found is None else found.clips
            values[f"HIT@1 {name}"] = 0.0 if none else hit_at_1(clips, marks, least)
            values[f"HL-mAP {name}"] = 0.0 if none else highlight_precision(clips, marks, least)
    return {name: 100 * value for name, value in values.items()}


def measure(
    queries: Sequence[MomentQuery], answers: Sequence[Answers], metric: str
) -> dict[str, Any]:
    """Turn answers into the numbers of the result.

    Args:
        queries: Those with known moments, at least one.
        answers: To these.
        metric: The one that methods are compared by.

    Returns:
        ``headline``, ``metric``, ``metrics``, ``lead``, ``gain``, ``by_length``, ``recall`` and
        ``verdict``, as ``vmm.evaluation.grounding.results`` describes them.
    """
    clusters = torch.tensor([query.video for query in queries])
    known = {name for own in answers for name in own}
    names = [name for name in (*METHODS, *CONTROLS) if name in known]
    values = {name: _per_query(queries, answers, name) for name in names}
    headline = names[0]
    compared = {name: values[name][metric] for name in names}
    read = [headline in own for own in answers]
    leads = {name: compared[headline] - compared[name] for name in names if name not in METHODS}
    gain = compared["head"] - compared["curve"] if "head" in known else None
    return {
        "headline": headline,
        "metric": metric,
        "metrics": {
            name: {key: _estimate(found, clusters) for key, found in own.items()}
            for name, own in values.items()
        },
        "lead": {name: _estimate(lead, clusters) for name, lead in leads.items()},
        "gain": None if gain is None else _estimate(gain, clusters),
        "by_length": _by_length(queries, answers, names),
        "recall": _recall(queries, answers, names),
        "verdict": verdict(headline, metric, compared, clusters, read),
    }


def _per_query(
    queries: Sequence[MomentQuery], answers: Sequence[Answers], name: str
) -> dict[str, Tensor]:
    """Measure a method's answers: metric -> (Q,), of highlights only where all have marks."""
    rows = [
        metrics_of(query, own.get(name), query.true)
        for query, own in zip(queries, answers, strict=True)
    ]
    common = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: torch.tensor([row[key] for row in rows]).double() for key in common}


def _by_length(
    queries: Sequence[MomentQuery], answers: Sequence[Answers], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Measure moments of some lengths apart; others of a sentence are as if they were not."""
    table: dict[str, dict[str, Any]] = {}
    for title, (low, high) in LENGTHS.items():
        own = [
            (query, found, true)
            for query, found in zip(queries, answers, strict=True)
            if len(true := in_range(query.true, low, high))
        ]
        if not own:
            continue
        clusters = torch.tensor([query.video for query, _, _ in own])
        table[title] = {"queries": len(own), "methods": {}}
        for name in names:
            rows = [
                metrics_of(q._replace(marks=[]), found.get(name), true) for q, found, true in own
            ]
            table[title]["methods"][name] = {
                key: _estimate(torch.tensor([row[key] for row in rows]).double(), clusters)
                for key in rows[0]
            }
    return table


def _recall(
    queries: Sequence[MomentQuery], answers: Sequence[Answers], names: Sequence[str]
) -> dict[str, Any]:
    """Give R@1 over the IoU that is asked for, percent."""
    curves: dict[str, Any] = {}
    for name in names:
        best = np.array([
            best_iou(own[name].windows[:, :2], query.true, 1) if name in own else 0.0
            for query, own in zip(queries, answers, strict=True)
        ])  # fmt: skip
        curves[name] = [round(100 * float((best >= m).mean()), 3) for m in CURVE_IOUS]
    return {"iou": list(CURVE_IOUS), "methods": curves}


def verdict(
    headline: str,
    metric: str,
    compared: Mapping[str, Tensor],
    clusters: Tensor,
    read: Sequence[bool],
) -> str:
    """Say in a sentence whether the video helped at all, and its order.

    Args:
        headline: Name of the method.
        metric: Name of the number.
        compared: Method or control -> (Q,) percent.
        clusters: (Q,) the video of each sentence.
        read: Of each sentence, whether its video could be read; at least one.
    """
    compared, clusters, where = of_readable(compared, clusters, read)
    model = compared[headline]
    best = max((n for n in BLIND if n in compared), key=lambda name: float(compared[name].mean()))
    blind = clustered_mean(model - compared[best], clusters)
    order = clustered_mean(model - compared["shuffled"], clusters)
    what = said_of(blind, "Looking at the video is worse than not looking")
    said = (
        f"{what}: {metric} of the {METHODS[headline]} is {float(model.mean()):.1f} %{where}, "
        f"{blind.apart} the best control that sees none ({BLIND[best]}, "
        f"{float(compared[best].mean()):.1f} %), and {order.apart} the curve of the same frames "
        "in random order"
    )
    if headline == "head":
        gain = clustered_mean(model - compared["curve"], clusters)
        return f"{said}. The head is {gain.apart} the model's own curve."
    return f"{said}."


def _estimate(values: Tensor, clusters: Tensor) -> dict[str, float | None]:
    mean, error = clustered_mean(values, clusters)
    return {"value": mean, "error": error}
