"""Results of mteb as results of ``vmm eval retrieval``, and the other way round.

mteb has a task for each direction and keeps means only, so that comparing query by query needs the
predictions beside them (``prediction_folder`` of ``mteb.evaluate``). Its test sets are not the
published ones, whatever their names: ``MSRVTTT2V`` has 879 of the 1,000 clips. A result is carried
over where both mean the same, and refused in a sentence where they do not.

Both count one right answer for each query. mteb orders equal scores by the documents' ids, and vmm
takes the mean over all orders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vmm.evaluation.common.results import text_table, versions
from vmm.evaluation.retrieval.results import DIRECTIONS, RetrievalResult
from vmm.metrics import (
    METRICS,
    TiedRanks,
    bootstrap_interval,
    hit_probability,
    published_names,
    retrieval_metrics,
)
from vmm.text_output import number_of

SCORES = "vectors"
"""What mteb asks a model for: one vector of a clip, one of a caption."""
DEPTHS = (1, 3, 5, 10, 20, 100, 1000)
"""mteb's k."""
_SHOWN = {"hit_rate_at_1": "R@1", "hit_rate_at_5": "R@5", "hit_rate_at_10": "R@10"}
_OTHERS = {
    "MSRVTT-1kA": "mteb's MSRVTTT2V has 879 of the 1,000 clips",
    "MSRVTT-7k": "mteb's MSRVTTT2V has 879 of the 1,000 clips",
    "MSVD": "mteb's MSVDT2VRetrieval has the first caption of about 660 clips, not all of 670",
    "DiDeMo": "mteb's DiDeMoT2VRetrieval.v2 leaves clips without sound out of the 1,004",
    "ActivityNet": "mteb's ActivityNetCaptionsT2VRetrieval has about 4,884 of 4,917 videos",
    "VATEX": "mteb's VATEXT2VRetrieval has the first caption of 1,000 clips, not ten of 1,500",
}
"""Title of a protocol -> how mteb's test set of the same name differs."""
_UNSTATED = "not stated by mteb"


