"""Probes of frozen features: what an encoder is worth before anybody fine-tunes it.

    result = evaluate(Options(
        run=Path("runs/x"), train_shards="data/train-*.tar", shards="data/test-*.tar"
    ))
    result.numbers["probes"]["linear"]["model"]["top_1"]

A linear, a nearest-neighbour and an attentive probe learn classes from the encoder's features of
labelled clips, and are tested on other clips; beside them, the same probes of the same encoder with
random weights, and the most frequent class. Every clip is encoded once.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmm.evaluation.common.encoding import encode_clips, feature_store
from vmm.evaluation.common.features import FeatureStore
from vmm.evaluation.common.labels import hash_of
from vmm.evaluation.common.models import ClipEncoder
from vmm.evaluation.common.results import clip_card, count_problems, unreadable, versions
from vmm.evaluation.probe.backbones import Subject, open_subject
from vmm.evaluation.probe.lint import ProbeSubject, lint_probe
from vmm.evaluation.probe.measure import Asked, measure, most_frequent, scattered
from vmm.evaluation.probe.options import Options, Probe
from vmm.evaluation.probe.page import write_page
from vmm.evaluation.probe.readers import Reading
from vmm.evaluation.probe.results import ProbeResult
from vmm.evaluation.probe.samples import Labelled, Part, number, read_parts, refuse_few
from vmm.evaluation.probe.scoring import Encoded, Lesson, read_all, standardised
from vmm.runs import read_config

logger = logging.getLogger(__name__)

Readings = dict[Probe, Reading]


def evaluate(options: Options, command: str = f"{__name__}.evaluate(...)") -> ProbeResult:
    """Probe, and write the result file and its page.

    A probing that was stopped goes on from the clips that were encoded.

    Args:
        options: What is asked of which model.
        command: Said in the result to have measured it.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    options.check()
    options.prepare()
    options = _as_trained(options)
    subject = open_subject(options)
    parts = read_parts(options, subject.encoder.clip)
    labelled = number(*(part.truths for part in parts))
    asked = options.dataset or (options.class_field or "label").rpartition(".")[2]
    out = options.folder(f"probe_{asked}", subject.encoder.name)
    lesson, readings, stores = _learn(options, subject.encoder, parts, labelled, out, "trained")
    others: Readings = {}
    if subject.control is not None:
        _, others, more = _learn(options, subject.control, parts, labelled, out, "random weights")
        stores += more
    usual = most_frequent(lesson.labels)
    kept = labelled.test >= 0
    if options.coverage == "available":
        kept &= torch.tensor([clip.problem is None for clip in lesson.test.clips])
    rows = kept.nonzero().flatten()
    scores, control = (
        {p: scattered(r, lesson.test.rows, len(kept))[rows] for p, r in found.items()}
        for found in (readings, others)
    )
    clips = Asked(labelled.test[rows], labelled.test_videos[rows], labelled.names, usual)
    data = _describe_data(options, parts, labelled, lesson, rows)
    missed = unreadable(data["problems"], data["listed"], "clips", options.coverage)
    to_lint = _to_lint(options, subject, parts, labelled, lesson, rows, readings, scores)
    result = ProbeResult(
        name=options.name or subject.encoder.name,
        command=command,
        model=subject.encoder.identity(),
        data=data,
        settings=_describe_settings(options, subject.encoder, parts, lesson),
        numbers=measure(scores, control, clips),
        chosen={"model": _chosen(readings), "random": _chosen(others)},
        classes=labelled.names,
        findings=[*missed, *lint_probe(to_lint)],
        predictions=_predictions(parts[1], labelled, rows, scores),
        versions=versions() | {"scikit-learn": version("scikit-learn")},
    )
    path = result.write(out)
    write_page(out / "probe.html", result)
    for store in stores:
        store.remove()
    logger.info("wrote %s and probe.html", path)
    return result


def _as_trained(options: Options) -> Options:
    """Take the place of the classes from the run of a classifier, if it was not said."""
    if options.class_field or options.model is not None or options.dataset is not None:
        return options
    data = read_config(options.given_run()).get("data") or {}
    return replace(options, class_field=(data.get("init_args") or {}).get("label_field"))


