"""The result file of a retrieval evaluation: what it holds, and the tables made of it.

``retrieval.json`` holds, beside what its keys say: ``chance``, ``dual`` and ``reranked``, each as
``vmm.metrics.retrieval_metrics`` gives it (``reranked`` null without re-ranking); ``interval``, the
95 % bootstrap intervals of the R@1; ``direction``, null or the percentage of clips that prefer
their caption to the caption of the same motion backwards; ``examples``, captions and what they
found. All rates are in percent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1
FILE_NAME = "retrieval.json"

DIRECTIONS = {"t2v": "text-to-video", "v2t": "video-to-text"}
SCORES = {"dual": "dual encoder", "reranked": "re-ranked", "chance": "chance"}

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
    "direction",
    "seconds",
    "versions",
    "examples",
}


def load_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        ValueError: If it is missing or not a result of ``eval.retrieval``.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a result of `python -m eval.retrieval`: {error}"
        ) from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no result of this version of eval.retrieval; run it again")
    missing = sorted(_KEYS - result.keys())
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; run eval.retrieval again")
    return result


def retrieval_table(result: dict[str, Any]) -> str:
    """Format one result for the terminal: both directions, dual and re-ranked, chance beside."""
    rows = [["", "", "R@1 (95 %)", "R@5", "R@10", "median rank", "mean rank"]]
    for short, direction in DIRECTIONS.items():
        for scores, label in SCORES.items():
            metrics = result[scores]
            if metrics is None:
                continue
            first = f"{metrics[f'{short}_recall_1']:.1f}"
            interval = (result["interval"].get(scores) or {}).get(f"{short}_recall_1")
            if interval is not None:
                first += f" ({interval[0]:.1f} to {interval[1]:.1f})"
            rest = [
                f"{metrics[f'{short}_{name}']:.1f}"
                for name in ("recall_5", "recall_10", "median_rank", "mean_rank")
            ]
            rows.append([direction, label, first, *rest])
            direction = ""
    clips, settings = result["data"]["clips"], result["settings"]
    lines = [
        f"{result['name']}: {result['data']['captions']} captions, {clips['listed']} clips "
        f"({clips['unreadable']} unreadable, counted as misses), "
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
    return "\n".join(lines)


def comparison_rows(results: Sequence[tuple[str, dict[str, Any]]]) -> list[list[str]]:
    """Put several results side by side, header first and chance last.

    Args:
        results: Pairs of a label and a result.
    """
    header = ["", "scores", "t2v R@1", "R@5", "R@10", "v2t R@1", "R@5", "R@10", "direction"]
    rows = [header]
    for label, result in results:
        for scores, match in (("dual", "dual"), ("reranked", "match")):
            if result[scores] is None:
                continue
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


def _recalls(metrics: dict[str, float]) -> list[str]:
    return [f"{metrics[f'{short}_recall_{k}']:.1f}" for short in DIRECTIONS for k in (1, 5, 10)]
