"""Zero-shot text-to-video and video-to-text retrieval on a test set.

    result = evaluate(Options(run=Path("runs/x"), shards="data/demo/test-*.tar"))
    result.scores["mixed"]["t2v_recall_1"]

Every clip and caption is encoded once; the dual encoder scores all pairs in float32, by all frames
and by one vector of each clip, and the best ``k`` of every query are re-ranked, in each direction
for itself, by the mixture of that vector and the matching head and by the head alone. A clip that
cannot be read stays in the gallery and its queries count as misses. Samples that carry a
``reversed_caption`` are also asked which of the two captions fits, which only a model that sees
the order of frames can tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vmm.distributed import rank
from vmm.evaluation.common.encoding import check_texts, feature_store
from vmm.evaluation.common.features import Clip
from vmm.evaluation.common.findings import texts_lost
from vmm.evaluation.common.models import Encoder, Matcher, mixture_of
from vmm.evaluation.common.pictures import png
from vmm.evaluation.common.results import clip_card, content_hash, versions
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips
from vmm.evaluation.retrieval.charts import similarity_map
from vmm.evaluation.retrieval.lint import lint, recognise
from vmm.evaluation.retrieval.measure import Evaluation, measure_clips
from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.page import build_report
from vmm.evaluation.retrieval.protocols import PROTOCOLS, read_protocol, read_training_ids
from vmm.evaluation.retrieval.results import RetrievalResult
from vmm.evaluation.retrieval.scoring import Encoded, matcher_of
from vmm.evaluation.retrieval.showcase import (
    describe_queries,
    even_rows,
    extreme_rows,
    write_showcase,
)
from vmm.evaluation.retrieval.subject import Subject

logger = logging.getLogger(__name__)

_LOST = "captions that differ there only are one to the model: R@1 is too low"


def evaluate(
    options: Options, command: str = f"{__name__}.evaluate(...)"
) -> RetrievalResult | None:
    """Evaluate, and write the result file, its pictures and its page.

    An evaluation that was stopped goes on from the clips it had encoded. In a process group the
    processes share the work.

    Args:
        options: What is asked of which model.
        command: Said in the result to have measured it.

    Returns:
        The result; None in all processes but the first.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    protocol = options.protocol
    training = read_training_ids(options.train_ids) if options.train_ids else frozenset()
    options.prepare()
    encoder = options.open_encoder()
    dataset = _dataset(options, encoder, training)
    words = ("retrieval", options.dataset, options.frame_order)
    out = options.folder("_".join(word for word in words if word), encoder.name)
    keep_tokens = matcher_of(encoder, options) is not None
    if options.k is not None and isinstance(encoder, Matcher) and not keep_tokens:
        logger.info("no layer of this text encoder looks at a video, so nothing is re-ranked")
    store = feature_store(out / "features", encoder, dataset, keep_tokens)
    evaluation = measure_clips(encoder, dataset, options, store)
    if rank() > 0:
        return None
    clips, numbers = evaluation.encoded.clips, evaluation.numbers
    name = options.name or encoder.name
    result = RetrievalResult(
        name=name,
        command=command,
        model=encoder.identity(),
        data=_describe_data(options, evaluation),
        settings=_describe_settings(options, encoder, evaluation.encoded),
        findings=[
            *lint(Subject(clips, protocol, training, evaluation.dual, lost=dataset.lost)),
            *texts_lost(check_texts(encoder, evaluation.encoded.captions), _LOST),
        ],
        versions=versions(),
        **numbers,
        **_show(out, f"{name}: text-to-video, frames {options.frame_order}", evaluation, dataset),
    )
    path = result.write(out)
    build_report(out / "report.html", [], [(name, out)])
    store.remove()
    logger.info("wrote %s and report.html", path)
    return result


