"""The part of an evaluation that people look at: what some captions found.

Captions are taken at even distances from the list, so that nobody chooses the good ones; the best
and the worst are shown apart, under these names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmm.evaluation.common.pictures import png
from vmm.evaluation.retrieval.pictures import Query, Strip, retrieval_picture
from vmm.metrics import expected_rank, text_to_video_ranks

_PLAYABLE_BYTES = 2 * 2**20


def even_rows(scores: Tensor, number: int = 12) -> list[int]:
    """Choose captions at even distances from the list: rows of (num_texts, num_clips) scores."""
    return torch.linspace(0, len(scores) - 1, min(number, len(scores))).long().tolist()


def extreme_rows(scores: Tensor, relevant: Tensor, number: int = 5) -> tuple[list[int], list[int]]:
    """Choose the captions that find their clip most clearly, and those that find it latest.

    Args:
        scores: (num_texts, num_clips) text-to-video scores; -inf = unreadable.
        relevant: (num_texts, num_clips) bool.
        number: Of each.

    Returns:
        Rows of the best, ranked first by the widest margin, and of the worst, the worst first.
        Captions whose clip is unreadable are neither.
    """
    own = scores.where(relevant, -torch.inf).amax(1)
    other = scores.where(~relevant, -torch.inf).amax(1)
    margin = torch.where(own > -torch.inf, own - other, torch.nan)
    rank = expected_rank(text_to_video_ranks(scores, relevant))
    found = margin.isfinite()
    first = (found & (margin > 0)).nonzero().squeeze(1)
    late = (found & (margin < 0)).nonzero().squeeze(1)
    best = first[margin[first].argsort(descending=True)]
    worst = late[rank[late].argsort(descending=True, stable=True)]
    return best[:number].tolist(), worst[:number].tolist()


def describe_queries(
    rows: Sequence[int],
    captions: Sequence[str],
    keys: Sequence[str],
    relevant: Tensor,
    scores: Tensor,
    num_results: int = 3,
    with_right: bool = False,
) -> list[dict[str, Any]]:
    """List the clips that some captions find, best first.

    Args:
        rows: The captions to describe.
        captions: All queries.
        keys: Keys of the clips.
        relevant: (num_texts, num_clips) bool, the clips of each caption.
        scores: (num_texts, num_clips) text-to-video scores; -inf = unreadable, never listed.
        num_results: Clips per caption.
        with_right: Add the right clip at the end where it is not among them.

    Returns:
        Per caption ``caption``, ``rank`` of its best right clip (None if it is unreadable) and
        ``results``, each with ``clip`` (its number), ``key``, ``rank``, ``score`` and ``right``.
    """
    examples = []
    for row in rows:
        own = scores[row].where(relevant[row], -torch.inf).max(0)
        rank = 1 + int((scores[row] > own.values).sum()) if own.values > -torch.inf else None
        best = scores[row].topk(min(num_results, len(keys))).indices.tolist()
        places = [(place, clip) for place, clip in enumerate(best, 1)]
        if with_right and rank is not None and rank > num_results:
            places.append((rank, int(own.indices)))
        found = [
            {
                "clip": clip,
                "key": keys[clip],
                "rank": place,
                "score": float(scores[row, clip]),
                "right": bool(relevant[row, clip]),
            }
            for place, clip in places
            if scores[row, clip] > -torch.inf
        ]
        examples.append({"caption": captions[row], "rank": rank, "results": found})
    return examples


def write_showcase(
    out: Path,
    groups: dict[str, list[dict[str, Any]]],
    frames_of: Callable[[int], npt.NDArray[np.uint8]],
    media_of: Callable[[int], tuple[str, bytes]],
    title: str,
) -> dict[str, list[dict[str, Any]]]:
    """Write a picture per group, ``NAME.png``, and the found clips, ``clips/000.mp4`` and so on.

    Args:
        out: Existing folder.
        groups: Name -> examples from ``describe_queries``; empty groups have no picture.
        frames_of: Gives the frames of a clip as the model saw them, (T, H, W, 3).
        media_of: Gives the extension and the bytes of a clip's file.
        title: Of the pictures.

    Returns:
        The groups, changed: ``clip`` is the name of its file, or None if no browser would play it.
    """
    examples = [example for group in groups.values() for example in group]
    found = sorted({result["clip"] for example in examples for result in example["results"]})
    frames = {clip: frames_of(clip) for clip in found}
    for name, group in groups.items():
        if group:
            queries = [_query(example, frames) for example in group]
            (out / f"{name}.png").write_bytes(png(retrieval_picture(queries, title)))
    files = {clip: _copy_clip(out, number, *media_of(clip)) for number, clip in enumerate(found)}
    for example in examples:
        for result in example["results"]:
            result["clip"] = files[result["clip"]]
    return groups


def _query(example: dict[str, Any], frames: dict[int, npt.NDArray[np.uint8]]) -> Query:
    rank = example["rank"]
    note = "the right clip is unreadable" if rank is None else f"right clip at rank {rank}"
    strips = [
        Strip(frames[result["clip"]], f"{result['rank']}. {result['score']:.2f}", result["right"])
        for result in example["results"]
    ]
    return Query(example["caption"], note, strips)


def _copy_clip(out: Path, number: int, extension: str, data: bytes) -> str | None:
    """Copy one clip under a name of our own; names inside shards are not to be trusted."""
    if extension != "mp4" or len(data) > _PLAYABLE_BYTES:
        return None
    name = f"clips/{number:03d}.mp4"
    (out / "clips").mkdir(exist_ok=True)
    (out / name).write_bytes(data)
    return name
