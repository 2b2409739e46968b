"""What ``vmm summary`` says of a recipe or a run; its weights and data are not loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from torch import Tensor, nn

from vmm.data.corpora import open_corpora, patterns_of
from vmm.data.patterns import is_remote
from vmm.data.stream import TrainStream
from vmm.drawing import uniform_rows
from vmm.masking import Patches, draw_mask
from vmm.models.answer import AnswerModel
from vmm.models.classifier import VideoClassifier
from vmm.models.costs import (
    Cost,
    Like,
    all_multiply_adds,
    answer_side,
    measure,
    published_multiply_adds,
    text_side,
)
from vmm.models.masked_student import MaskedStudent
from vmm.models.recipe_nodes import class_of
from vmm.models.run_text import with_own_text
from vmm.models.teacher import Teacher
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.runs import IMPORTED_WEIGHTS, build, kind_of, read_config
from vmm.settings import class_paths, make
from vmm.tasks.base import TrainingTask
from vmm.tasks.loss_terms import LossWeights
from vmm.tasks.own_text import has_own_text
from vmm.tasks.pretraining import PretrainTask
from vmm.tasks.video_text import VideoTextTask
from vmm.text_output import number_of
from vmm.trainer_cli import VmmCLI, run

_HOW_KEPT = (
    "what backward needs of forward on a CPU, counted on tensors without numbers, times the share "
    "of the tokens that is visible; heads of the model, and an answer per question as long as a "
    "caption, are in it; heads of a training loss, losses, weights, gradients and moments are not"
)

_OURS = ("vmm.", "torch.optim.", "lightning.")
"""How the classes of a run begin that are looked up."""


class _Described(VmmCLI):
    """Parses a recipe and builds the task and its data, but no trainer: its devices may be away."""

    def before_instantiate_classes(self) -> None:
        """Leave out what only a trainer wants."""
        trainer = self.config[self.subcommand]["trainer"]
        self.planned = dict(trainer)
        for name in ("strategy", "logger", "callbacks", "plugins", "profiler"):
            trainer[name] = None

    def run_behind(self, settings: Namespace) -> Path | None:
        """The run whose recipe is described."""
        recipes = settings.get("config") or []
        folders = [Path(path).parent for path in recipes]
        return next(filter(has_own_text, folders), None)

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Nothing is run."""
        return None  # type: ignore[return-value]

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run, and nothing written."""


def summarize(words: Sequence[str]) -> dict[str, Any]:
    """Describe a recipe or a run.

    Args:
        words: A run directory, or options as after ``vmm fit``.

    Returns:
        What ``vmm summary --json`` prints.

    Raises:
        ValueError: If the recipe cannot be built, or the folder is no run or names foreign classes.
    """
    if words and not words[0].startswith("-") and not words[0].endswith((".yaml", ".yml")):
        folder = Path(words[0])
        config = read_config(folder)
        if (folder / IMPORTED_WEIGHTS).is_file():
            return _describe_imported(with_own_text(config, folder))
        strange = [name for name in class_paths(config) if not name.startswith(_OURS)]
        if strange:  # to look one up imports its module, which is code
            raise ValueError(
                f"{folder} names {strange[0]!r}, which is not part of vmm, torch or lightning; if "
                f"you trust it: vmm summary -c {folder}/config.yaml"
            )
        words = ["-c", str(folder / "config.yaml"), *words[1:]]
    with torch.device("meta"):
        built = run(["fit", *words], _Described)
        assert isinstance(built, _Described) and isinstance(built.model, TrainingTask)
        teacher = getattr(built.model, "teacher", None)
        if isinstance(teacher, Teacher):
            teacher.build()
    # The datamodule asks its trainer's task for the frames and the size of a clip.
    built.datamodule.trainer = SimpleNamespace(lightning_module=built.model)
    return _describe_task(built.model, built.datamodule, built.planned)


def _describe_imported(config: dict[str, Any]) -> dict[str, Any]:
    """Describe what ``vmm import`` wrote; of stage 1, which is of no use alone, the encoder."""
    kind = kind_of(config)
    with torch.device("meta"):
        if kind is not None and kind.build is not None:
            model = build(config, kind.model)
        else:
            node = (config.get("model") or {}).get("init_args", {}).get("video_encoder")
            cls = class_of(node, VideoEncoder)  # type: ignore[type-abstract]
            model = nn.ModuleDict({"video_encoder": make(cls, node.get("init_args", {}))})
    return _describe_model(model)


def _describe_model(model: nn.Module) -> dict[str, Any]:
    encoder = model.video_encoder
    assert isinstance(encoder, VideoEncoder)
    parts = _parameters(model)
    return {
        "encoder": _sizes(encoder),
        "parameters": {"parts": parts, "total": _count(model.parameters())},
        "tokens": {"video": {"all": _length(encoder)}},
        "multiply_adds_per_view": {"video_encoder": _multiply_adds(encoder)},
    }


def _describe_task(task: TrainingTask, data: Any, trainer: dict[str, Any]) -> dict[str, Any]:
    summary = _describe_model(task.model) | {"task": type(task).__name__}
    encoder, teacher = task.video_encoder, getattr(task, "teacher", None)
    task.adapt()
    unread = task.unread_parameters()
    trained = [p for p in task.model.parameters() if p.requires_grad and p not in unread]
    summary["parameters"]["trained"] = _count(trained)
    summary["tokens"] = {media: _tokens(task, media) for media in ("video", "image")}
    if teacher is not None:
        summary["parameters"]["teacher"] = _count(teacher.parameters())
        cost = measure(teacher, lambda module, clip: module(clip), [_clip(encoder, 1)])
        summary["multiply_adds_per_view"]["teacher"] = {"all": cost.multiply_adds}
    batch = getattr(data, "batch_size", None)
    if batch is not None:
        batch *= data.clip_settings().aug_repeats
    precision = str(trainer.get("precision") or "32-true")
    summary["activations"] = _activations(task, batch, precision)
    summary["epoch"] = _epoch(task, data, trainer)
    return summary


def _sizes(encoder: VideoEncoder) -> dict[str, Any]:
    names = ("embed_dim", "num_frames", "image_size", "patch_size", "tubelet_size")
    return {"class": type(encoder).__name__} | {name: getattr(encoder, name) for name in names}


def _count(parameters: Iterator[nn.Parameter] | list[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _parameters(model: nn.Module) -> dict[str, int]:
    """Count the parameters of every part; of the video encoder's parts, too."""
    parts: dict[str, int] = {}

    def add(module: nn.Module, prefix: str, deeper: bool) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parts[prefix + name] = parameter.numel()
        for name, child in module.named_children():
            size = _count(child.parameters())
            if size:
                parts[prefix + name] = size
            if deeper and isinstance(child, VideoEncoder):
                add(child, f"{prefix}{name}.", deeper=False)

    add(model, "", deeper=True)
    return parts


