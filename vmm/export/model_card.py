"""The model card of an exported encoder: how it was trained, what it scores, how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vmm.data.transforms import ClipSettings
from vmm.export import usage
from vmm.export.usage import UNKNOWN_LICENSE
from vmm.metrics import METRICS
from vmm.models.classifier import VideoClassifier
from vmm.models.video_text import VideoTextModel
from vmm.runs import Run, TrainedModel
from vmm.text_output import number_of

_HEADER = """\
---
license: {license}
library_name: vmm
pipeline_tag: {kind.pipeline}
tags: [{kind.tag}, videomamba, vmm]
---

# {title}

A {kind.what} of {parameters:.1f} million parameters, trained and exported with vmm. It looks
at {clip.num_frames} frames of {clip.image_size} pixels.

```python
{kind.code}
```

## Limits

{limits}

## Licence

{licence}

## Data

{data}

## Recipe

```yaml
{recipe}```

Weights: `{checkpoint}`, SHA-256 `{sha256}`.

## Results

"""


class _Kind(NamedTuple):
    """What a card says of a kind of model."""

    what: str
    pipeline: str
    tag: str
    code: str


_VIDEO_TEXT = _Kind(
    "video-text encoder", "feature-extraction", "video-text-retrieval", usage.ENCODER
)
_CLASSIFIER = _Kind(
    "video classifier", "video-classification", "video-classification", usage.CLASSIFIER
)

_NO_RESULTS = """\
None were measured with these weights before the export (`vmm eval retrieval --run RUN`).
"""

_SCORES = {
    "dual": "dual encoder, mean of the frames' cosines (published)",
    "vectors": "dual encoder, the vectors of this encoder",
    "mixed": "re-ranked by the mixture, as `score` does",
    "reranked": "re-ranked by matching alone (published)",
}
"""Key of a result file -> what a card calls it."""

_PROTOCOL = """\
### {name}

{table}

Protocol: {gallery} in the gallery, {readable} of {listed} clips readable, {captions}, from
{files}; {num_frames} frames of {image_size} pixels, {frame_order}; {precision}; \
{reranking}.

"""


def model_card(run: Run, license_name: str, results: Sequence[Path]) -> str:
    """Write the card of a run.

    Args:
        run: The run.
        license_name: Identifier of the licence of the weights on the hub, or ``UNKNOWN_LICENSE``.
        results: Files of ``vmm eval retrieval``. Those of other weights are left out.

    Raises:
        ValueError: If a file of results cannot be read.
    """
    sections = [_section(path, run.sha256) for path in results]
    return _card(run, license_name, _VIDEO_TEXT) + ("".join(sections) or _NO_RESULTS)


def classifier_card(run: TrainedModel[VideoClassifier], license_name: str) -> str:
    """Write the card of a classifier; see ``model_card``."""
    return _card(run, license_name, _CLASSIFIER) + _NO_RESULTS.replace(
        "retrieval", "classification"
    )


def _card(run: TrainedModel[Any], license_name: str, kind: _Kind) -> str:
    data = run.config.get("data") or {}
    arguments = _portable(data.get("init_args") or {}) if isinstance(data, dict) else {}
    trained = {k: v for k, v in arguments.items() if k.startswith("train_") and v}
    said = "\n".join(f"- {name.removeprefix('train_')}: `{v}`" for name, v in trained.items())
    recipe = {"model": _portable(run.config["model"]), "data": _portable(data)}
    unstated = "Not stated. Ask whoever trained it before you use it."
    return _HEADER.format(
        kind=kind,
        license=license_name,
        title=type(run.model.video_encoder).__name__,
        parameters=sum(p.numel() for p in run.model.parameters()) / 1e6,
        clip=run.clip,
        limits="\n".join(f"- {limit}" for limit in _limits(run.model, run.clip)),
        licence=unstated if license_name == UNKNOWN_LICENSE else f"{license_name}.",
        data=said or "The recipe names no training data.",
        recipe=yaml.safe_dump(recipe, sort_keys=False),
        checkpoint=run.checkpoint.name,
        sha256=run.sha256,
    )


def _limits(model: VideoTextModel | VideoClassifier, clip: ClipSettings) -> list[str]:
    """Say what a model cannot do, as far as its sizes tell."""
    shape = ", squashed to a square" if clip.fit == "squash" else ", cropped to a square"
    limits = [
        f"It sees {clip.num_frames} frames of a clip{shape} of {clip.image_size} pixels: what "
        "happens between them, or is small in them, it cannot tell. It hears nothing.",
        "It knows what its training data showed, in the words of their captions or classes. How it "
        "does on other videos, or treats people and groups of them, was not measured here.",
    ]
    if isinstance(model, VideoClassifier):
        count = model.head.out_features
        return [*limits, f"It answers with its {count} classes, also where a video shows none."]
    text = model.text_encoder
    limits += [
        f"Captions are cut to {text.max_words} tokens of a vocabulary of {text.vocab_size:,}.",
        "Similarities order candidates. They are no probabilities, and one is best also where none "
        "fits.",
    ]
    if not text.fuses:
        limits.append("It cannot re-rank: its text encoder looks at no video.")
    return limits


def find_results(run: Path) -> list[Path]:
    """Find what ``vmm eval retrieval`` left in a run directory, or beside it by ``--out``.

    A card takes those that are of the run's weights.
    """
    beside = sorted(run.resolve().parent.glob("*/retrieval.json"))
    return [*sorted(run.glob("*/retrieval.json")), *beside]


def _section(path: Path, sha256: str) -> str:
    """Write the table of a file of results; nothing if it is of other weights."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["model"]["sha256"] != sha256:
            return ""
        settings, data = result["settings"], result["data"]
        scores = {title: result.get(name) for name, title in _SCORES.items()}
        brief = {name: metric.title for name, metric in METRICS.items() if metric.brief}
        titles = list(brief.values())
        rows = [["", f"text-to-video {titles[0]}", *titles[1:], f"video-to-text {titles[0]}"]]
        rows[0] += titles[1:]
        rows.append(["---"] * len(rows[0]))
        for title, numbers in scores.items():
            if numbers is not None:
                values = (float(numbers[f"{d}_{name}"]) for d in ("t2v", "v2t") for name in brief)
                rows.append([title, *(f"{value:.1f}" for value in values)])
        k = settings["k"]
        return _PROTOCOL.format(
            name=result["name"],
            table="\n".join(f"| {' | '.join(row)} |" for row in rows),
            gallery=number_of(data["videos"], "clip"),
            readable=data["clips"]["readable"],
            listed=data["clips"]["listed"],
            captions=number_of(data["captions"], "caption"),
            files=", ".join(f"`{file}`" for file in data["files"]),
            num_frames=settings["num_frames"],
            image_size=settings["image_size"],
            frame_order=settings["frame_order"],
            precision=settings["precision"],
            reranking=f"the best {k} of each query re-ranked" if k else "not re-ranked",
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as a result of `vmm eval retrieval`: "
            f"{type(error).__name__} {error}"
        ) from error


def _portable(value: Any) -> Any:
    """Copy settings, with paths of one machine reduced to their last part."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
