"""What the model says of every sample, and how often it is right.

Shape legend: see ``vmm.types``; N samples, V views, K classes, P vectors per view, E joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.data.annotations.class_list import ClassList
from vmm.data.views import Views
from vmm.evaluation.classification.lint import ClassSubject, lint_classes, lint_samples
from vmm.evaluation.classification.measure import measure_numbers, measure_several
from vmm.evaluation.classification.options import TEMPLATES, Options
from vmm.evaluation.classification.views import ClassifierEncoder
from vmm.evaluation.common.class_accuracy import measure_classes
from vmm.evaluation.common.encoding import check_texts, refuse_broken
from vmm.evaluation.common.features import Clip, FeatureStore
from vmm.evaluation.common.findings import Finding, texts_lost
from vmm.evaluation.common.labels import Truth, number_classes, sources_of
from vmm.evaluation.common.models import Encoder
from vmm.evaluation.common.results import count_problems
from vmm.losses.classification import merge_views
from vmm.ops.similarity import frame_similarity
from vmm.text_output import number_of

_LOST = "classes that differ there only are one to the model: the accuracy is too low"


class SeenSamples(NamedTuple):
    """Samples after encoding."""

    clips: list[Clip]
    rows: Tensor
    """(readable,) int64, their numbers."""
    vectors: Tensor
    """(readable, V * P, E)."""

    @classmethod
    def of(cls, store: FeatureStore) -> Self:
        """Read them.

        Raises:
            ValueError: If not one could be read or a vector is NaN.
        """
        clips = [clip for _, clip in sorted(store.finished().items())]
        count_problems([clip.problem for clip in clips], "samples")
        rows = [number for number, clip in enumerate(clips) if clip.problem is None]
        vectors = store.read("projected")[rows]
        refuse_broken(vectors, "samples", [clips[row].key for row in rows])
        return cls(clips, torch.tensor(rows), vectors)


@torch.inference_mode()
def score_classes(
    options: Options,
    encoder: Encoder | ClassifierEncoder,
    truths: list[Truth],
    seen: SeenSamples,
    views: Views,
) -> dict[str, Any]:
    """Score classes and measure.

    Args:
        options: What was asked.
        encoder: The model.
        truths: Of all samples.
        seen: All samples.
        views: How they were seen.

    Returns:
        ``numbers``, ``findings``, ``classes``, ``predictions`` and ``data`` of the result.

    Raises:
        ValueError: If classes have no names for prompts, or a score is NaN.
    """
    classes = number_classes(truths, options.classes)
    names: list[str | None] = classes.names
    lost: list[Finding] = []
    if isinstance(encoder, ClassifierEncoder):
        merged = merge_views(seen.vectors.double(), "single_label")
        names = [*names, *[None] * (encoder.num_classes - len(names))]
    else:
        templates = options.templates or TEMPLATES
        prompts = class_vectors(encoder, _named(names), templates)
        lost = texts_lost(check_texts(encoder, prompts_of(_named(names), templates)), _LOST)
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
    subject = ClassSubject(
        options.protocol, truths, classes, outputs, views, scores, trained, encoder.clip.sampling
    )
    kept = seen.rows if options.coverage == "available" else torch.arange(len(truths))
    numbers = measure_classes(scores[kept], classes.labels[kept], shown, sources_of(truths)[kept])
    chosen = scores.nan_to_num(-torch.inf).argmax(1).tolist()
    return {
        "numbers": numbers,
        "findings": [*lint_classes(subject), *lost],
        "classes": shown,
        "predictions": [
            [truth.key, label, None if clip.problem else choice]
            for truth, label, clip, choice in zip(
                truths, classes.labels.tolist(), seen.clips, chosen, strict=True
            )
        ],
        "data": {"classes": outputs, "numbered_by": classes.origin},
    }


def _named(names: list[str | None]) -> list[str]:
    nameless = [number for number, name in enumerate(names) if name is None]
    if nameless:
        raise ValueError(
            f"{number_of(len(nameless), 'class has', 'classes have')}"
            f" no name, e.g. number {nameless[0]}; prompts need "
            "names: give --classes FILE"
        )
    return [str(name) for name in names]


def score_numbers(
    options: Options,
    encoder: Encoder | ClassifierEncoder,
    truths: list[Truth],
    seen: SeenSamples,
    views: Views,
) -> dict[str, Any]:
    """Measure a model that predicts a number; see ``score_classes``.

    Raises:
        ValueError: If the model or the test set predicts none, or samples cannot be read and count.
    """
    protocol = options.protocol
    title = protocol.title if protocol else "what the run was trained on"
    if not isinstance(encoder, ClassifierEncoder) or encoder.num_classes != 1:
        raise ValueError(
            f"{title} is a number to predict: it needs a model with one output, trained on it"
        )
    if any(truth.target is None for truth in truths):
        raise ValueError(f"the samples have classes, {title} has numbers to predict")
    if options.coverage == "strict" and len(seen.rows) < len(truths):
        raise ValueError(
            f"{len(truths) - len(seen.rows)} of {len(truths)} samples cannot be read, and an error "
            "has no worst value to count them with; use --coverage available"
        )
    targets = torch.tensor([truth.target for truth in truths], dtype=torch.float64)
    predicted = seen.vectors[..., 0].double().mean(1)
    groups = sources_of(truths)[seen.rows]
    values: list[float | None] = [None] * len(truths)
    for row, value in zip(seen.rows.tolist(), predicted.tolist(), strict=True):
        values[row] = value
    return {
        "numbers": measure_numbers(predicted, targets[seen.rows], groups),
        "findings": lint_samples(protocol, truths, views),
        "classes": [],
        "predictions": [
            [truth.key, truth.target, value] for truth, value in zip(truths, values, strict=True)
        ],
        "data": {"classes": 0, "numbered_by": None},
    }


def score_several(
    options: Options,
    encoder: Encoder | ClassifierEncoder,
    truths: list[Truth],
    seen: SeenSamples,
    views: Views,
) -> dict[str, Any]:
    """Measure a model that says any number of classes; see ``score_classes``.

    Raises:
        ValueError: If a label is none of its classes.
    """
    assert isinstance(encoder, ClassifierEncoder)
    classes = ClassList(encoder.num_classes, options.classes)
    merged = merge_views(seen.vectors.double(), "multi_label")
    scores = merged.new_full((len(truths), encoder.num_classes), -torch.inf)
    scores[seen.rows] = merged
    relevant = torch.zeros(scores.shape, dtype=torch.bool)
    for row, truth in zip(relevant, truths, strict=True):
        row[[classes.number(label, truth.key) for label in truth.several]] = True
    kept = seen.rows if options.coverage == "available" else torch.arange(len(truths))
    return {
        "numbers": measure_several(scores[kept], relevant[kept], sources_of(truths)[kept]),
        "findings": lint_samples(options.protocol, truths, views),
        "classes": [name or f"class {i}" for i, name in enumerate(classes.names)],
        "predictions": [
            [truth.key, right.nonzero().flatten().tolist(), None if clip.problem else said.tolist()]
            for truth, right, said, clip in zip(truths, relevant, scores, seen.clips, strict=True)
        ],
        "data": {
            "classes": encoder.num_classes,
            "numbered_by": f"the order of {options.classes.name}" if options.classes else "labels",
        },
    }


def prompts_of(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Put every class into every prompt, one class after the other."""
    return [template.replace("{}", name) for name in names for template in templates]


def class_vectors(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Give each class the mean of the unit vectors of its prompts, made unit again.

    Radford et al. 2021 (arXiv 2103.00020), section 3.1.4.

    Args:
        encoder: The model.
        names: K classes.
        templates: Prompts in which ``{}`` stands for the class.

    Returns:
        (K, E) float32.

    Raises:
        ValueError: If there is no template, or one has no place for the class.
    """
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(f"templates {list(templates)} must each hold {{}} for the class")
    vectors = []
    for name in names:
        projected = encoder.encode_texts(prompts_of([name], templates)).projected.float().cpu()
        vectors.append(F.normalize(F.normalize(projected, dim=-1).mean(0), dim=-1))
    return torch.stack(vectors)
