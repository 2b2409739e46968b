"""What a run is, said once before it trains: data, model, what is trained, how many steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import lightning as L
from torch import nn

from vmm.data.corpora import Mixture
from vmm.data.datamodules import run_folder
from vmm.data.resampled import ResampledStream
from vmm.data.shards import EvaluationClips, ShardSet
from vmm.data.stream import TrainStream
from vmm.tasks.base import TrainingTask
from vmm.text_output import number_of

logger = logging.getLogger(__name__)


class Introduction(L.Callback):
    """Says what is about to be trained, on what, and for how long."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it, if there is something to train."""
        folder, total = run_folder(trainer), trainer.estimated_stepping_batches
        if not isinstance(pl_module, TrainingTask) or trainer.global_step >= total:
            return
        said = [("run", "kept nowhere" if folder is None else str(folder))]
        said += [*_data(trainer), *_model(pl_module), *_plan(trainer)]
        if trainer.is_global_zero:
            for name, text in said:
                logger.info("%-11s %s", f"{name}:", text)


def _data(trainer: L.Trainer) -> Iterator[tuple[str, str]]:
    """Say what it learns from and is measured on, and what of it is left out."""
    stream = getattr(trainer.train_dataloader, "stream", None)
    left_out = []
    if isinstance(stream, TrainStream):
        for mixture in stream.sources.values():
            for text in _corpora(mixture):
                yield "data", text
            left_out += [_left_out(own) for own in mixture.sets]
    elif isinstance(stream, ResampledStream):
        yield "data", "remote shards, drawn with replacement; their samples are not counted"
    loaders: Any = trainer.val_dataloaders
    batches: Any = trainer.num_val_batches
    for number, loader in enumerate(loaders if isinstance(loaders, list) else [loaders]):
        clips = getattr(loader, "dataset", None)
        if isinstance(clips, EvaluationClips):
            few = f"; {batches[number]:,} of {number_of(len(loader), 'batch', 'batches')}"
            few = few if batches[number] < len(loader) else ""
            yield "validation", f"{_samples(clips.samples)}{few}"
            left_out.append(_left_out(clips.samples))
    faults = [text for text in left_out if text]
    if left_out:
        yield "left out", "; ".join(faults) or "nothing"


def _corpora(mixture: Mixture) -> Iterator[str]:
    for name, own, weight in zip(mixture.names, mixture.sets, mixture.weights, strict=True):
        times = "" if weight == 1 else f", {weight:g} times a pass"
        yield f"{name}{name and ': '}{_samples(own)}{times}"


def _samples(own: ShardSet) -> str:
    shards = number_of(len(own.paths), "shard")
    return f"{number_of(len(own), own.media)} of {own.named} ({shards})"


def _left_out(own: ShardSet) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(own.skipped.items()))
    return f"{reasons} in {own.named}" if reasons else ""


def _model(task: TrainingTask) -> Iterator[tuple[str, str]]:
    """Say what is trained, what is frozen, and where it starts from."""
    encoder, model = task.video_encoder, task.model
    frames = number_of(encoder.num_frames, "frame")
    size = f"{frames} of {encoder.image_size} x {encoder.image_size} pixels"
    yield (
        "model",
        f"{type(model).__name__}, {in_millions(_count(model))} parameters; "
        f"{type(encoder).__name__} of width {encoder.embed_dim} sees {size}",
    )
    parts = {name: [*part.parameters()] for name, part in model.named_children()}
    parts |= {name: [own] for name, own in model.named_parameters(recurse=False)}
    trained: list[str] = []
    frozen: list[str] = []
    unread: list[str] = []
    fixed = task.fixed.parameters if task.fixed else set()
    for name, parameters in parts.items():
        kinds: tuple[tuple[list[str], list[nn.Parameter]], ...] = (
            (trained, [p for p in parameters if p.requires_grad]),
            (frozen, [p for p in parameters if not p.requires_grad and p in fixed]),
            (unread, [p for p in parameters if not p.requires_grad and p not in fixed]),
        )
        for named, those in kinds:
            if those:
                named.append(f"{name} ({in_millions(sum(map(_size, those)))})")
    teacher = getattr(task, "teacher", None)
    if isinstance(teacher, nn.Module):
        frozen.append(f"the teacher ({in_millions(_count(teacher))})")
    yield "trained", ", ".join(trained)
    yield "frozen", ", ".join(frozen) or "nothing"
    if unread:
        yield "untrained", f"{', '.join(unread)}, which no loss of this recipe reaches"
    if task.init_from is not None:
        yield "starts from", task.init_from


def _plan(trainer: L.Trainer) -> Iterator[tuple[str, str]]:
    """Say how long it trains, with how much at once."""
    total, done = trainer.estimated_stepping_batches, trainer.global_step
    steps = "until it is stopped" if total == math.inf else f"{total:,}"
    if done:
        steps += f", of which {done:,} are done"
    stream = getattr(trainer.train_dataloader, "stream", None)
    sizes = stream.batch_sizes if isinstance(stream, TrainStream | ResampledStream) else {}
    each = trainer.world_size * trainer.accumulate_grad_batches
    there = stream.sources if isinstance(stream, TrainStream) else sizes
    batch = " or ".join(number_of(each * n, media) for media, n in sizes.items() if media in there)
    processes = number_of(trainer.world_size, "process", "processes")
    device = trainer.strategy.root_device.type
    of = f", each of {batch}" if batch else ""
    yield "steps", f"{steps}{of}; {processes} on {device}, precision {trainer.precision}"


def _size(parameter: nn.Parameter) -> int:
    """Count the values of a parameter, also of one that DeepSpeed keeps in parts."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _count(module: nn.Module) -> int:
    return sum(map(_size, module.parameters()))


def in_millions(count: int) -> str:
    """Say how many parameters there are."""
    return f"{count:,}" if count < 10_000 else f"{count / 1e6:,.2f} M"