def _length(encoder: VideoEncoder, num_frames: int | None = None) -> int:
    """Count the tokens of a clip, the class token included."""
    frames = encoder.num_frames if num_frames is None else num_frames
    return 1 + max(1, frames // encoder.tubelet_size) * encoder.num_patches


def _clip(encoder: VideoEncoder, batch: int) -> Like:
    side = encoder.image_size
    return Like((batch, encoder.num_frames, 3, side, side))


def _multiply_adds(encoder: VideoEncoder) -> dict[str, int | None]:
    published = None
    if isinstance(encoder, VideoMamba):
        published = published_multiply_adds(encoder, encoder.num_frames, encoder.image_size)
    return {"as_published": published, "all": all_multiply_adds(encoder, _clip(encoder, 1))}


def _tokens(task: TrainingTask, media: str) -> dict[str, Any]:
    """Count the tokens of a clip or a still, and those that a mask leaves visible in training."""
    encoder = task.video_encoder
    frames = encoder.num_frames if media == "video" else encoder.tubelet_size
    tokens: dict[str, Any] = {"all": _length(encoder, frames)}
    mask = getattr(task, "masks", {}).get(media)
    if mask is not None and mask.kind != "none":
        side, steps = encoder.image_size // encoder.patch_size, frames // encoder.tubelet_size
        patches = Patches(1, steps, side, side, torch.ones(1, steps, side * side))
        dropped = draw_mask(mask.kind, patches, mask.ratio, partial(uniform_rows, [0]))
        assert dropped is not None
        tokens |= {"visible": int((~dropped).sum()), "mask": mask.kind, "ratio": mask.ratio}
    return tokens


def _activations(task: TrainingTask, batch: int | None, precision: str) -> dict[str, Any]:
    """Count what a step of one process keeps, for any batch and for each of its samples."""
    half = precision.startswith(("bf16", "16"))
    types: dict[str, Any] = {
        "weights": torch.bfloat16 if half and precision.endswith("true") else torch.float32,
        "autocast": torch.bfloat16 if half and precision.endswith("mixed") else None,
    }
    task.train()
    model, encoder = task.model, task.video_encoder
    taps = isinstance(task, PretrainTask) and task.teacher is not None

    def see(module: nn.Module, clip: Tensor) -> object:
        if isinstance(module, VideoClassifier | MaskedStudent):  # with its head
            return module(clip)
        own = module.video_encoder
        assert isinstance(own, VideoEncoder)
        return own(clip, with_taps=taps)

    one, two = (measure(model, see, [_clip(encoder, n)], **types).kept for n in (1, 2))
    counts = _tokens(task, "video")
    share = counts.get("visible", counts["all"]) / counts["all"]
    parts = {"video_encoder": round(share * (two - one))}
    fixed = 2 * one - two
    weights = task.loss_weights if isinstance(task, VideoTextTask) else LossWeights(0, 0, 0, 0)
    visible = counts.get("visible", counts["all"]) - 1
    costs: tuple[Cost, ...] = ()
    if isinstance(model, VideoTextModel) and (weights.vtm or weights.mlm):
        terms = bool(weights.vtm), bool(weights.mlm)
        costs = tuple(text_side(model, n, visible, *terms, types) for n in (1, 2))
    elif isinstance(model, AnswerModel):
        costs = tuple(answer_side(model, n, visible, types) for n in (1, 2))
    if costs:
        first, second = (cost.kept for cost in costs)
        parts["text_encoder"] = second - first
        fixed += 2 * first - second
    each = sum(parts.values())
    micro = getattr(task, "micro_batch", None)
    at_once = batch if micro is None or batch is None else min(batch, micro)
    return {
        "bytes_per_sample": parts,
        "bytes_of_any_batch": max(0, fixed),
        "samples_at_once": at_once,
        "bytes": None if at_once is None else max(0, fixed) + each * at_once,
        "precision": precision,
        "how": _HOW_KEPT,
    }


def _epoch(task: TrainingTask, data: Any, trainer: dict[str, Any]) -> dict[str, Any]:
    """Count the steps and samples of an epoch, all processes together."""
    processes = _processes(trainer)
    named = {"video": "train_videos", "image": "train_images"}
    batch = getattr(data, "batch_size", None)
    sources = {m: s for m, n in named.items() if batch and (s := getattr(data, n, None))}
    stills = getattr(data, "image_batch_size", None)
    sizes: Any = {"video": batch, "image": batch if stills is None else stills}
    epoch: dict[str, Any] = {
        "processes": processes,
        "samples_per_step": {media: processes * sizes[media] for media in sources},
        "accumulate_grad_batches": trainer.get("accumulate_grad_batches") or 1,
        "batches": getattr(data, "steps_per_epoch", None),
        "epochs": trainer.get("max_epochs"),
    }
    if not sources:
        return epoch | {"unknown": "the recipe names no training shards"}
    if any(is_remote(p) for shards in sources.values() for p in patterns_of(shards)):
        return epoch | {"unknown": "the shards are remote"}
    try:
        mixtures = open_corpora(sources, 0)  # type: ignore[arg-type]
        stream = TrainStream(
            mixtures,
            sizes,
            data.clip_settings(),
            world_size=processes,
            steps_per_epoch=epoch["batches"],
        )
    except ValueError as error:
        return epoch | {"unknown": str(error)}
    samples = {media: mixture.size for media, mixture in mixtures.items()}
    steps = math.ceil(len(stream) / epoch["accumulate_grad_batches"])
    return epoch | {"batches": len(stream), "steps": steps, "samples": samples}


def _processes(trainer: dict[str, Any]) -> int:
    """Tell how many processes a recipe trains on; where it leaves that open, those of here."""
    devices = trainer.get("devices")
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    if isinstance(devices, list):
        devices = len(devices)
    if not isinstance(devices, int) or devices < 1:
        devices = max(1, torch.cuda.device_count())
    return devices * int(trainer.get("num_nodes") or 1)


def in_words(summary: dict[str, Any]) -> Iterator[str]:
    """Say it in lines."""
    encoder, parameters = summary["encoder"], summary["parameters"]
    yield (
        f"{summary.get('task', 'imported')}: {encoder['class']} of width {encoder['embed_dim']}, "
        f"{encoder['num_frames']} frames of {encoder['image_size']} pixels"
    )
    yield ""
    for name, size in parameters["parts"].items():
        indent = "  " * name.count(".")
        yield f"{indent}{name.rpartition('.')[2]:<{34 - len(indent)}}{size:>14,}"
    for name in ("total", "trained", "teacher"):
        if name in parameters:
            label = {"teacher": "the teacher, frozen", "trained": "of these a loss reaches"}
            yield f"{label.get(name, 'parameters'):<34}{parameters[name]:>14,}"
    yield ""
    for media, counts in summary["tokens"].items():
        seen = f", {counts['visible']:,} visible in training" if "visible" in counts else ""
        yield f"tokens of {'a clip' if media == 'video' else 'a still'}: {counts['all']:,}{seen}"
    for name, counted in summary["multiply_adds_per_view"].items():
        published = counted.get("as_published")
        ways = [] if published is None else [f"{published / 1e9:.4g} as published"]
        ways.append(f"{counted['all'] / 1e9:.4g} all of it")
        yield f"GFLOPs (multiply-adds) of a view, {name}: {', '.join(ways)}"
    if "activations" in summary:
        yield from _training_lines(summary["activations"], summary["epoch"])


def _training_lines(kept: dict[str, Any], epoch: dict[str, Any]) -> Iterator[str]:
    each = ", ".join(f"{n} {size / 2**20:,.0f} MiB" for n, size in kept["bytes_per_sample"].items())
    yield ""
    yield f"activations of a sample, {kept['precision']}: {each}"
    if kept["bytes"] is not None:
        at_once = f"{kept['samples_at_once']:,} at once"
        yield f"activations of a step, {at_once}: about {kept['bytes'] / 2**30:,.2f} GiB"
    yield f"({kept['how']})"
    step = " or ".join(number_of(n, media) for media, n in epoch["samples_per_step"].items())
    processes = number_of(epoch["processes"], "process", "processes")
    yield f"a batch, {processes}: {step or 'not known'}"
    if "steps" in epoch:
        samples = ", ".join(number_of(n, media) for media, n in epoch["samples"].items())
        batches = number_of(epoch["batches"], "batch", "batches")
        yield f"an epoch: {batches}, {number_of(epoch['steps'], 'step')}"
        yield f"the shards hold: {samples}"
    else:
        batches = epoch["batches"]
        known = "" if batches is None else number_of(batches, "batch", "batches") + "; "
        yield f"an epoch: {known}samples not known: {epoch['unknown']}"
