"""The encoder folder: a trained model, of video and text or a classifier, as plain files.

==============================  ==================================================================
``config.json``                 sizes of the model, SHA-256 of every other file, the fingerprint
``model.safetensors``           weights
``tokenizer*.json``, ...        vocabulary and rules of the text side, if there is one
``video_preprocessor_config.json``  how a video becomes the model's input
``README.md``                   model card, the only file that may be edited
==============================  ==================================================================

The fingerprint is one SHA-256 over the sizes and the files' digests: two folders with the same one
give the same vectors, and vectors made with different ones must not be compared. ``match_weight``,
which re-ranking takes, changes no vector and is no part of it. Folders come from elsewhere: digests
are checked before anything is built, and only vmm's classes are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn

from vmm.data.annotations.class_list import read_class_names
from vmm.data.transforms import ClipSettings
from vmm.export.usage import CLASSIFIER, ENCODER, with_usage
from vmm.models.classifier import VideoClassifier
from vmm.models.match_weight import KEY, check_match_weight
from vmm.models.recipe_nodes import class_of
from vmm.models.text_interface import TextEncoder
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.weight_files import read_state_dict, write_tensors
from vmm.models.weights import load_accounted, usual_types
from vmm.ops.similarity import MATCH_WEIGHT
from vmm.runs import (
    Run,
    TrainedModel,
    build,
    class_list_of,
    clip_settings,
    sha256,
)
from vmm.text_output import write_text
from vmm.version import __version__

MODEL_TYPE = "vmm_video_text"
CLASSIFIER_TYPE = "vmm_video_classifier"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PREPROCESSOR = "video_preprocessor_config.json"
CARD = "README.md"

_PREPROCESSING = ("num_frames", "image_size", "mean", "std", "fit", "antialias", "sampling")
_OPTIONS = {"fps": None, "stride": 1, "crop_pct": 1.0, "interpolation": "bicubic"}
"""What is written where it is not the usual value, which older folders do not state."""


class _Kind(NamedTuple):
    """What a folder can hold."""

    model: type[VideoTextModel | VideoClassifier]
    loader: str
    """The class that people load it with."""
    usage: str
    """How, for the model card."""
    settings: tuple[str, ...]
    """What its configuration says of the model."""


_KINDS = {
    MODEL_TYPE: _Kind(
        VideoTextModel,
        "VideoTextEncoder",
        ENCODER,
        ("video_encoder", "text_encoder", "proj_dim"),
    ),
    CLASSIFIER_TYPE: _Kind(
        VideoClassifier,
        "ActionClassifier",
        CLASSIFIER,
        ("video_encoder", "num_classes", "problem_type", "id2label"),
    ),
}
"""By the ``model_type`` of a folder's configuration."""

_Model = TypeVar("_Model", VideoTextModel, VideoClassifier)


@dataclass(frozen=True)
class EncoderParts:
    """A trained model with all that a folder says about it.

    Attributes:
        model: In evaluation mode, on the CPU.
        clip: How a video becomes its input, as in evaluation.
        settings: What ``config.json`` says of the model: ``video_encoder`` and ``text_encoder``,
            nodes of a recipe, and ``proj_dim``; or ``num_classes``, ``problem_type`` and
            ``id2label``, the names of the classes by number.
        card: Text of the model card.
    """

    model: VideoTextModel | VideoClassifier
    clip: ClipSettings
    settings: dict[str, Any]
    card: str

    def of(self, kind: type[_Model]) -> _Model:
        """Return the model, which must be of a kind.

        Raises:
            ValueError: If it is of the other one.
        """
        if not isinstance(self.model, kind):
            loader = next(k.loader for k in _KINDS.values() if isinstance(self.model, k.model))
            raise ValueError(
                f"this model is a {type(self.model).__name__}, not a {kind.__name__}; its folder "
                f"is loaded by vmm.{loader}"
            )
        return self.model


