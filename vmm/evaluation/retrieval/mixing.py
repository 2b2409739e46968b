"""The weight of the matching head in re-ranking, chosen on validation clips and kept with the run.

    choose_weight(Path("runs/x"), device="cpu")

``vmm fit`` does so where a run that trained matching ends, ``vmm eval match-weight`` for any
other. Where nobody does, ``vmm.ops.similarity.MATCH_WEIGHT`` counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from vmm.data.shards import EvaluationSample
from vmm.evaluation.common.encoding import TestSet, encode_clips, feature_store
from vmm.evaluation.common.models import VmmEncoder
from vmm.evaluation.common.sources import ShardClips
from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.scoring import Encoded, Scores, encode, rerank, score, top_k
from vmm.metrics import expected_rank, text_to_video_ranks, video_to_text_ranks
from vmm.models.match_weight import write_match_weight
from vmm.ops.similarity import MATCH_WEIGHT, Mixture
from vmm.runs import load_run

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
CLIPS = 256
"""Clips that the choice looks at: more make it slower, not better."""
CHOICE_CANDIDATES = 16
"""Of each query: fewer than are re-ranked, as every run waits for the choice when it ends."""


class Choice(NamedTuple):
    """What was chosen, and on what."""

    weight: float
    clips: int
    curve: dict[float, float]
    """Weight -> mean reciprocal rank of both directions, from 0 to 1."""


class FirstClips:
    """The first clips of a test set.

    Args:
        clips: The test set.
        number: How many at most.
    """

    def __init__(self, clips: TestSet, number: int) -> None:
        self._clips = clips
        self._number = min(number, len(clips))

    frame_order = "forward"
    lost: Mapping[str, int] = {}

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> EvaluationSample:
        return self._clips[index]

    def fingerprint(self) -> str:
        """Tell states of the data apart."""
        return f"{self._number} of {self._clips.fingerprint()}"


def choose_weight(
    run: Path,
    checkpoint: str = "best",
    device: str = "cpu",
    shards: str | Sequence[str] | None = None,
    num_workers: int = 0,
    clips: int = CLIPS,
) -> Choice:
    """Choose the weight for a run on validation clips, and keep it in the run's directory.

    Args:
        run: Run directory of stage 2, or what ``vmm import`` wrote.
        checkpoint: As for ``vmm.runs.load_run``.
        device: Where to compute.
        shards: The clips; None = the run's own validation shards.
        num_workers: Processes that decode.
        clips: How many at most.

    Raises:
        ValueError: If there are no clips to choose on, or the model has no matching head of use.
    """
    loaded = load_run(run, checkpoint)
    arguments = (loaded.config.get("data") or {}).get("init_args") or {}
    shards = shards or arguments.get("val_videos")
    if not shards:
        raise ValueError(
            f"the recipe of {run} names no data.init_args.val_videos to choose the weight of the "
            f"matching head on; name clips with --shards, or leave it at {MATCH_WEIGHT}"
        )
    encoder = VmmEncoder.of_run(loaded, device, loaded.clip)
    encoder.model.text_encoder.fusing("there is no weight to choose")
    options = Options(
        device=device, k=CHOICE_CANDIDATES, coverage="available", num_workers=num_workers
    )
    dataset = FirstClips(ShardClips(shards, encoder.clip), clips)
    with TemporaryDirectory(prefix="features-", dir=run) as folder:
        store = feature_store(Path(folder), encoder, dataset, keep_tokens=True)
        encode_clips(encoder, dataset, store, True, options.batch_size, options.num_workers)
        finished = [clip for _, clip in sorted(store.finished().items())]
        encoded = encode(encoder, finished, store, options, keep_tokens=True)
        scores = score(encoder, encoded, CHOICE_CANDIDATES)
    choice = best_weight(encoded, scores, encoder.mixture)
    curve = {f"{weight:g}": round(value, 4) for weight, value in choice.curve.items()}
    said = {"clips": choice.clips, "mean_reciprocal_rank": curve, "sha256": loaded.sha256}
    write_match_weight(run, choice.weight, said)
    return choice


def best_weight(encoded: Encoded, scores: Scores, mixture: Mixture) -> Choice:
    """Choose the weight with which the right one ranks best, over the queries of both directions.

    The reciprocal rank moves with every query that gets better, also on few clips, where R@1 has
    steps. Of all weights that are not worse than the best one by more than a standard error, the
    one nearest to the usual is taken: few clips say little.

    Args:
        encoded: The clips and captions.
        scores: Of them, with those of the matching head.
        mixture: Whose weight is sought.
    """
    num_texts, relevant = len(encoded.captions), encoded.relevant
    cosines, match = (scores.pairs[name][:num_texts] for name in ("vectors", "match"))
    of_text, of_clip = top_k(cosines, CHOICE_CANDIDATES, 1), top_k(cosines, CHOICE_CANDIDATES, 0)
    ranks: dict[float, Tensor] = {}
    for weight in WEIGHTS:
        mixed = mixture._replace(weight=weight)(cosines, match)
        t2v = text_to_video_ranks(rerank(cosines, mixed, of_text, 1), relevant)
        v2t = video_to_text_ranks(rerank(cosines, mixed, of_clip, 0), relevant)
        ranks[weight] = 1 / torch.cat([expected_rank(t2v), expected_rank(v2t)])
    curve = {weight: rank.mean().item() for weight, rank in ranks.items()}
    best = ranks[max(WEIGHTS, key=curve.__getitem__)]

    def as_good(weight: float) -> bool:
        gap = best - ranks[weight]
        error = gap.std(correction=0) / math.sqrt(len(gap))
        return bool(gap.mean() <= error)

    def distance(weight: float) -> float:
        return abs(math.log(weight / MATCH_WEIGHT)) if weight else math.inf

    return Choice(min(filter(as_good, WEIGHTS), key=distance), len(encoded.clips), curve)