def _learn(
    options: Options,
    encoder: ClipEncoder,
    parts: tuple[Part, Part],
    labelled: Labelled,
    out: Path,
    what: str,
) -> tuple[Lesson, Readings, list[FeatureStore]]:
    """Encode the clips of both parts with a model, fit its probes, and let them read."""
    wants = "attentive" in options.wanted
    stores, encoded = [], []
    for part, labels, name in zip(
        parts, (labelled.train, labelled.test), ("training clips", "test clips"), strict=True
    ):
        logger.info("encoding %d %s, %s", len(part.media), name, what)
        store = feature_store(out / "features", encoder, part.media, wants)
        encode_clips(encoder, part.media, store, wants, options.batch_size, options.num_workers)
        tokens = wants and (store.folder / "tokens.json").is_file()
        encoded.append(Encoded.of(store, labels, name, tokens))
        stores.append(store)
    train, test = encoded
    labels = labelled.train[train.rows]
    refuse_few(labels, labelled.names)
    lesson = Lesson(train, test, labels, labelled.train_videos[train.rows])
    return lesson, read_all(lesson, options.wanted, options.seed, what), stores


def _to_lint(
    options: Options,
    subject: Subject,
    parts: tuple[Part, Part],
    labelled: Labelled,
    lesson: Lesson,
    rows: Tensor,
    readings: Readings,
    scores: dict[Probe, Tensor],
) -> ProbeSubject:
    vectors, seen = standardised(lesson.train.vectors, lesson.test.vectors)
    return ProbeSubject(
        train=[parts[0].truths[row] for row in lesson.train.rows.tolist()],
        test=[parts[1].truths[row] for row in rows.tolist()],
        labels=lesson.labels,
        asked=labelled.test[rows],
        names=labelled.names,
        vectors=vectors,
        seen=seen,
        rows=torch.searchsorted(rows, lesson.test.rows),
        readings=readings,
        scores=scores,
        control=subject.control is not None or not options.control,
        of_stage_1=subject.of_stage_1,
    )


def _chosen(readings: Readings) -> dict[str, Any]:
    return {p: {"settings": r.chosen, "held_out": r.held_out} for p, r in readings.items()}


def _predictions(
    part: Part, labelled: Labelled, rows: Tensor, scores: dict[Probe, Tensor]
) -> list[list[Any]]:
    said = [
        [None if row.isnan().any() else int(row.argmax()) for row in found]
        for found in scores.values()
    ]
    return [
        [part.truths[row].key, int(labelled.test[row]), *(answers[place] for answers in said)]
        for place, row in enumerate(rows.tolist())
    ]


def _describe_data(
    options: Options,
    parts: tuple[Part, Part],
    labelled: Labelled,
    lesson: Lesson,
    rows: Tensor,
) -> dict[str, Any]:
    train, test = parts
    protocol = options.protocol
    problems = count_problems([clip.problem for clip in lesson.test.clips], "test clips")
    given = (options.train_shards, options.train_annotations, options.train_media)
    named = all(truth.name is not None for truth in train.truths if truth.label is not None)
    return {
        "test_set": protocol.title if protocol else f"shards, {options.class_field or 'label'}",
        "split_hash": hash_of(test.truths),
        "train_hash": hash_of(train.truths),
        "train_files": [Path(file).name for file in given if file is not None],
        "files": options.files(),
        "media": {"video": "clip", "image": "still"}[test.media.kind],
        "train": len(lesson.labels),
        "train_left_out": len(train.truths) - len(lesson.labels),
        "listed": len(test.truths),
        "readable": len(test.truths) - problems.total(),
        "unlabelled": int((labelled.test < 0).sum()),
        "tested": len(rows),
        "problems": dict(problems),
        "coverage": options.coverage,
        "classes": len(labelled.names),
        "numbered_by": "their names" if named else "the numbers in the annotations",
    }


def _describe_settings(
    options: Options, encoder: ClipEncoder, parts: tuple[Part, Part], lesson: Lesson
) -> dict[str, Any]:
    tokens = lesson.train.tokens
    return {
        **clip_card(encoder.clip),
        "media": parts[0].media.kind,
        "width": lesson.train.vectors.shape[1],
        "tokens": 0 if tokens is None else tokens.shape[1],
        "token_grid": options.token_grid,
        "seed": options.seed,
        "device": options.device,
        "batch_size": options.batch_size,
    }
