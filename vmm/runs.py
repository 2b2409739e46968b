"""From a run directory to a model, without Lightning.

A run directory is what ``vmm fit`` leaves behind: ``config.yaml``, the whole recipe, and
``checkpoints/*.ckpt``; ``vmm import`` writes the same, with the weights in one safetensors file.
All of it is untrusted input: nothing here unpickles, and a class named by the recipe is built only
if it is one of vmm's models or already imported by the caller.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from torch import nn

from vmm.data.schema import is_leftover
from vmm.data.transforms import ClipSettings
from vmm.models.answer import AnswerModel
from vmm.models.classifier import VideoClassifier
from vmm.models.masked_student import MaskedStudent
from vmm.models.match_weight import read_match_weight
from vmm.models.recipe_nodes import build_node, init_args_of
from vmm.models.run_text import with_own_text
from vmm.models.text_interface import TextEncoder
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.weight_files import load_plain, read_state_dict
from vmm.models.weights import load_accounted, usual_types
from vmm.recipe_files import CONFIG, refuse_endless, refuse_no_run
from vmm.settings import make

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=nn.Module)

# What a training checkpoint may hold beside the model, with the reason to leave it out.
_TRAINING_ONLY = {
    r"^align_head\.": "the alignment head serves training only",
    r"^logit_bias$": "the bias of the sigmoid loss serves training only",
    r"^distill_head\.": "the self-distillation head serves training only",
    r"^teacher\.": "the frozen teacher serves training only",
}

RECORD = "run.json"
"""What became of a run; see ``vmm.tasks.run_record``."""
CLASS_LIST = "classes.txt"
"""In the run of a classifier: the names of its classes, by number."""
_RAW = ":raw"
_ENCODER = "video_encoder."

IMPORTED_WEIGHTS = "model.safetensors"
"""Weights in a folder that ``vmm import`` wrote, which otherwise looks like a run directory."""


@dataclass(frozen=True)
class TrainedModel(Generic[ModelT]):
    """A trained model and where it came from.

    Attributes:
        model: The model, in evaluation mode, on the CPU.
        clip: How a video becomes its input, as in training.
        config: The run's whole recipe.
        folder: The run's directory.
        checkpoint: The file the weights came from.
        sha256: Of that file; ``:raw`` follows if not the average in it was taken.
    """

    model: ModelT
    clip: ClipSettings
    config: dict[str, Any]
    folder: Path
    checkpoint: Path
    sha256: str


Run = TrainedModel[VideoTextModel]
"""A run of stage 2, or an imported checkpoint of it."""


def load_run(run: Path, checkpoint: str = "best") -> Run:
    """Rebuild the video-text model of a stage-2 run; see ``load_model``."""
    return load_model(run, VideoTextModel, checkpoint)


def load_model(run: Path, wanted: type[ModelT], checkpoint: str = "best") -> TrainedModel[ModelT]:
    """Rebuild the model of a run and load its weights, every key accounted for.

    Args:
        run: The run directory.
        wanted: The model's class, one of those in ``TASKS``, which has a ``video_encoder``; or
            ``VideoEncoder``, which every run has.
        checkpoint: As ``which`` of ``find_checkpoint``. Of a run that kept a moving average of its
            weights that average is taken; with ``:raw`` at the end, the weights themselves.

    Raises:
        ValueError: If a file is missing or damaged, the run is not one of such a model, or the
            weights do not fit it.
    """
    config = read_config(run)
    path = find_checkpoint(run, checkpoint.removesuffix(_RAW))
    try:
        with usual_types():
            model = build(with_own_text(config, run), wanted)
        encoder = model if isinstance(model, VideoEncoder) else model.video_encoder
        assert isinstance(encoder, VideoEncoder)
        clip = _clip_settings(init_args_of(config.get("data")), encoder)
    except ValueError as error:
        raise ValueError(f"{run / CONFIG}: {error}") from error
    state = read_state_dict(path, averaged=not checkpoint.endswith(_RAW))
    weights = {key.removeprefix("model."): value for key, value in state.items()}
    if model is encoder:
        weights = {k[len(_ENCODER) :]: v for k, v in weights.items() if k.startswith(_ENCODER)}
    report = load_accounted(model, weights, str(path), {}, _TRAINING_ONLY)
    logger.info("%s: %s", path, report)
    if isinstance(model, VideoTextModel):
        model.match_weight = read_match_weight(run)
    digest = sha256(path) + (_RAW if checkpoint.endswith(_RAW) else "")
    return TrainedModel(model.eval(), clip, config, run, path, digest)


def read_config(run: Path) -> dict[str, Any]:
    """Read the recipe that ``vmm fit`` saved in a run directory.

    Raises:
        ValueError: If there is none or it is not a YAML mapping.
    """
    refuse_no_run(run)
    path = run / CONFIG
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no settings; it must be the file that `vmm fit` saved")
    refuse_endless(config, path)
    return config


def class_list_of(run: Path, config: Mapping[str, Any]) -> Path | None:
    """Find the list of a classifier's classes: the run's own, or what its recipe names."""
    named = init_args_of(config.get("model")).get("classes")
    files = (run / CLASS_LIST, *([Path(named)] if isinstance(named, str) else []))
    return next((file for file in files if file.is_file()), None)


def find_checkpoint(run: Path, which: str = "best") -> Path:
    """Find a checkpoint of a run.

    Args:
        run: The run directory.
        which: ``best``: the one that validation chose; ``last``: the newest; else a path, from
            the working directory or inside ``run/checkpoints``.

    Raises:
        ValueError: If it is not there.
    """
    folder = run / "checkpoints"
    imported = run / IMPORTED_WEIGHTS
    if which in ("best", "last") and imported.is_file():
        return imported
    if which not in ("best", "last"):
        for path in (Path(which), folder / which):
            if path.exists():
                return path
        raise ValueError(f"there is no checkpoint file {which}, nor one of that name in {folder}")
    there = (path for path in folder.glob("*.ckpt") if not is_leftover(path.name))
    files = sorted(there, key=lambda path: path.stat().st_mtime)
    last = [path for path in files if path.stem.startswith("last")]
    kept = [path for path in files if path not in last]
    if which == "last" and last:
        return last[-1]
    if which == "best" and len(kept) > 1:
        return _chosen(kept, files[-1])
    if which == "best" and kept:
        return kept[0]
    if not files:
        raise ValueError(f"no checkpoint in {folder}; let `vmm fit` run until it saves one")
    logger.warning("%s has no %s checkpoint, taking %s", run, which, files[-1].name)
    return files[-1]


def _video_text(args: Mapping[str, Any]) -> VideoTextModel:
    sizes: dict[str, Any] = {n: args[n] for n in ("proj_dim", "temperature") if n in args}
    return make(VideoTextModel, sizes, *_encoders(args))


def _answer(args: Mapping[str, Any]) -> AnswerModel:
    return AnswerModel(*_encoders(args))


def _classifier(args: Mapping[str, Any]) -> VideoClassifier:
    encoder = build_node(args["video_encoder"], VideoEncoder)  # type: ignore[type-abstract]
    return make(VideoClassifier, {"num_classes": args["num_classes"]}, encoder)


def _encoders(args: Mapping[str, Any]) -> tuple[VideoEncoder, TextEncoder]:
    video_encoder = build_node(args["video_encoder"], VideoEncoder)  # type: ignore[type-abstract]
    text_encoder = build_node(args["text_encoder"], TextEncoder, video_encoder.embed_dim)  # type: ignore[type-abstract]
    return video_encoder, text_encoder


@dataclass(frozen=True)
class Kind:
    """What a recipe can train.

    Attributes:
        model: Class of the model.
        build: Makes the model, with fresh weights, of the task's arguments; None: of no use alone.
        needs: The arguments that it is made of and that tell a run of this kind.
        what: What the run is, for a message to whoever wants another kind.
        only: What they should know who want this kind and name another one.
    """

    model: type[nn.Module]
    build: Callable[[Mapping[str, Any]], nn.Module] | None
    needs: tuple[str, ...]
    what: str
    only: str


TASKS = {
    "vmm.tasks.video_text.VideoTextTask": Kind(
        VideoTextModel,
        _video_text,
        ("video_encoder", "text_encoder"),
        "one of stage 2",
        "only runs of stage 2 can be used for retrieval",
    ),
    "vmm.tasks.answer.AnswerTask": Kind(
        AnswerModel,
        _answer,
        ("video_encoder", "text_encoder", "answers"),
        "one of answering questions, which has no joint space",
        "it was not trained to answer questions, which recipes/answer_qa.yaml does",
    ),
    "vmm.tasks.masked_pretrain.MaskedPretrainTask": Kind(
        MaskedStudent,
        None,
        ("video_encoder", "teacher"),
        "one of stage 1, which knows no text",
        "a run of stage 1 serves as init_from of stage 2",
    ),
    "vmm.models.classifier.VideoClassifier": Kind(
        VideoClassifier,
        _classifier,
        ("video_encoder", "num_classes"),
        "a classifier",
        "it is no classifier; train one with recipes/classification.yaml, or import one with "
        "`vmm import FILE FOLDER`",
    ),
    "vmm.tasks.classification.ClassificationTask": Kind(
        VideoClassifier,
        _classifier,
        ("video_encoder", "num_classes"),
        "a classifier",
        "it is no classifier",
    ),
    "vmm.tasks.self_distillation.SelfDistillationTask": Kind(
        VideoClassifier,
        _classifier,
        ("video_encoder", "num_classes", "teacher"),
        "a classifier",
        "it is no classifier",
    ),
}
"""By the class path of a recipe's model. New rows go to the end: of several of one ``model``, an
import names the first, and its ``only`` is said."""


def kind_of(config: Mapping[str, Any]) -> Kind | None:
    """Find what a recipe trains; a task that is not in ``TASKS`` is known by its arguments."""
    node = config.get("model")
    name = node.get("class_path") if isinstance(node, Mapping) else None
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    args = init_args_of(node)
    fitting = [kind for kind in TASKS.values() if all(need in args for need in kind.needs)]
    return max(fitting, key=lambda kind: len(kind.needs), default=None)


def trains(config: Mapping[str, Any], model: type[nn.Module]) -> bool:
    """Tell whether a recipe trains a model of this class."""
    kind = kind_of(config)
    return kind is not None and kind.model is model


def build(config: Mapping[str, Any], wanted: type[ModelT]) -> ModelT:
    """Build the model of a recipe, with fresh weights.

    Args:
        config: A recipe as ``vmm fit`` saves it.
        wanted: As for ``load_model``.

    Raises:
        ValueError: If it describes no such model, or names a class or setting that vmm's models
            do not have.
    """
    if wanted is VideoEncoder:
        return build_node(init_args_of(config.get("model")).get("video_encoder"), wanted)
    own = next(kind for kind in TASKS.values() if kind.model is wanted)
    found = kind_of(config) or own
    if found.model is not wanted or found.build is None:
        raise ValueError(f"the run is {found.what}; {own.only}")
    args = init_args_of(config.get("model"))
    for need in found.needs:
        if need not in args:
            raise ValueError(f"the run's recipe has no model.init_args.{need}; {own.only}")
    model = found.build(args)
    assert isinstance(model, wanted)
    return model


def _clip_settings(data: Mapping[str, Any], encoder: VideoEncoder) -> ClipSettings:
    """Read how evaluation makes a clip off the recipe's data node."""
    names = ["num_frames", "image_size", "mean", "std"]
    names += ["sampling", "fps", "stride", "fit", "crop_pct", "interpolation", "antialias"]
    own = {"num_frames": encoder.num_frames, "image_size": encoder.image_size}
    stated = {name: data[name] for name in names if data.get(name) is not None}
    return clip_settings(own | stated)


def clip_settings(values: Mapping[str, Any]) -> ClipSettings:
    """Make the settings of clips of what a file says.

    Raises:
        ValueError: If a value is of another type or out of range.
    """
    tuples = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
    return make(ClipSettings, {**values, **tuples})


def _chosen(kept: list[Path], newest: Path) -> Path:
    """Ask the newest checkpoint which of several kept ones validation liked best."""
    content = load_plain(newest, map_location="meta", mmap=True)
    try:
        callbacks = content["callbacks"].values()
        best = {Path(state["best_model_path"]).name for state in callbacks if "monitor" in state}
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{newest} is not a checkpoint of `vmm fit`: {error}") from error
    named = [path for path in kept if path.name in best]
    if len(named) != 1:
        names = ", ".join(path.name for path in kept)
        raise ValueError(f"cannot tell which of {names} is the best checkpoint; name one")
    return named[0]


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file, or of the names and sums of a folder, as hexadecimal digits."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        listed = [f"{file.relative_to(path)} {sha256(file)}" for file in inside]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
