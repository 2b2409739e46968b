"""Zero-shot text-to-video and video-to-text retrieval on a test set.

    python -m eval.retrieval --run RUN --shards "data/demo/test-*.tar"
    python -m eval.retrieval --run RUN --dataset msrvtt-1ka --annotations FILE --media FOLDER
    python -m eval.retrieval --model open_clip:ViT-B-32:openai --shards ...

Every clip and caption is encoded once; the dual encoder scores all pairs in float32 and the
matching head re-orders the best ``k`` of every query, in each direction for itself. A clip that
cannot be read stays in the gallery and its queries count as misses. Samples that carry a
``reversed_caption`` are also asked which of the two captions fits, which only a model that sees
the order of frames can tell. An evaluation that was stopped goes on from the clips it had encoded;
under ``torchrun`` several processes share the work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from eval import results
from eval.command import add_data, add_model, folder_for, new_parser, run_command, versions
from eval.encoding import Settings, feature_store
from eval.evaluation import Evaluation, evaluate
from eval.features import Clip
from eval.findings import Subject
from eval.lint.checks import lint, recognise
from eval.models import Encoder, VmmEncoder, load_encoder
from eval.protocols import PROTOCOLS, Protocol, protocol_of, read_protocol, read_training_ids
from eval.report.charts import similarity_map
from eval.report.page import build_report
from eval.report.pictures import png
from eval.report.showcase import describe_queries, even_rows, extreme_rows, write_showcase
from eval.sources import AnnotatedClips, ShardClips
from vmm.command_line import whole
from vmm.distributed import rank
from vmm.export.run import load_run
from vmm.ops.tuning.cpu_setup import tune_cpu

logger = logging.getLogger(__name__)


def run_retrieval(options: argparse.Namespace, command: str) -> dict[str, Any] | None:
    """Evaluate as the command line asks, write the result files, and give the result.

    Returns:
        The result; None in all processes but the first.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    protocol = protocol_of(options.dataset) if options.dataset else None
    settings = Settings(
        k=None if options.no_rerank else options.k,
        coverage=options.coverage,
        dual_softmax=options.dsl,
        shared_captions=protocol is not None and protocol.shared_captions,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )
    training = read_training_ids(options.train_ids) if options.train_ids else frozenset()
    if options.device == "cpu":
        for sentence in tune_cpu().values():
            logger.info(sentence)
    encoder = _encoder(options)
    dataset = _dataset(options, encoder, protocol, training)
    out = folder_for(options, _default_name(options), encoder.name)
    out.mkdir(parents=True, exist_ok=True)
    store = feature_store(out / "features", encoder, dataset, settings)
    evaluation = evaluate(encoder, dataset, settings, store)
    if rank() > 0:
        return None
    subject = Subject(
        evaluation.encoded.clips, protocol, training, evaluation.dual, lost=dataset.lost
    )
    result = {
        "schema": results.SCHEMA,
        "name": options.name or encoder.name,
        "command": command,
        "model": encoder.identity(),
        "data": _describe_data(options, evaluation, protocol),
        "settings": _describe_settings(options, encoder, settings)
        | ({} if evaluation.numbers["reranked"] else {"k": None}),
        **evaluation.numbers,
        "findings": [vars(finding) for finding in lint(subject)],
        "versions": versions(),
    }
    result |= _show(out, result, evaluation, dataset, encoder)
    (out / results.FILE_NAME).write_text(json.dumps(result), encoding="utf-8")
    build_report(out / "report.html", [], [(result["name"], out)])
    store.remove()
    logger.info("wrote %s and report.html", out / results.FILE_NAME)
    return result


def _encoder(options: argparse.Namespace) -> Encoder:
    if options.model:
        return load_encoder(
            options.model, options.num_frames, options.device, options.trust_remote_code
        )
    run = load_run(options.run, options.checkpoint)
    clip = run.clip.with_frames(options.num_frames)
    return VmmEncoder.of_run(run, options.device, clip)


def _dataset(
    options: argparse.Namespace,
    encoder: Encoder,
    protocol: Protocol | None,
    training: frozenset[str],
) -> ShardClips | AnnotatedClips:
    """Open the test set, and say what is off with it before anything is scored."""
    if options.shards:
        return ShardClips(options.shards, encoder.clip, options.frame_order)
    items = read_protocol(options.dataset, options.annotations, options.ids)
    clips = [Clip(item.key, item.captions, None, None) for item in items]
    for finding in lint(Subject(clips, protocol, training)):
        logger.warning("%s: %s; %s", finding.code, finding.message, finding.effect)
    return AnnotatedClips(items, options.media, encoder.clip, options.frame_order)


