"""Classification of clips and stills: a trained classifier, or a video-text model by prompts.

    result = evaluate(Options(run=Path("runs/x"), shards="data/demo/test-*.tar"))
    result.numbers["top_1"]

A run of stage 2 (or another model) is compared with the classes' names in prompts, zero-shot; a
trained or imported classifier says probabilities. Every sample is seen in several views, which are
merged by sample. What cannot be read counts as wrong; what is off with classes, numbers or views is
said.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, get_args

from vmm.data.views import Views
from vmm.evaluation.classification.options import TEMPLATES, Options
from vmm.evaluation.classification.page import write_page, wrong_samples
from vmm.evaluation.classification.results import ClassificationResult
from vmm.evaluation.classification.scoring import (
    SeenSamples,
    score_classes,
    score_numbers,
    score_several,
)
from vmm.evaluation.classification.views import (
    ClassifierEncoder,
    ViewedClips,
    ViewedEncoder,
)
from vmm.evaluation.common.encoding import encode_clips, feature_store
from vmm.evaluation.common.labels import (
    Truth,
    hash_of,
    read_labelled,
    truths_in_shards,
    truths_of,
)
from vmm.evaluation.common.models import Encoder
from vmm.evaluation.common.results import clip_card, count_problems, unreadable, versions
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips, kind_in
from vmm.evaluation.common.strips import strips
from vmm.losses.classification import ProblemType
from vmm.models.classifier import VideoClassifier
from vmm.runs import class_list_of, load_model, read_config, trains
from vmm.types import Media

logger = logging.getLogger(__name__)

_IMPORTED = f"{VideoClassifier.__module__}.{VideoClassifier.__qualname__}"


def evaluate(options: Options, command: str = f"{__name__}.evaluate(...)") -> ClassificationResult:
    """Evaluate, and write the result file and its page.

    An evaluation that was stopped goes on from the samples it had seen.

    Args:
        options: What is asked of which model.
        command: Said in the result to have measured it.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    options.prepare()
    options = _as_trained(options)
    encoder = _open(options)
    trained = isinstance(encoder, ClassifierEncoder)
    views = _views(options, trained)
    if views.crops > 1:
        encoder.clip = replace(encoder.clip, fit="crop")
    media, truths = _samples(options, encoder)
    if media.kind == "image":
        views = replace(views, clips=1)
    asked = options.dataset or (options.class_field or "label").rpartition(".")[2]
    played = "_reversed" * (options.frame_order == "reversed")
    out = options.folder(f"classification_{asked}{played}", encoder.name)
    keys = [truth.key for truth in truths]
    dataset = ViewedClips(media, keys, encoder.clip, views, options.frame_order)
    viewed = ViewedEncoder(encoder)
    store = feature_store(out / "features", viewed, dataset, keep_tokens=False)
    encode_clips(viewed, dataset, store, False, options.batch_size, options.num_workers)
    seen = SeenSamples.of(store)
    kind = _problem_type(options)
    if kind == "regression":
        scored = score_numbers(options, encoder, truths, seen, views)
    elif kind == "multi_label":
        scored = score_several(options, encoder, truths, seen, views)
    else:
        scored = score_classes(options, encoder, truths, seen, views)
    data = _describe_data(options, truths, seen)
    missed = unreadable(data["problems"], data["listed"], "samples", options.coverage)
    result = ClassificationResult(
        name=options.name or encoder.name,
        command=command,
        model=encoder.identity(),
        data=data | scored.pop("data"),
        settings=_describe_settings(options, encoder, views, trained, media.kind),
        versions=versions(),
        findings=[*missed, *scored.pop("findings")],
        **scored,
    )
    path = result.write(out)
    wrong = wrong_samples(result)
    files = {row: truths[row].source or "" for row in wrong}
    write_page(out / "classification.html", result, strips(media, wrong), files)
    store.remove()
    logger.info("wrote %s and classification.html", path)
    return result


