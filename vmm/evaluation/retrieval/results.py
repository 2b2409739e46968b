"""The result file of a retrieval evaluation: what it holds, and the tables made of it.

``retrieval.json`` holds, beside what its keys say:

``chance``, ``dual``, ``vectors``, ``mixed``, ``reranked``, ``dual+dsl``
    As ``vmm.metrics.retrieval_metrics`` gives it, with the published names beside ours. ``dual``
    is the published similarity, the mean of the cosines with all frames; ``vectors`` the cosine
    with the one vector of a clip that ``encode_video``, an index and every export give. ``mixed``,
    what apps get, orders the best candidates of ``vectors`` by the mixture that ``settings`` has;
    ``reranked`` those of ``dual`` by the matching head alone, as published. Both are null without
    re-ranking, and files of older versions have neither ``vectors`` nor ``mixed``. ``dual+dsl``,
    the dual encoder with dual softmax, is there on request only.
``interval``
    The 95 % bootstrap intervals of the R@1, drawn over videos.
``queries``
    Of every query where its target stands: ``better``, ``tied`` and ``targets`` as in
    ``vmm.metrics.TiedRanks``; ``video``, the number of each caption's video.
``direction``
    Null, or the percentage of clips that prefer their caption to the caption of the same motion
    backwards: by ``dual``, ``vectors``, ``mixed`` and ``match``, the matching head.
``data``, ``settings``, ``model``, ``versions``, ``command``
    The protocol card: everything that a number depends on.
``findings``
    What ``vmm eval lint`` found.
``examples``, ``best``, ``worst``
    Captions and what they found.

All rates are in percent.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.common.results import Result, listed, text_table
from vmm.metrics import METRICS, TiedRanks
from vmm.ops.similarity import Mixture
from vmm.text_output import number_of

DIRECTIONS = {"t2v": "text-to-video", "v2t": "video-to-text"}
SCORES = {
    "dual": "dual encoder",
    "vectors": "one vector each",
    "mixed": "re-ranked, mixture",
    "reranked": "re-ranked, matching alone",
    "dual+dsl": "dual encoder +dsl",
    "chance": "chance",
}
MEANING = (
    "Dual encoder: the mean of a caption's cosines with all frames, as published. One vector each: "
    "the cosine with the one vector of a clip that encode_video, indexes and exports give."
)
MEANING_AGAIN = (
    "Re-ranked: the best k candidates once more, by the mixture of that cosine and the matching "
    "head, as search and score do, or by the matching head alone, as published."
)
_DIRECTION = {
    "dual": "dual encoder",
    "vectors": "one vector each",
    "mixed": "mixture",
    "match": "matching head",
}
_OF_PAIRS = {name: "match" if name == "reranked" else name for name in SCORES}
"""Scores -> their name in ``direction``."""

# Results that differ in one of these answer different questions.
_SAME_DATA = ("test_set", "split_hash", "videos", "captions", "paragraph")
_SAME_SETTINGS = ("coverage", "ties")
_BRIEF = {name: metric.title for name, metric in METRICS.items() if metric.brief}


@dataclass(frozen=True, kw_only=True)
class RetrievalResult(Result):
    """A result of retrieval; the module says what its parts are.

    Attributes:
        scores: Those of ``SCORES`` that there are -> metrics; keys of their own in the JSON.
    """

    SCHEMA: ClassVar[int] = 2
    FILE_NAME: ClassVar[str] = "retrieval.json"
    COMMAND: ClassVar[str] = "vmm eval retrieval"

    scores: dict[str, dict[str, float] | None]
    interval: dict[str, Any]
    queries: dict[str, Any]
    direction: dict[str, Any] | None
    seconds: dict[str, float]
    examples: list[dict[str, Any]]
    best: list[dict[str, Any]]
    worst: list[dict[str, Any]]

    def content(self) -> dict[str, Any]:
        """Give what is written."""
        content = super().content()
        scores: dict[str, Any] = content.pop("scores")
        return content | scores

    @classmethod
    def needed(cls) -> set[str]:
        """Name what a file must hold."""
        return super().needed() - {"scores"} | {"chance", "dual", "reranked"}

    @classmethod
    def taken(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Give the fields' values from what was written."""
        scores = {name: content[name] for name in SCORES if name in content}
        return {n: content[n] for n in cls.needed() - scores.keys()} | {"scores": scores}

    def kinds(self, chance: bool = False) -> dict[str, dict[str, float]]:
        """Give the scores that there are, in the order of ``SCORES``."""
        there = {name: self.scores.get(name) for name in SCORES if chance or name != "chance"}
        return {name: metrics for name, metrics in there.items() if metrics}

    def title(self, scores: str) -> str:
        """Call scores by their name; what is re-ranked with the number of candidates."""
        k = self.settings.get("k")
        shown = scores in ("mixed", "reranked") and k is not None
        return f"{SCORES[scores]}, k={k}" if shown else SCORES[scores]

    def ranks(self, scores: str, direction: str) -> TiedRanks:
        """Read where the target of every query stands.

        Args:
            scores: A key of ``SCORES``, but "chance".
            direction: "t2v" or "v2t".

        Raises:
            ValueError: If there are no such ranks.
        """
        try:
            found = self.queries[scores][direction]
            better, tied, targets = (torch.tensor(found[n]) for n in ("better", "tied", "targets"))
            return TiedRanks(better.long(), tied.long(), targets.long(), int(found["candidates"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the result holds no {direction} ranks of {scores}: {error!r}"
            ) from error

    def table(self) -> str:
        """Format it for the terminal: both directions, dual and re-ranked, chance beside."""
        titles = [metric.title for metric in METRICS.values()]
        rows = [["", "", f"{titles[0]} (95 %)", *titles[1:]]]
        for short, direction in DIRECTIONS.items():
            for scores, metrics in self.kinds(chance=True).items():
                first, *rest = _numbers(metrics, short)
                interval = (self.interval.get(scores) or {}).get(f"{short}_recall_1")
                if interval is not None:
                    first += f" ({interval[0]:.1f} to {interval[1]:.1f})"
                rows.append([direction, self.title(scores), first, *rest])
                direction = ""
        clips, settings = self.data["clips"], self.settings
        counted = {"strict": "counted as misses", "available": "left out"}[settings["coverage"]]
        lines = [
            f"{self.name}: {number_of(self.data['captions'], 'caption')}, "
            f"{number_of(clips['listed'], 'clip')} "
            f"({clips['unreadable']} unreadable, {counted}), "
            f"{settings['num_frames']} frames {settings['frame_order']}",
            text_table(rows, left=2),
        ]
        pairs = self.direction
        if pairs is not None:
            numbers = [
                f"{title} {pairs[name]:.1f} %"
                for name, title in _DIRECTION.items()
                if pairs.get(name) is not None
            ]
            numbers[-1] += f" (chance 50 %, {number_of(pairs['pairs'], 'pair')})"
            lines.append(f"direction of time: {', '.join(numbers)}")
        if "vectors" in self.kinds():
            again = f" {MEANING_AGAIN}" if "mixed" in self.kinds() else ""
            lines.append(textwrap.fill(MEANING + again, 100))
        if self.findings:
            lines.append(findings_text(self.findings))
        return "\n".join(lines)

    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on, as pairs of a name and a value."""
        data, settings = self.data, self.settings
        clips, (fewest, most) = data["clips"], data["captions_per_video"]
        known = data["recognised"]
        looks_like = f" (ids and number are those of {known})" if known else ""
        problems, lost = listed(clips["problems"]), listed(clips["lost"])
        captions = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        joined = ", joined to a paragraph" if data["paragraph"] else ""
        coverage = {
            "strict": "strict: unreadable videos stay in the gallery, their queries are misses",
            "available": "available: unreadable videos and their queries are dropped",
        }
        return [
            ("test set", f"{data['test_set']}{looks_like}"),
            ("split hash", data["split_hash"]),
            ("files", ", ".join(data["files"])),
            ("videos", f"{data['videos']} in the gallery; {clips['listed']} listed, "
                       f"{clips['readable']} readable" + (f" ({problems})" if problems else "")
                       + (f"; left out: {lost}" if lost else "")),
            ("captions", f"{data['captions']}; {captions} per video{joined}"),
            ("coverage", coverage[settings["coverage"]]),
            ("ties", settings["ties"]),
            *self.look(settings["frame_order"]),
            ("views", str(settings["views"])),
            ("re-ranked", "no" if settings["k"] is None else f"the best {settings['k']} per query"),
            ("mixture", str(Mixture(**settings["mixture"])) if settings.get("mixture") else "none"),
            ("scores", settings["precision"]),
            *self.origin(),
        ]  # fmt: skip


def protocol_differences(a: RetrievalResult, b: RetrievalResult) -> list[str]:
    """Say in which respects two results were not measured alike; empty if they can be compared."""
    re_ranked = all(result.settings["k"] is not None for result in (a, b))
    settings = (*_SAME_SETTINGS, "k") if re_ranked else _SAME_SETTINGS
    parts = ((a.data, b.data, _SAME_DATA), (a.settings, b.settings, settings))
    return [
        f"{name}: {of_a[name]} and {of_b[name]}"
        for of_a, of_b, names in parts
        for name in names
        if of_a[name] != of_b[name]
    ]


def metrics_table(metrics: dict[str, float]) -> str:
    """Format the metrics of one score matrix for the terminal."""
    rows = [["", *(metric.title for metric in METRICS.values())]]
    rows += [[label, *_numbers(metrics, short)] for short, label in DIRECTIONS.items()]
    return text_table(rows, left=1)


def comparison_rows(results: Sequence[tuple[str, RetrievalResult]]) -> list[list[str]]:
    """Put several results side by side, header first and chance last.

    Args:
        results: Pairs of a label and a result. The direction of time is a column where one of
            them has it.
    """
    titles = [*_BRIEF.values()]
    rows = [["", "scores", f"t2v {titles[0]}", *titles[1:], f"v2t {titles[0]}", *titles[1:]]]
    rows[0].append("direction")
    for label, result in results:
        for scores, metrics in result.kinds().items():
            pairs = (result.direction or {}).get(_OF_PAIRS[scores])
            said = "-" if pairs is None else f"{pairs:.1f}"
            rows.append([label, result.title(scores), *_brief(metrics), said])
            label = ""
    if results:
        rows.append(["chance", "", *_brief(results[0][1].kinds(chance=True)["chance"]), "50.0"])
    directed = any(result.direction for _, result in results)
    return rows if directed else [row[:-1] for row in rows]


def _numbers(metrics: dict[str, float], short: str, names: Sequence[str] = ()) -> list[str]:
    """Format metrics of a direction; of a file that is older than a metric it is missing."""
    values = (metrics.get(f"{short}_{name}") for name in names or METRICS)
    return ["-" if value is None else f"{value:.1f}" for value in values]


def _brief(metrics: dict[str, float]) -> list[str]:
    return [cell for short in DIRECTIONS for cell in _numbers(metrics, short, [*_BRIEF])]
