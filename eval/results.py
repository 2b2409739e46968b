"""The result file of a retrieval evaluation: what it holds, and the tables made of it.

``retrieval.json`` holds, beside what its keys say:

``chance``, ``dual``, ``reranked``, ``dual+dsl``
    As ``vmm.metrics.retrieval_metrics`` gives it, with the published names beside ours.
    ``reranked`` is null without re-ranking; ``dual+dsl``, the dual encoder with dual softmax, is
    there on request only.
``interval``
    The 95 % bootstrap intervals of the R@1, drawn over videos.
``queries``
    Of every query where its target stands: ``better``, ``tied`` and ``targets`` as in
    ``vmm.metrics.TiedRanks``; ``video``, the number of each caption's video.
``direction``
    Null, or the percentage of clips that prefer their caption to the caption of the same motion
    backwards.
``data``, ``settings``, ``model``, ``versions``, ``command``
    The protocol card: everything that a number depends on.
``findings``
    What ``eval.lint`` found.
``examples``, ``best``, ``worst``
    Captions and what they found.

All rates are in percent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from vmm.metrics import TiedRanks

SCHEMA = 2
FILE_NAME = "retrieval.json"

DIRECTIONS = {"t2v": "text-to-video", "v2t": "video-to-text"}
SCORES = {
    "dual": "dual encoder",
    "reranked": "re-ranked",
    "dual+dsl": "dual encoder +dsl",
    "chance": "chance",
}

_KEYS = {
    "schema",
    "name",
    "command",
    "model",
    "data",
    "settings",
    "chance",
    "dual",
    "reranked",
    "interval",
    "queries",
    "direction",
    "findings",
    "seconds",
    "versions",
    "examples",
    "best",
    "worst",
}
# Results that differ in one of these answer different questions.
_SAME_DATA = ("test_set", "split_hash", "videos", "captions", "paragraph")
_SAME_SETTINGS = ("coverage", "ties")


def load_result(path: Path) -> dict[str, Any]:
    """Read a result file of ``eval.retrieval``; see ``read_result``."""
    return read_result(path, "eval.retrieval", SCHEMA, _KEYS)


def read_result(path: Path, command: str, schema: int, keys: Iterable[str]) -> dict[str, Any]:
    """Read a result file.

    Args:
        path: The file.
        command: What wrote it.
        schema: The version of its layout that is understood.
        keys: What it must hold.

    Raises:
        ValueError: If it is missing or not a result of ``command``.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a result of `python -m {command}`: {error}"
        ) from error
    if not isinstance(result, dict) or result.get("schema") != schema:
        raise ValueError(f"{path} is no result of this version of {command}; run it again")
    missing = sorted(set(keys) - result.keys())
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; run {command} again")
    return result


def scores_of(result: dict[str, Any], chance: bool = False) -> list[str]:
    """List the kinds of scores that a result has, in the order of ``SCORES``."""
    return [name for name in SCORES if result.get(name) and (chance or name != "chance")]