def _describe_data(
    options: argparse.Namespace, evaluation: Evaluation, protocol: Protocol | None
) -> dict[str, Any]:
    clips = evaluation.encoded.clips
    counts = [len(clip.captions) for clip in clips]
    text = json.dumps(sorted([clip.key, *clip.captions] for clip in clips))
    files = [options.shards] if options.shards else [options.annotations, options.media]
    recognised = recognise(clips)
    return {
        "test_set": protocol.title if protocol else "shards",
        "recognised": PROTOCOLS[recognised].title if recognised and not protocol else None,
        "split_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "files": [Path(file).name for file in files],
        "videos": len(clips),
        "captions": len(evaluation.encoded.captions),
        "captions_per_video": [min(counts), max(counts)],
        "paragraph": protocol is not None and protocol.paragraph,
        "clips": evaluation.coverage,
    }


def _describe_settings(
    options: argparse.Namespace, encoder: Encoder, settings: Settings
) -> dict[str, Any]:
    clip = encoder.clip
    return {
        "frame_order": options.frame_order,
        "num_frames": clip.num_frames,
        "sampling": clip.sampling,
        "image_size": clip.image_size,
        "fit": clip.fit,
        "views": 1,
        "k": settings.k,
        "coverage": settings.coverage,
        "ties": "expectation over random order",
        "precision": "float32",
        "decoder": clip.decoder,
        "batch_size": settings.batch_size,
        "device": options.device,
    }


def _show(
    out: Path,
    result: dict[str, Any],
    evaluation: Evaluation,
    dataset: ShardClips | AnnotatedClips,
    encoder: Encoder,
) -> dict[str, Any]:
    """Write the pictures and clips, and give ``examples``, ``best`` and ``worst``."""
    encoded, scores = evaluation.encoded, evaluation.scores
    best, worst = extreme_rows(scores, encoded.relevant)
    keys = [clip.key for clip in encoded.clips]
    numbers = encoded.numbers

    def describe(rows: list[int], with_right: bool = False) -> list[dict[str, Any]]:
        return describe_queries(
            rows, encoded.captions, keys, encoded.relevant, scores, with_right=with_right
        )

    groups = {
        "retrieval": describe(even_rows(scores)),
        "best": describe(best),
        "worst": describe(worst, with_right=True),
    }
    order = result["settings"]["frame_order"]
    title = f"{result['name']}: text-to-video, frames {order}, best three clips per caption"
    shown = write_showcase(
        out,
        groups,
        _frames_reader(dataset, encoder, numbers),
        lambda clip: dataset.media(numbers[clip]),
        title,
    )
    (out / "similarity.png").write_bytes(png(similarity_map(evaluation.dual, encoded.relevant)))
    return {"examples": shown["retrieval"], "best": shown["best"], "worst": shown["worst"]}


def _frames_reader(
    dataset: ShardClips | AnnotatedClips, encoder: Encoder, numbers: Sequence[int]
) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Give a function that decodes the frames of a clip as the model saw them."""
    mean, std = torch.tensor(encoder.clip.mean), torch.tensor(encoder.clip.std)

    def frames_of(clip: int) -> npt.NDArray[np.uint8]:
        video = dataset[numbers[clip]].video
        assert video is not None  # only readable clips are found
        pixels = video.permute(0, 2, 3, 1) * std + mean
        frames: npt.NDArray[np.uint8] = (pixels.clamp(0, 1) * 255).round().byte().numpy()
        return frames

    return frames_of


def _default_name(options: argparse.Namespace) -> str:
    words = ("retrieval", options.dataset, options.frame_order)
    return "_".join(word for word in words if word)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("eval.retrieval", __doc__, "run directory of `vmm fit`, stage 2")
    add_model(parser)
    add_data(parser, "pattern of the test shards", list(PROTOCOLS))
    add = parser.add_argument
    add("--ids", type=Path, help="list of the ids to keep of the annotations")
    add("--train-ids", type=Path, help="ids or annotations of what the model was trained on")
    add("--frame-order", choices=("forward", "reversed"), default="forward")
    add("--k", type=whole(1), default=128, help="candidates to re-rank per query (default: 128)")
    add("--no-rerank", action="store_true", help="dual encoder only")
    add("--dsl", action="store_true", help="also with dual softmax, under its own name")
    add("--coverage", choices=("strict", "available"), default="strict",
        help="queries of unreadable clips are misses (strict), or both are dropped")  # fmt: skip
    add("--num-frames", type=whole(1), help="frames per clip (default: as trained, or 8)")
    add("--batch-size", type=whole(1), default=32)
    add("--num-workers", type=whole(0, 1024), default=2, help="decoding processes (default: 2)")
    return parser


def _join_processes(device: str) -> str:
    """Join the processes of ``torchrun``, if it started this one; give the device to use."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return device


def _run(options: argparse.Namespace, command: str) -> dict[str, Any] | None:
    """Evaluate, together with the other processes of ``torchrun`` if there are any."""
    try:
        options.device = _join_processes(options.device)
        return run_retrieval(options, command)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(args: Sequence[str] | None = None) -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    return run_command("eval.retrieval", _parser(), _run, results.retrieval_table, args)


if __name__ == "__main__":
    sys.exit(main())