def _dataset(
    options: Options, encoder: Encoder, training: frozenset[str]
) -> ShardClips | AnnotatedClips:
    """Open the test set, and say what is off with it before anything is scored."""
    if options.dataset is None:
        return ShardClips(options.given_shards(), encoder.clip, options.frame_order)
    annotations, media = options.official()
    items = read_protocol(options.dataset, annotations, options.ids)
    clips = [Clip(item.key, item.captions, None, None) for item in items]
    for finding in lint(Subject(clips, options.protocol, training)):
        logger.warning("%s: %s; %s", finding.code, finding.message, finding.effect)
    return AnnotatedClips(items, media, encoder.clip, options.frame_order)


def _describe_data(options: Options, evaluation: Evaluation) -> dict[str, Any]:
    clips, protocol = evaluation.encoded.clips, options.protocol
    counts = [len(clip.captions) for clip in clips]
    recognised = recognise(clips)
    return {
        "test_set": protocol.title if protocol else "shards",
        "recognised": PROTOCOLS[recognised].title if recognised and not protocol else None,
        "split_hash": content_hash(sorted([clip.key, *clip.captions] for clip in clips)),
        "files": options.files(),
        "videos": len(clips),
        "captions": len(evaluation.encoded.captions),
        "captions_per_video": [min(counts), max(counts)],
        "paragraph": protocol is not None and protocol.paragraph,
        "clips": evaluation.coverage,
    }


def _describe_settings(options: Options, encoder: Encoder, encoded: Encoded) -> dict[str, Any]:
    matcher = matcher_of(encoder, options)
    return {
        **clip_card(encoder.clip),
        "frame_order": options.frame_order,
        "views": 1,
        "k": None if matcher is None else _looked_at(options.k, encoded),
        "mixture": None if matcher is None else mixture_of(matcher)._asdict(),
        "coverage": options.coverage,
        "ties": "expectation over random order",
        "precision": "float32",
        "batch_size": options.batch_size,
        "device": options.device,
    }


def _looked_at(k: int | None, encoded: Encoded) -> int | None:
    """How many candidates a query had re-ranked: no more than there were, in either direction."""
    return None if k is None else min(k, max(encoded.relevant.shape))


def _show(
    out: Path, title: str, evaluation: Evaluation, dataset: ShardClips | AnnotatedClips
) -> dict[str, Any]:
    """Write the pictures and clips, and give ``examples``, ``best`` and ``worst``."""
    encoded, scores = evaluation.encoded, evaluation.scores
    best, worst = extreme_rows(scores, encoded.relevant)
    keys = [clip.key for clip in encoded.clips]
    numbers = encoded.numbers

    def describe(rows: list[int], with_right: bool = False) -> list[dict[str, Any]]:
        examples = describe_queries(
            rows, encoded.captions, keys, encoded.relevant, scores, with_right=with_right
        )
        for found in (found for example in examples for found in example["results"]):
            found["file"] = _file_name(dataset, numbers[found["clip"]])
        return examples

    shown = write_showcase(
        out,
        {
            "retrieval": describe(even_rows(scores)),
            "best": describe(best),
            "worst": describe(worst, with_right=True),
        },
        _frames_reader(dataset, numbers),
        lambda clip: dataset.media(numbers[clip]),
        f"{title}, best three clips per caption",
    )
    (out / "similarity.png").write_bytes(png(similarity_map(evaluation.dual, encoded.relevant)))
    return {"examples": shown["retrieval"], "best": shown["best"], "worst": shown["worst"]}


def _file_name(dataset: ShardClips | AnnotatedClips, number: int) -> str:
    """Give the name of a clip's file where its shard has one; of official files that is its id."""
    if isinstance(dataset, AnnotatedClips):
        return ""
    name = dataset.metadata(number)[1].get("media")
    return name if isinstance(name, str) else ""


def _frames_reader(
    dataset: ShardClips | AnnotatedClips, numbers: Sequence[int]
) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Give a function that decodes the frames of a clip as the model saw them."""
    settings = dataset.settings
    mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)

    def frames_of(clip: int) -> npt.NDArray[np.uint8]:
        video = dataset[numbers[clip]].video
        assert video is not None  # only readable clips are found
        pixels = video.permute(0, 2, 3, 1) * std + mean
        frames: npt.NDArray[np.uint8] = (pixels.clamp(0, 1) * 255).round().byte().numpy()
        return frames

    return frames_of
