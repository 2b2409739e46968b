"""From scores of options to accuracies, what they must be compared with, and whether videos helped.

An accuracy is the probability of choosing the right option, equal scores at random, in percent; its
error is clustered by video. Q counts the questions that are measured: those whose answer is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmm.evaluation.common.clustered import clustered_mean
from vmm.evaluation.common.helped import of_readable, said_of
from vmm.evaluation.long_video_qa.protocols import ChoiceQuestion, length_class
from vmm.evaluation.long_video_qa.scoring import VIEWS, VideoScores
from vmm.metrics import choice_probability, multiple_choice_scores

METHODS = {
    "similarity": "similarity",
    "matching": "matching",
    "mixture": "mixture, 0.7 matching + 0.3 similarity",
}
WITHOUT_VIDEO = {
    "blind": "blind: question and option alone",
    "blank": "blank video",
    "longest": "longest option",
    "shortest": "shortest option",
    "majority": "most frequent position",
    "chance": "chance",
}
CONTROLS = {"shuffled": "frames in random order", **WITHOUT_VIDEO}


class OptionScores(NamedTuple):
    """Scores of the options of one question, per method; missing where there is no video."""

    views: dict[str, dict[str, list[float]]]
    """View -> method -> one score per option."""
    blind: list[float]
    timeline: list[list[float]]
    """One row per option."""


def split_scores(
    questions: Sequence[ChoiceQuestion], videos: Sequence[VideoScores], temperature: float
) -> list[OptionScores]:
    """Deal the scores of every video to its questions, and mix similarity and matching.

    Args:
        questions: In the order in which they were scored.
        videos: From ``vmm.evaluation.long_video_qa.scoring.score_videos``.
        temperature: Similarities are divided by it where they are mixed.
    """
    taken = [0] * len(videos)
    found = []
    for question in questions:
        video, first = videos[question.video], taken[question.video]
        part = slice(first, first + len(question.options))
        taken[question.video] = part.stop
        views = {name: _methods(scores, part, temperature) for name, scores in video.views.items()}
        found.append(OptionScores(views, video.blind[part], video.timeline[part]))
    return found


def _methods(scores: dict[str, list[float]], part: slice, temperature: float) -> dict[str, Any]:
    similarity = torch.tensor(scores["similarity"][part])
    methods = {"similarity": similarity.tolist()}
    if "match" in scores:
        match = torch.tensor(scores["match"][part])
        logits = torch.stack([torch.zeros_like(match), match], -1)
        mixed = multiple_choice_scores(logits[None], similarity[None] / temperature)[0]
        methods["matching"] = match.tolist()
        methods["mixture"] = mixed.tolist()
    return methods


def chances(
    questions: Sequence[ChoiceQuestion], score: Callable[[int], Sequence[float] | None]
) -> Tensor:
    """Give the probability that each answer is chosen, (Q,) float64 in percent.

    Args:
        questions: Those with a known answer.
        score: Gives the scores of the options of a question by its number; None = there are none,
            which counts as a miss.
    """
    widest = max(len(question.options) for question in questions)
    table = torch.full((len(questions), widest), -torch.inf, dtype=torch.float64)
    known = torch.zeros(len(questions), dtype=torch.bool)
    for row, question in enumerate(questions):
        scores = score(row)
        known[row] = scores is not None
        table[row, : len(question.options)] = torch.tensor(
            scores if scores is not None else [0.0] * len(question.options), dtype=torch.float64
        )
    answers = torch.tensor([question.answer for question in questions])
    return 100 * choice_probability(table, answers) * known


def measure(
    questions: Sequence[ChoiceQuestion],
    scores: Sequence[OptionScores],
    durations: Sequence[float | None],
) -> dict[str, Any]:
    """Turn scores into the numbers of the result.

    Args:
        questions: Those with a known answer, at least one.
        scores: Of these.
        durations: Seconds of every video, by its number; for questions that do not say it.

    Returns:
        ``headline`` (the method that controls are compared with), ``accuracy``,
        ``minus_blank``, ``controls``, ``by_type``, ``by_duration``, ``mean_over_types`` and
        ``verdict``, as ``vmm.evaluation.long_video_qa.results`` describes them.
    """
    clusters = torch.tensor([question.video for question in questions])
    methods = [m for m in METHODS if any(m in s.views.get("video", {}) for s in scores)]
    headline = methods[-1]

    def seen(view: str, method: str) -> Tensor:
        return chances(questions, lambda row: scores[row].views.get(view, {}).get(method))

    right = {method: seen("video", method) for method in methods}
    controls = {name: seen(name, headline) for name in VIEWS if name != "video"}
    controls |= _text_controls(questions, scores)
    model = right[headline]
    kinds = [question.kind for question in questions]
    lengths = [
        length_class(durations[q.video] if q.duration is None else q.duration) for q in questions
    ]
    by_type = _broken_down(kinds, model, controls, clusters)
    return {
        "headline": headline,
        "accuracy": {m: _estimate(values, clusters) for m, values in right.items()},
        "minus_blank": {
            method: _estimate(chances(questions, _less_blank(scores, method)), clusters)
            for method in methods
        },
        "controls": {
            name: _estimate(controls[name], clusters)
            | {"lead": _estimate(model - controls[name], clusters)}
            for name in CONTROLS
        },
        "by_type": by_type,
        "by_duration": _broken_down(lengths, model, controls, clusters),
        "mean_over_types": sum(row["accuracy"] for row in by_type.values()) / len(by_type),
        "verdict": verdict(headline, model, controls, clusters, [bool(s.views) for s in scores]),
    }


def _less_blank(scores: Sequence[OptionScores], method: str) -> Callable[[int], list[float] | None]:
    """Scores minus those that the same texts get with a blank video."""

    def difference(row: int) -> list[float] | None:
        views = scores[row].views
        if not views:
            return None
        pairs = zip(views["video"][method], views["blank"][method], strict=True)
        return [video - blank for video, blank in pairs]

    return difference


def _text_controls(
    questions: Sequence[ChoiceQuestion], scores: Sequence[OptionScores]
) -> dict[str, Tensor]:
    """Measure what needs no video."""
    positions = [question.answer for question in questions]
    most = max(set(positions), key=lambda position: (positions.count(position), -(position or 0)))
    return {
        "blind": chances(questions, lambda row: scores[row].blind),
        "longest": chances(questions, lambda row: [len(o) for o in questions[row].options]),
        "shortest": chances(questions, lambda row: [-len(o) for o in questions[row].options]),
        "majority": chances(
            questions, lambda row: [float(i == most) for i in range(len(questions[row].options))]
        ),
        "chance": chances(questions, lambda row: [0.0] * len(questions[row].options)),
    }


def _broken_down(
    classes: Sequence[str], model: Tensor, controls: dict[str, Tensor], clusters: Tensor
) -> dict[str, dict[str, Any]]:
    """Measure every class of questions apart."""
    rows = {}
    for name in sorted(set(classes)):
        own = torch.tensor([c == name for c in classes])
        best = max(CONTROLS, key=lambda control: float(controls[control][own].mean()))
        rows[name] = {
            "questions": int(own.sum()),
            **_estimate(model[own], clusters[own]),
            "controls": {control: float(controls[control][own].mean()) for control in CONTROLS},
            "best_control": best,
            "lead": _estimate(model[own] - controls[best][own], clusters[own]),
        }
    return rows


def verdict(
    headline: str,
    model: Tensor,
    controls: dict[str, Tensor],
    clusters: Tensor,
    read: Sequence[bool],
) -> str:
    """Say in a sentence whether the video helped at all, and its order.

    Args:
        headline: Name of the method.
        model: (Q,) percent.
        controls: (Q,) percent each.
        clusters: (Q,) the video of each question.
        read: Of each question, whether its video could be read; at least one.
    """
    known, clusters, where = of_readable(controls | {"model": model}, clusters, read)
    model = known["model"]
    best = max(WITHOUT_VIDEO, key=lambda name: float(known[name].mean()))
    gain = clustered_mean(model - known[best], clusters)
    order = clustered_mean(model - known["shuffled"], clusters)
    return (
        f"{said_of(gain)}: {headline} answers {float(model.mean()):.1f} %{where}, {gain.apart} the "
        f"best control that sees none ({WITHOUT_VIDEO[best]}, {float(known[best].mean()):.1f} %), "
        f"and {order.apart} the same frames in random order."
    )


def _estimate(values: Tensor, clusters: Tensor) -> dict[str, float | None]:
    mean, error = clustered_mean(values, clusters)
    return {"accuracy": mean, "error": error}