class TaskFile(NamedTuple):
    """A result file of mteb."""

    path: Path
    task: str
    revision: str
    """Of the data set."""
    scores: dict[str, Any]
    """Of the only split and subset."""

    @classmethod
    def read(cls, path: Path) -> TaskFile:
        """Read a file.

        Raises:
            ValueError: If it is none, or holds several splits or subsets.
        """
        content = _read_json(path)
        try:
            parts = [part for split in content["scores"].values() for part in split]
            task, revision = str(content["task_name"]), str(content["dataset_revision"])
            (scores,) = parts
            float(scores["main_score"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is no result of mteb with one split and one subset; give a file such as "
                "results/MODEL/REVISION/TASK.json"
            ) from error
        return cls(path, task, revision, scores)

    @property
    def direction(self) -> str | None:
        """Read off the name of the task: "t2v", "v2t", or None if it says neither."""
        found = [name for name in DIRECTIONS if name.upper() in self.task]
        return found[0] if len(found) == 1 else None


def mteb_table(files: Sequence[TaskFile]) -> str:
    """Show results of mteb in vmm's terms: recalls in percent, and mteb's own main score."""
    rows = [["task", *_SHOWN.values(), "main score"]]
    for file in files:
        recalls = [file.scores.get(name) for name in _SHOWN]
        shown = ["-" if value is None else f"{100 * value:.1f}" for value in recalls]
        rows.append([file.task, *shown, f"{100 * file.scores['main_score']:.1f}"])
    return text_table(rows, left=1)


def from_mteb(files: Sequence[TaskFile], predictions: Path, name: str = "") -> RetrievalResult:
    """Make a result of both directions of a retrieval task.

    Args:
        files: The results of the two tasks, text-to-video and video-to-text.
        predictions: The folder of their predictions.
        name: Of the result; empty = the model's.

    Returns:
        What ``vmm eval compare`` and ``vmm eval report`` take. Its split hash is of mteb's data
        set, so it is comparable with other models on the same task, not with other test sets.

    Raises:
        ValueError: If these are not two directions of one task by one model, or queries have other
            right answers than the document of the same id.
    """
    by_direction = {file.direction: file for file in files}
    if len(files) != 2 or set(by_direction) != set(DIRECTIONS):
        raise ValueError(
            f"{', '.join(file.task for file in files)} are not the two directions of a task; give "
            "the result of a T2V task and that of its V2T task"
        )
    t2v, v2t = by_direction["t2v"], by_direction["v2t"]
    if t2v.task.replace("T2V", "V2T") != v2t.task or t2v.revision != v2t.revision:
        raise ValueError(
            f"{t2v.task} of {t2v.revision} and {v2t.task} of {v2t.revision} are of two data sets; "
            "give the two directions of one"
        )
    ranks = {d: _ranks(by_direction[d], predictions) for d in DIRECTIONS}
    meta = _read_json(t2v.path.parent / "model_meta.json")
    number = len(ranks["t2v"].better)
    metrics = {f"{d}_{key}": m.of_ranks(ranks[d]) for d in DIRECTIONS for key, m in METRICS.items()}
    recalls = [metrics[f"{d}_recall_mean"] for d in DIRECTIONS]
    metrics["recall_mean"] = sum(recalls) / len(recalls)
    metrics["ties"] = float(sum(int((r.tied > r.targets).sum()) for r in ranks.values()))
    chance = retrieval_metrics(torch.zeros(number, number), torch.arange(number))
    lists = {d: {k: v if k == "candidates" else v.tolist() for k, v in r._asdict().items()}
             for d, r in ranks.items()}  # fmt: skip
    return RetrievalResult(
        name=name or str(meta.get("name")),
        command=f"mteb {t2v.scores.get('mteb_version', '')}: {t2v.task}, {v2t.task}".strip(),
        model={
            "encoder": str(meta.get("name")),
            "parameters": meta.get("n_parameters") or 0,
            "checkpoint": str(meta.get("name")),
            "sha256": str(meta.get("revision")),
        },
        data=_data(t2v, v2t, number),
        settings=_settings(),
        findings=[],
        versions=versions(),
        scores={
            "chance": chance,
            "dual": None,
            SCORES: metrics | published_names(metrics),
            "mixed": None,
            "reranked": None,
        },
        interval={
            SCORES: {
                f"{d}_recall_1": list(bootstrap_interval(100 * hit_probability(r, 1)))
                for d, r in ranks.items()
            }
        },
        queries={"video": list(range(number)), SCORES: lists},
        direction=None,
        seconds={},
        examples=[],
        best=[],
        worst=[],
    )


def to_mteb(result: RetrievalResult, direction: str) -> dict[str, Any]:
    """Write one direction of a result as mteb would.

    Args:
        result: Of ``vmm eval retrieval``.
        direction: "t2v" or "v2t".

    Returns:
        The content of a result file of mteb, of a task that is named after the test set.

    Raises:
        ValueError: If mteb measures something else.
    """
    data, settings = result.data, result.settings
    if SCORES not in result.kinds():
        raise ValueError(f"{result.name} has no scores by one vector each, which mteb measures")
    why = None
    if data["test_set"] in _OTHERS:
        why = f"{_OTHERS[data['test_set']]}; run `vmm eval mteb ENCODER --tasks ...` instead"
    elif data["captions_per_video"] != [1, 1]:
        fewest, most = data["captions_per_video"]
        why = f"mteb's tasks have one caption for each clip, and this one {fewest} to {most}"
    elif data["clips"]["unreadable"] or sum(data["clips"].get("lost", {}).values()):
        why = "clips could not be read, and mteb knows no such; repair the test set"
    elif settings["frame_order"] != "forward":
        why = f"its clips were played {settings['frame_order']}"
    ranks = result.ranks(SCORES, direction)
    if why is None and (tied := int((ranks.tied > ranks.targets).sum())):
        queries = number_of(tied, "query has", "queries have")
        why = f"{queries} wrong answers as good as the right one, which mteb orders by id"
    if why is not None:
        raise ValueError(f"{result.name} on {data['test_set']} is no result of mteb: {why}")
    scores = _mteb_scores(ranks)
    split = {"main_score": scores["ndcg_at_10"], "hf_subset": "default", "languages": ["eng-Latn"]}
    return {
        "dataset_revision": data["split_hash"],
        "task_name": f"{data['test_set']}-{direction.upper()}",
        "mteb_version": None,
        "scores": {"test": [scores | split]},
        "evaluation_time": sum(result.seconds.values()),
    }


def _mteb_scores(ranks: TiedRanks) -> dict[str, float]:
    """Compute mteb's numbers where one document answers each query and no score ties."""
    places = [int(n) + 1 for n in ranks.better]
    found: dict[str, float] = {}
    for k in DEPTHS:
        inside = [place for place in places if place <= k]
        reciprocal = sum(1 / place for place in inside) / len(places)
        hits = len(inside) / len(places)
        found |= {
            f"ndcg_at_{k}": sum(1 / math.log2(place + 1) for place in inside) / len(places),
            f"map_at_{k}": reciprocal,
            f"recall_at_{k}": hits,
            f"precision_at_{k}": hits / k,
            f"mrr_at_{k}": reciprocal,
            f"hit_rate_at_{k}": hits,
        }
    return found | {"accuracy": found["recall_at_1"]}


def _ranks(file: TaskFile, folder: Path) -> TiedRanks:
    """Find where the right answer of every query stands, in the order of the queries' ids."""
    content = _read_json(folder / f"{file.task}_predictions.json")
    try:
        parts = [part for key, subset in content.items() if key != "mteb_model_meta"
                 for part in subset.values()]  # fmt: skip
        (queries,) = parts
        own = {query: found.get(query, -math.inf) for query, found in queries.items()}
        order = sorted(queries)
        better = [sum(score > own[q] for score in queries[q].values()) for q in order]
        tied = [sum(score == own[q] for score in queries[q].values()) for q in order]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder} holds no predictions of {file.task} on one split and subset; give "
            "mteb.evaluate a new prediction_folder"
        ) from error
    targets = [int(own[q] > -math.inf) for q in order]
    ranks = TiedRanks(torch.tensor(better), torch.tensor(tied), torch.tensor(targets), len(order))
    for k in (1, 5, 10):
        hits, said = hit_probability(ranks, k).mean().item(), file.scores[f"hit_rate_at_{k}"]
        room = sum(n > 1 for n in tied) / len(order) + 1e-4  # mteb rounds, and orders ties by id
        if abs(hits - said) > room:
            raise ValueError(
                f"the predictions of {file.task} give R@{k} {100 * hits:.1f} where mteb says "
                f"{100 * said:.1f}: ids do not say which caption belongs to which clip, or the "
                "predictions are of another run"
            )
    return ranks


def _data(t2v: TaskFile, v2t: TaskFile, number: int) -> dict[str, Any]:
    nothing_lost: dict[str, int] = {}
    return {
        "test_set": f"mteb {t2v.task}, {v2t.task}",
        "recognised": None,
        "split_hash": f"{t2v.task}@{t2v.revision}",
        "files": [file.path.name for file in (t2v, v2t)],
        "videos": number,
        "captions": number,
        "captions_per_video": [1, 1],
        "paragraph": False,
        "clips": {
            "rule": "strict",
            "listed": number,
            "readable": number,
            "unreadable": 0,
            "problems": nothing_lost,
            "lost": nothing_lost,
        },
    }


def _settings() -> dict[str, Any]:
    unstated = ("num_frames", "sampling", "image_size", "fit", "decoder", "precision", "device")
    return {
        **dict.fromkeys(unstated, _UNSTATED),
        "frame_order": "forward",
        "views": 1,
        "k": None,
        "mixture": None,
        "coverage": "strict",
        "ties": "expectation over random order",
        "batch_size": None,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a file of mteb: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no file of mteb: it holds no object")
    return content