def parts_of_classifier(run: TrainedModel[VideoClassifier], card: str) -> EncoderParts:
    """Take what a folder holds from a run of classification, or from an imported classifier.

    Raises:
        ValueError: If the list of classes is one of another number.
    """
    arguments = run.config["model"]["init_args"]
    count = run.model.head.out_features
    listed = class_list_of(run.folder, run.config)
    names = [None] * count if listed is None else read_class_names(listed)
    if len(names) != count:
        raise ValueError(f"{listed} lists {len(names)} classes and the model has {count}")
    settings = {
        "video_encoder": _video_node(run.model.video_encoder, arguments["video_encoder"]),
        "num_classes": count,
        "problem_type": arguments.get("problem_type", "single_label"),
        "id2label": {str(i): name or f"LABEL_{i}" for i, name in enumerate(names)},
    }
    return EncoderParts(run.model, run.clip, settings, card)


def parts_of_run(run: Run, card: str) -> EncoderParts:
    """Take what a folder holds from a trained run."""
    model, arguments = run.model, run.config["model"]["init_args"]
    text = arguments["text_encoder"]
    exported = model.text_encoder.exported_arguments(text.get("init_args") or {})
    settings = {
        "video_encoder": _video_node(run.model.video_encoder, arguments["video_encoder"]),
        "text_encoder": {"class_path": text["class_path"], "init_args": exported},
        "proj_dim": model.vision_proj.out_features,
    }
    return EncoderParts(model, run.clip, settings, card)


def _video_node(encoder: nn.Module, node: dict[str, Any]) -> dict[str, Any]:
    """Describe a video encoder without what is only here."""
    assert isinstance(encoder, VideoEncoder)
    given = node.get("init_args") or {}
    return {"class_path": node["class_path"], "init_args": encoder.exported_arguments(given)}


def write_folder(parts: EncoderParts, folder: Path) -> str:
    """Write an encoder folder.

    Args:
        parts: The model.
        folder: An empty folder.

    Returns:
        The fingerprint.
    """
    state = {key: value.contiguous() for key, value in parts.model.state_dict().items()}
    write_tensors(state, folder / WEIGHTS, {"format": "pt"})
    write_preprocessing(parts, folder)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    fingerprint = _fingerprint(parts.settings, files)
    named = next(name for name, kind in _KINDS.items() if isinstance(parts.model, kind.model))
    config = {
        "model_type": named,
        "architectures": [_KINDS[named].loader],
        "vmm_version": __version__,
        **parts.settings,
        **({KEY: parts.model.match_weight} if isinstance(parts.model, VideoTextModel) else {}),
        "files": files,
        "fingerprint": fingerprint,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    write_card(parts, folder, _KINDS[named].usage)
    return fingerprint


def write_card(parts: EncoderParts, folder: Path, usage: str) -> None:
    """Write the model card, with the lines of Python that load what is beside it."""
    write_text(folder / CARD, with_usage(parts.card, usage))


def write_preprocessing(parts: EncoderParts, folder: Path) -> None:
    """Write the vocabulary, if there is one, and how a video becomes input."""
    if isinstance(parts.model, VideoTextModel):
        parts.model.text_encoder.save_vocabulary(folder)
    clip = asdict(parts.clip)
    kept = {name: clip[name] for name in _PREPROCESSING}
    kept |= {name: clip[name] for name, usual in _OPTIONS.items() if clip[name] != usual}
    (folder / PREPROCESSOR).write_text(json.dumps(kept, indent=2) + "\n")


def read_folder(folder: Path) -> tuple[EncoderParts, str]:
    """Read an encoder folder after checking that every file is the one that was exported.

    Returns:
        The model, and the fingerprint.

    Raises:
        ValueError: If it is no encoder folder, a file is missing or another one, or it was made by
            a version of vmm that this one does not understand.
    """
    config = _read_config(folder)
    kind = _KINDS[config["model_type"]]
    files, settings = config.get("files"), _settings(config, kind.settings, folder)
    if not isinstance(files, dict) or not {WEIGHTS, PREPROCESSOR} <= set(files):
        raise ValueError(f"{folder / CONFIG} does not list its files; export the model again")
    for name, digest in files.items():
        path = folder / name
        if Path(name).name != name:
            raise ValueError(f"{folder / CONFIG} names the file {name!r} outside of its folder")
        if not path.is_file():
            raise ValueError(f"{folder} has no {name}; copy the whole folder, or export it again")
        if sha256(path) != digest:
            raise ValueError(
                f"{path} is damaged or of another model: its SHA-256 is not the one in {CONFIG}; "
                "copy the whole folder, or export it again"
            )
    fingerprint = _fingerprint(settings, files)
    if fingerprint != config.get("fingerprint"):
        raise ValueError(
            f"{folder / CONFIG} was changed after the export: its fingerprint should be "
            f"{fingerprint[:12]}..., it says {str(config.get('fingerprint'))[:12]}..."
        )
    try:
        with usual_types():
            if kind.model is VideoTextModel:
                settings_here = _with_vocabulary(settings, folder)
            else:
                settings_here = settings
            model = build({"model": {"init_args": settings_here}}, kind.model)
        if isinstance(model, VideoTextModel):
            model.match_weight = check_match_weight(config.get(KEY, MATCH_WEIGHT))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}; export the model again") from error
    load_accounted(model, read_state_dict(folder / WEIGHTS), str(folder / WEIGHTS), {}, {})
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    return EncoderParts(model.eval(), read_preprocessing(folder), settings, text), fingerprint