def _open(options: Options) -> Encoder | ClassifierEncoder:
    if options.model is not None or not trains(read_config(options.given_run()), VideoClassifier):
        return options.open_encoder()
    if options.num_frames is not None:
        raise ValueError(
            "a classifier has a fixed number of frames; import it again with --num-frames "
            f"{options.num_frames}"
        )
    trained = load_model(options.given_run(), VideoClassifier, options.checkpoint)
    clip = trained.clip
    if _is_import(trained.config):  # as the published code tests its models
        sampling = options.protocol.sampling if options.protocol else "random_finetune"
        clip = replace(
            clip, sampling=sampling, fit="crop", interpolation="bilinear", antialias=False
        )
        if clip.num_frames == 1:  # an image classifier
            clip = replace(clip, crop_pct=0.875, interpolation="bicubic", antialias=True)
    return ClassifierEncoder(trained, clip, options.device)


def _is_import(config: dict[str, Any]) -> bool:
    """Tell a file that ``vmm import`` took from a run, whose own settings say how it sees."""
    return bool(config["model"].get("class_path") == _IMPORTED)


def _as_trained(options: Options) -> Options:
    """Take from the run of a classifier what was not asked: place and list of the classes."""
    if options.model is not None or not trains(read_config(options.given_run()), VideoClassifier):
        return options
    config = read_config(options.given_run())
    field = _arguments(config, "data").get("label_field") if options.dataset is None else None
    return replace(
        options,
        class_field=options.class_field or field,
        classes=options.classes or class_list_of(options.given_run(), config),
    )


def _arguments(config: dict[str, Any], name: str) -> dict[str, Any]:
    node = config.get(name) or {}
    arguments: dict[str, Any] = node.get("init_args") or {}
    return arguments


def _problem_type(options: Options) -> ProblemType:
    """Tell what a label is: what the test set says, or the run."""
    if options.protocol is not None:
        return "regression" if options.protocol.is_regression else "single_label"
    if options.model is not None:
        return "single_label"
    found = _arguments(read_config(options.given_run()), "model").get("problem_type")
    known: dict[Any, ProblemType] = {name: name for name in get_args(ProblemType)}
    return known.get(found, "single_label")


def _views(options: Options, trained: bool) -> Views:
    """The published views for trained classifiers, one view for prompts, unless told otherwise."""
    protocol = options.protocol
    usual = Views(protocol.clips, protocol.crops) if protocol is not None and trained else Views()
    return Views(
        usual.clips if options.clips is None else options.clips,
        usual.crops if options.crops is None else options.crops,
    )


def _samples(
    options: Options, encoder: Encoder | ClassifierEncoder
) -> tuple[ShardClips | AnnotatedClips, list[Truth]]:
    protocol = options.protocol
    if protocol is None:
        shards = options.given_shards()
        clips = ShardClips(shards, encoder.clip, captioned=False, kind=kind_in(shards))
        return clips, truths_in_shards(clips, options.class_field, _problem_type(options))
    annotations, media = options.official()
    items = read_labelled(protocol, annotations, options.ids)
    return AnnotatedClips(items, media, encoder.clip), truths_of(items)


def _describe_data(options: Options, truths: list[Truth], seen: SeenSamples) -> dict[str, Any]:
    protocol = options.protocol
    problems = count_problems([clip.problem for clip in seen.clips], "samples")
    return {
        "test_set": protocol.title if protocol else f"shards, {options.class_field or 'label'}",
        "split_hash": hash_of(truths),
        "files": options.files(),
        "listed": len(truths),
        "readable": len(truths) - problems.total(),
        "problems": dict(problems),
        "coverage": options.coverage,
    }


def _describe_settings(
    options: Options,
    encoder: Encoder | ClassifierEncoder,
    views: Views,
    trained: bool,
    kind: Media,
) -> dict[str, Any]:
    return {
        **clip_card(encoder.clip),
        "media": kind,
        "frame_order": options.frame_order,
        "kind": "trained classifier" if trained else "zero-shot by prompts",
        "templates": [] if trained else [*(options.templates or TEMPLATES)],
        "clips": views.clips,
        "crops": views.crops,
        "merged": "mean of softmax" if trained else "mean of cosines",
        "device": options.device,
        "batch_size": options.batch_size,
    }
