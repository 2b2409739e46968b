"""Classification of videos: a trained classifier, or any video-text model by class prompts.

    python -m eval.classification --run IMPORTED --dataset k400 --annotations val.csv --media clips/
    python -m eval.classification --run RUN --shards 'data/demo/test-*.tar' \
        --class-field attributes.shape --template 'a {} moves'

A run of stage 2 (or ``--model``) is compared with the classes' names in prompts, zero-shot; an
imported classifier says probabilities. Every sample is seen in several views, which are merged by
sample. What cannot be read counts as wrong; what is off with classes, numbers or views is said. An
evaluation that was stopped goes on from the samples it had seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eval.classes import results
from eval.classes.labels import (
    Classes,
    Truth,
    hash_of,
    number_classes,
    read_labelled,
    truths_in_shards,
    truths_of,
)
from eval.classes.lint import ClassSubject, lint_classes, lint_samples
from eval.classes.measure import measure_classes, measure_numbers
from eval.classes.protocols import CLASS_PROTOCOLS, ClassProtocol
from eval.classes.views import (
    ClassifierEncoder,
    ViewedClips,
    ViewedEncoder,
    Views,
    class_vectors,
    merge_views,
)
from eval.command import add_data, add_model, folder_for, new_parser, run_command, versions
from eval.encoding import Settings, encode_clips, feature_store, refuse_broken
from eval.features import Clip, FeatureStore
from eval.models import Encoder, VmmEncoder, load_encoder
from eval.sources import AnnotatedClips, ShardClips
from vmm.command_line import whole
from vmm.export.run import build_classifier, is_classifier, load_model, load_run, read_config
from vmm.ops.similarity import frame_similarity
from vmm.ops.tuning.cpu_setup import tune_cpu

logger = logging.getLogger(__name__)

TEMPLATES = ("{}", "a video of {}", "a person is {}")


class _Seen(NamedTuple):
    """Samples after encoding."""

    clips: list[Clip]
    rows: Tensor
    """(readable,) int64, their numbers."""
    vectors: Tensor
    """(readable, V * P, E)."""


def run_classification(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Evaluate as the command line asks, write the result files, and give the result.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    protocol = CLASS_PROTOCOLS[options.dataset] if options.dataset else None
    if options.device == "cpu":
        for sentence in tune_cpu().values():
            logger.info(sentence)
    encoder = _encoder(options)
    trained = encoder if isinstance(encoder, ClassifierEncoder) else None
    views = _views(options, protocol, trained is not None)
    if views.crops > 1:
        encoder.clip = replace(encoder.clip, fit="crop")
    media, truths = _samples(options, encoder, protocol)
    out = folder_for(options, _default_name(options), encoder.name)
    out.mkdir(parents=True, exist_ok=True)
    dataset = ViewedClips(media, [truth.key for truth in truths], encoder.clip, views)
    settings = Settings(k=None, batch_size=options.batch_size, num_workers=options.num_workers)
    viewed = ViewedEncoder(encoder)
    store = feature_store(out / "features", viewed, dataset, settings)
    encode_clips(viewed, dataset, settings, store, keep_tokens=False)
    seen = _seen(store)
    if protocol is not None and protocol.is_regression:
        result = _regression(protocol, trained, truths, seen, views, options.coverage)
    else:
        result = _classes(options, protocol, encoder, truths, seen, views)
    result |= {
        "schema": results.SCHEMA,
        "name": options.name or encoder.name,
        "command": command,
        "model": encoder.identity(),
        "data": _describe_data(options, protocol, truths, seen.clips) | result["data"],
        "settings": _describe_settings(options, encoder, views, trained is not None),
        "versions": versions(),
    }
    (out / results.FILE_NAME).write_text(json.dumps(result), encoding="utf-8")
    results.write_class_page(out / "classification.html", result)
    store.remove()
    logger.info("wrote %s and classification.html", out / results.FILE_NAME)
    return result


def _encoder(options: argparse.Namespace) -> Encoder | ClassifierEncoder:
    if options.model:
        return load_encoder(
            options.model, options.num_frames, options.device, options.trust_remote_code
        )
    if is_classifier(read_config(options.run)):
        if options.num_frames is not None:
            raise ValueError(
                "a classifier has a fixed number of frames; import it again with --num-frames "
                f"{options.num_frames}"
            )
        trained = load_model(options.run, build_classifier, options.checkpoint)
        # As the published fine-tuning code tests its models.
        clip = replace(trained.clip, sampling="random_finetune", fit="crop")
        return ClassifierEncoder(trained, clip, options.device)
    run = load_run(options.run, options.checkpoint)
    clip = run.clip.with_frames(options.num_frames)
    return VmmEncoder.of_run(run, options.device, clip)


def _views(options: argparse.Namespace, protocol: ClassProtocol | None, trained: bool) -> Views:
    """The published views for trained classifiers, one view for prompts, unless told otherwise."""
    usual = Views(protocol.clips, protocol.crops) if protocol is not None and trained else Views()
    return Views(
        usual.clips if options.clips is None else options.clips,
        usual.crops if options.crops is None else options.crops,
    )


def _samples(
    options: argparse.Namespace,
    encoder: Encoder | ClassifierEncoder,
    protocol: ClassProtocol | None,
) -> tuple[ShardClips | AnnotatedClips, list[Truth]]:
    if protocol is None:
        clips = ShardClips(options.shards, encoder.clip)
        return clips, truths_in_shards(clips, options.class_field)
    items = read_labelled(protocol, options.annotations, options.ids)
    return AnnotatedClips(items, options.media, encoder.clip), truths_of(items)


def _seen(store: FeatureStore) -> _Seen:
    clips = [clip for _, clip in sorted(store.finished().items())]
    rows = [number for number, clip in enumerate(clips) if clip.problem is None]
    if not rows:
        reasons = Counter(str(clip.problem) for clip in clips)
        raise ValueError(
            f"not one of {len(clips)} samples could be read ({reasons.most_common(1)[0][0]}); "
            "look at the reasons in the log"
        )
    vectors = store.read("projected")[rows]
    refuse_broken(vectors, "samples", [clips[row].key for row in rows])
    return _Seen(clips, torch.tensor(rows), vectors)


@torch.inference_mode()
def _classes(
    options: argparse.Namespace,
    protocol: ClassProtocol | None,
    encoder: Encoder | ClassifierEncoder,
    truths: list[Truth],
    seen: _Seen,
    views: Views,
) -> dict[str, Any]:
    """Score classes and measure."""
    classes = number_classes(truths, options.classes)
    if isinstance(encoder, ClassifierEncoder):
        merged = merge_views(seen.vectors)
        names = [*classes.names, *[None] * (encoder.num_classes - len(classes.names))]
    else:
        names = classes.names
        nameless = [number for number, name in enumerate(names) if name is None]
        if nameless:
            raise ValueError(
                f"{len(nameless)} classes have no name, e.g. number {nameless[0]}; prompts need "
                "names: give --classes FILE"
            )
        prompts = class_vectors(encoder, [str(name) for name in names], _templates(options))
        merged = frame_similarity(seen.vectors, prompts)
    if not bool(merged.isfinite().all()):
        raise ValueError(
            "the scores of the classes hold NaN or infinity: the model's weights or its precision "
            "are broken"
        )
    outputs = merged.shape[1]
    shown = [f"class {i}" if name is None else name for i, name in enumerate(names)][:outputs]
    scores = merged.new_full((len(truths), outputs), torch.nan)
    scores[seen.rows] = merged
    trained = isinstance(encoder, ClassifierEncoder)
    subject = ClassSubject(protocol, truths, classes, outputs, views, scores, trained)
    findings = lint_classes(subject)
    kept = _kept(seen, options.coverage)
    numbers = measure_classes(scores[kept], classes.labels[kept], shown, _groups(truths)[kept])
    chosen = scores.nan_to_num(-torch.inf).argmax(1).tolist()
    return {
        "numbers": numbers,
        "findings": [vars(finding) for finding in findings],
        "classes": shown,
        "predictions": [
            [truth.key, label, None if clip.problem else choice]
            for truth, label, clip, choice in zip(
                truths, classes.labels.tolist(), seen.clips, chosen, strict=True
            )
        ],
        "data": _count_classes(classes, outputs),
    }


def _count_classes(classes: Classes, outputs: int) -> dict[str, Any]:
    return {"classes": outputs, "numbered_by": classes.origin}


def _regression(
    protocol: ClassProtocol,
    trained: ClassifierEncoder | None,
    truths: list[Truth],
    seen: _Seen,
    views: Views,
    coverage: str,
) -> dict[str, Any]:
    """Measure a model that predicts a number."""
    if trained is None or trained.num_classes != 1:
        raise ValueError(
            f"{protocol.title} is a number to predict: it needs a model with one output, trained "
            "on it"
        )
    if any(truth.target is None for truth in truths):
        raise ValueError(f"the annotations have classes, {protocol.title} has numbers to predict")
    if coverage == "strict" and len(seen.rows) < len(truths):
        raise ValueError(
            f"{len(truths) - len(seen.rows)} of {len(truths)} samples cannot be read, and an error "
            "has no worst value to count them with; use --coverage available"
        )
    targets = torch.tensor([truth.target for truth in truths], dtype=torch.float64)
    predicted = seen.vectors[..., 0].double().mean(1)
    groups = _groups(truths)[seen.rows]
    values: list[float | None] = [None] * len(truths)
    for row, value in zip(seen.rows.tolist(), predicted.tolist(), strict=True):
        values[row] = value
    return {
        "numbers": measure_numbers(predicted, targets[seen.rows], groups),
        "findings": [vars(finding) for finding in lint_samples(protocol, truths, views)],
        "classes": [],
        "predictions": [
            [truth.key, truth.target, value] for truth, value in zip(truths, values, strict=True)
        ],
        "data": {"classes": 0, "numbered_by": None},
    }


def _kept(seen: _Seen, coverage: str) -> Tensor:
    """Number the samples that count."""
    return seen.rows if coverage == "available" else torch.arange(len(seen.clips))


def _groups(truths: Sequence[Truth]) -> Tensor:
    """Number the videos of the samples."""
    videos: dict[str, int] = {}
    return torch.tensor([videos.setdefault(truth.media, len(videos)) for truth in truths])


def _describe_data(
    options: argparse.Namespace,
    protocol: ClassProtocol | None,
    truths: list[Truth],
    clips: list[Clip],
) -> dict[str, Any]:
    files = [options.shards] if protocol is None else [options.annotations, options.media]
    problems = Counter(clip.problem for clip in clips if clip.problem is not None)
    return {
        "test_set": protocol.title if protocol else f"shards, {options.class_field}",
        "split_hash": hash_of(truths),
        "files": [Path(file).name for file in files],
        "listed": len(truths),
        "readable": len(truths) - problems.total(),
        "problems": dict(problems),
        "coverage": options.coverage,
    }


def _describe_settings(
    options: argparse.Namespace, encoder: Encoder | ClassifierEncoder, views: Views, trained: bool
) -> dict[str, Any]:
    clip = encoder.clip
    return {
        "kind": "trained classifier" if trained else "zero-shot by prompts",
        "templates": [] if trained else [*_templates(options)],
        "clips": views.clips,
        "crops": views.crops,
        "merged": "mean of softmax" if trained else "mean of cosines",
        "num_frames": clip.num_frames,
        "sampling": clip.sampling,
        "image_size": clip.image_size,
        "fit": clip.fit,
        "decoder": clip.decoder,
        "device": options.device,
        "batch_size": options.batch_size,
    }


def _templates(options: argparse.Namespace) -> Sequence[str]:
    return options.template or TEMPLATES


def _default_name(options: argparse.Namespace) -> str:
    return f"classification_{options.dataset or options.class_field.rpartition('.')[2]}"


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("eval.classification", __doc__, "imported classifier, or run of stage 2")
    add_model(parser)
    add_data(parser, "pattern of shards whose JSON names the class", list(CLASS_PROTOCOLS))
    add = parser.add_argument
    add("--class-field", default="label", help="field of the JSON in --shards (default: label)")
    add("--ids", type=Path, help="list of the ids to keep of the annotations")
    add("--classes", type=Path, help="class names in the order of their numbers")
    add("--template", action="append", metavar="TEXT",
        help="prompt with {} for the class; repeatable")  # fmt: skip
    add("--clips", type=whole(1), help="clips per video (default: as published, or 1)")
    add("--crops", type=whole(1), help="crops per clip (default: as published, or 1)")
    add("--coverage", choices=("strict", "available"), default="strict",
        help="unreadable samples are wrong (strict), or dropped")  # fmt: skip
    add("--num-frames", type=whole(1), help="frames per clip (default: as trained, or 8)")
    add("--batch-size", type=whole(1), default=8)
    add("--num-workers", type=whole(0, 1024), default=2, help="decoding processes (default: 2)")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    return run_command(
        "eval.classification", _parser(), run_classification, results.class_table, args
    )


if __name__ == "__main__":
    sys.exit(main())