def ranks_of(result: dict[str, Any], scores: str, direction: str) -> TiedRanks:
    """Read where the target of every query stands.

    Args:
        result: From ``load_result``.
        scores: "dual", "reranked" or "dual+dsl".
        direction: "t2v" or "v2t".

    Raises:
        ValueError: If the result holds no such ranks.
    """
    try:
        found = result["queries"][scores][direction]
        better, tied, targets = (torch.tensor(found[n]) for n in ("better", "tied", "targets"))
        return TiedRanks(better.long(), tied.long(), targets.long(), int(found["candidates"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the result holds no {direction} ranks of {scores}: {error!r}") from error


def protocol_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Say in which respects two results were not measured alike; empty if they can be compared."""
    re_ranked = all(result["settings"]["k"] is not None for result in (a, b))
    settings = (*_SAME_SETTINGS, "k") if re_ranked else _SAME_SETTINGS
    parts = (("data", _SAME_DATA), ("settings", settings))
    return [
        f"{name}: {a[part][name]} and {b[part][name]}"
        for part, names in parts
        for name in names
        if a[part][name] != b[part][name]
    ]


def origin_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """List what every protocol card ends with: from what, by what and how a result was made."""
    settings, model = result["settings"], result["model"]
    return [
        ("decoder", settings["decoder"]),
        ("device", settings["device"]),
        ("model", f"{model['encoder']}, {model['parameters'] / 1e6:.2f} M parameters"),
        ("checkpoint", f"{model['checkpoint']}, sha256 {model['sha256']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in result["versions"].items())),
        ("command", result["command"]),
    ]


def protocol_card(result: dict[str, Any]) -> list[tuple[str, str]]:
    """List everything that the numbers depend on, as pairs of a name and a value."""
    data, settings = result["data"], result["settings"]
    clips, (fewest, most) = data["clips"], data["captions_per_video"]
    looks_like = f" (ids and number are those of {data['recognised']})" * bool(data["recognised"])
    problems = ", ".join(f"{n} {reason}" for reason, n in clips["problems"].items())
    lost = ", ".join(f"{n} {reason}" for reason, n in clips["lost"].items())
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
        ("frames", f"{settings['num_frames']}, sampling {settings['sampling']!r} without draws, "
                   f"{settings['frame_order']}"),
        ("resolution", f"{settings['image_size']} pixels, {settings['fit']}"),
        ("views", str(settings["views"])),
        ("re-ranked", "no" if settings["k"] is None else f"the best {settings['k']} per query"),
        ("scores", settings["precision"]),
        *origin_rows(result),
    ]  # fmt: skip


def metrics_table(metrics: dict[str, float]) -> str:
    """Format the metrics of one score matrix for the terminal."""
    rows = [["", "R@1", "R@5", "R@10", "mean", "median rank", "mean rank"]]
    rows += [[label, *_numbers(metrics, short)] for short, label in DIRECTIONS.items()]
    return text_table(rows, left=1)


def retrieval_table(result: dict[str, Any]) -> str:
    """Format one result for the terminal: both directions, dual and re-ranked, chance beside."""
    rows = [["", "", "R@1 (95 %)", "R@5", "R@10", "mean", "median rank", "mean rank"]]
    for short, direction in DIRECTIONS.items():
        for scores in scores_of(result, chance=True):
            first, *rest = _numbers(result[scores], short)
            interval = (result["interval"].get(scores) or {}).get(f"{short}_recall_1")
            if interval is not None:
                first += f" ({interval[0]:.1f} to {interval[1]:.1f})"
            rows.append([direction, SCORES[scores], first, *rest])
            direction = ""
    clips, settings = result["data"]["clips"], result["settings"]
    counted = {"strict": "counted as misses", "available": "left out"}[settings["coverage"]]
    lines = [
        f"{result['name']}: {result['data']['captions']} captions, {clips['listed']} clips "
        f"({clips['unreadable']} unreadable, {counted}), "
        f"{settings['num_frames']} frames {settings['frame_order']}",
        text_table(rows, left=2),
    ]
    direction = result["direction"]
    if direction is not None:
        numbers = [f"dual encoder {direction['dual']:.1f} %"]
        if direction["match"] is not None:
            numbers.append(f"matching head {direction['match']:.1f} %")
        lines.append(
            f"direction of time: {', '.join(numbers)} (chance 50 %, {direction['pairs']} pairs)"
        )
    if result["findings"]:
        lines.append(findings_text(result["findings"]))
    return "\n".join(lines)


def findings_text(findings: Sequence[dict[str, str]]) -> str:
    """List findings of ``eval.lint`` for the terminal."""
    if not findings:
        return "nothing is off"
    return "\n".join(f"! {f['code']}: {f['message']}\n    {f['effect']}" for f in findings)


def comparison_rows(results: Sequence[tuple[str, dict[str, Any]]]) -> list[list[str]]:
    """Put several results side by side, header first and chance last.

    Args:
        results: Pairs of a label and a result.
    """
    header = ["", "scores", "t2v R@1", "R@5", "R@10", "v2t R@1", "R@5", "R@10", "direction"]
    rows = [header]
    for label, result in results:
        for scores in scores_of(result):
            match = {"dual": "dual", "reranked": "match"}.get(scores, "")
            direction = (result["direction"] or {}).get(match)
            rows.append(
                [
                    label,
                    SCORES[scores],
                    *_recalls(result[scores]),
                    "-" if direction is None else f"{direction:.1f}",
                ]
            )
            label = ""
    if results:
        rows.append(["chance", "", *_recalls(results[0][1]["chance"]), "50.0"])
    return rows


def text_table(rows: Sequence[Sequence[str]], left: int) -> str:
    """Align columns for the terminal; the first ``left`` ones to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _numbers(metrics: dict[str, float], short: str) -> list[str]:
    names = ("recall_1", "recall_5", "recall_10", "recall_mean", "median_rank", "mean_rank")
    return [f"{metrics[f'{short}_{name}']:.1f}" for name in names]


def _recalls(metrics: dict[str, float]) -> list[str]:
    return [f"{metrics[f'{short}_recall_{k}']:.1f}" for short in DIRECTIONS for k in (1, 5, 10)]
