"""The part of an evaluation that people look at: what some captions found.

Captions are taken at even distances from the list, so that nobody chooses the good ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eval.pictures import Query, Strip, png, retrieval_picture

_PLAYABLE_BYTES = 2 * 2**20


def find_examples(
    captions: Sequence[str],
    keys: Sequence[str],
    owner: Tensor,
    scores: Tensor,
    num_queries: int = 12,
    num_results: int = 3,
) -> list[dict[str, Any]]:
    """Choose captions and list the clips they find, best first.

    Args:
        captions: The queries.
        keys: Keys of the clips.
        owner: (num_texts,) int64, the clip of each caption.
        scores: (num_texts, num_clips) text-to-video scores; -inf = unreadable, never listed.
        num_queries: Captions to choose.
        num_results: Clips per caption.

    Returns:
        Per caption ``caption``, ``rank`` of the right clip (None if it is unreadable) and
        ``results``, each with ``clip`` (its number), ``key``, ``score`` and ``right``.
    """
    chosen = torch.linspace(0, len(captions) - 1, min(num_queries, len(captions))).long()
    examples = []
    for query in chosen.tolist():
        best = scores[query].topk(min(num_results, len(keys)))
        found = [
            {"clip": clip, "key": keys[clip], "score": value, "right": clip == int(owner[query])}
            for value, clip in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if value > -np.inf
        ]
        own = scores[query, owner[query]]
        rank = 1 + int((scores[query] > own).sum()) if own > -np.inf else None
        examples.append({"caption": captions[query], "rank": rank, "results": found})
    return examples


def write_showcase(
    out: Path,
    examples: list[dict[str, Any]],
    frames_of: Callable[[int], npt.NDArray[np.uint8]],
    media_of: Callable[[int], tuple[str, bytes]],
    title: str,
) -> list[dict[str, Any]]:
    """Write ``retrieval.png`` and the found clips, ``clips/000.mp4`` and so on.

    Args:
        out: Existing folder.
        examples: From ``find_examples``.
        frames_of: Gives the frames of a clip as the model saw them, (T, H, W, 3).
        media_of: Gives the extension and the bytes of a clip's file.
        title: Of the picture.

    Returns:
        The examples with ``clip`` replaced by the name of its file, or None if no browser would
        play it.
    """
    found = sorted({result["clip"] for example in examples for result in example["results"]})
    frames = {clip: frames_of(clip) for clip in found}
    queries = [
        Query(
            example["caption"],
            "the right clip is unreadable"
            if example["rank"] is None
            else f"right clip at rank {example['rank']}",
            [
                Strip(frames[result["clip"]], f"{rank}. {result['score']:.2f}", result["right"])
                for rank, result in enumerate(example["results"], 1)
            ],
        )
        for example in examples
    ]
    (out / "retrieval.png").write_bytes(png(retrieval_picture(queries, title)))
    files = {clip: _copy_clip(out, number, *media_of(clip)) for number, clip in enumerate(found)}
    return [
        example
        | {"results": [result | {"clip": files[result["clip"]]} for result in example["results"]]}
        for example in examples
    ]


def _copy_clip(out: Path, number: int, extension: str, data: bytes) -> str | None:
    """Copy one clip under a name of our own; names inside shards are not to be trusted."""
    if extension != "mp4" or len(data) > _PLAYABLE_BYTES:
        return None
    name = f"clips/{number:03d}.mp4"
    (out / "clips").mkdir(exist_ok=True)
    (out / name).write_bytes(data)
    return name