def is_encoder_folder(folder: Path) -> bool:
    """Tell an encoder folder, whole or not, from a run directory."""
    return (folder / CONFIG).is_file()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        hint = "is a run directory" if (folder / "config.yaml").is_file() else "has no config.json"
        raise ValueError(f"{folder} {hint}; `vmm export RUN OUT` makes an encoder folder of a run")
    config = _read_json(path)
    if config.get("model_type") not in _KINDS:
        raise ValueError(
            f"{path} describes a model of type {config.get('model_type')!r}, not one that "
            "`vmm export` wrote"
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; export the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no settings; export the model again")
    return content


def _settings(config: dict[str, Any], names: Sequence[str], folder: Path) -> dict[str, Any]:
    missing = [name for name in names if name not in config]
    if missing:
        raise ValueError(f"{folder / CONFIG} lacks {', '.join(missing)}; export the model again")
    return {name: config[name] for name in names}


def _with_vocabulary(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Say where the vocabulary is."""
    text = settings["text_encoder"]
    kind = class_of(text, TextEncoder)  # type: ignore[type-abstract]
    arguments = kind.arguments_in(folder, text["init_args"])
    return {**settings, "text_encoder": {**text, "init_args": arguments}}


def read_preprocessing(folder: Path) -> ClipSettings:
    """Read how a video becomes the input of what an exported folder holds.

    Raises:
        ValueError: If it cannot be read, or is of another version of vmm.
    """
    values = _read_json(folder / PREPROCESSOR)
    known = {*_PREPROCESSING, *_OPTIONS}
    if not set(_PREPROCESSING) <= set(values) <= known:
        odd = sorted(set(values) ^ set(_PREPROCESSING) - set(_OPTIONS))
        raise ValueError(
            f"{folder / PREPROCESSOR} is of another version of vmm: {', '.join(odd)} is missing or "
            "not known here; export the model again, or install the vmm that it was made with"
        )
    try:
        return clip_settings(values)
    except ValueError as error:
        raise ValueError(f"{folder / PREPROCESSOR}: {error}; export the model again") from error


def _fingerprint(settings: dict[str, Any], files: dict[str, str]) -> str:
    text = json.dumps({"settings": settings, "files": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
