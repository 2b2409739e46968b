"""``vmm init``: a short recipe for somebody's own shards, and what to type next."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from vmm.command_line import CommandParser, whole
from vmm.starting.classes import LabelledPart, find_classes, look_at_classes, unseen
from vmm.starting.corpus import Part, find_parts, look_at_captions
from vmm.starting.starts import Start, Wanted, classifier_from, start_from
from vmm.text_output import number_of, say
from vmm.whole import whole_file

_BATCH, _LARGE_BATCH, _LARGE = 64, 32, 128
"""Clips of a step; of frames of more than ``_LARGE`` pixels."""
_LEAST_STEPS, _LEAST_FROM_NOTHING, _USUAL_STEPS, _USUAL_PASSES = 100, 300, 2000, 20
_VALIDATIONS = 8
_LOGS = 10
_MOST_REPEATED = 0.5
_TELLING = 10
"""Validation clips that tell a better state from a worse one."""
_WIDTH = 80
_NAMED = 5

Parts = Mapping[str, Part] | Mapping[str, LabelledPart]
"""By name, as ``find_parts`` gives them."""


@dataclass(frozen=True)
class Length:
    """How long to train.

    Attributes:
        batch_size: Clips of a step.
        epoch_steps: From one validation to the next.
        epochs: So many of these.
    """

    batch_size: int
    epoch_steps: int
    epochs: int

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epoch_steps * self.epochs


def choose_length(
    clips: int, image_size: int, steps: int | None = None, least: int = _LEAST_STEPS
) -> Length:
    """Choose what suits so many clips.

    A batch is half of the clips at most, so that each step mixes them anew; few clips are seen
    often, many seldom, as validation keeps the best state of either.

    Args:
        clips: To train on, at least two.
        image_size: Of the frames, pixels.
        steps: Wanted, about; None = by the number of clips.
        least: Steps of few clips.

    Raises:
        ValueError: If there are too few.
    """
    if clips < 2:
        raise ValueError(
            f"there is {clips} clip to train on, and a caption is learnt by telling its clip from "
            "others; give at least 2, better some hundred"
        )
    largest = _BATCH if image_size <= _LARGE else _LARGE_BATCH
    batch = max(2, min(largest, clips // 2))
    a_pass = max(1, clips // batch)
    usual = max(least, a_pass, min(_USUAL_PASSES * a_pass, _USUAL_STEPS))
    wanted = steps or usual
    epochs = min(_VALIDATIONS, wanted)
    return Length(batch, -(-wanted // epochs), epochs)


def write_recipe(out: Path, parts: Parts, start: Start, length: Length, command: str) -> None:
    """Write the recipe, whole or not at all; see ``refuse_existing``."""
    model = {name: start.model[name] for name in _FIRST if name in start.model} | start.model
    model |= {"warmup_steps": max(1, length.steps // 10), "min_lr_ratio": 0.01}
    data: dict[str, Any] = {
        "train_videos": parts["train"].shards,
        "val_videos": parts["validation"].shards,
    }
    data |= {"test_videos": parts["test"].shards} if "test" in parts else {}
    data |= (
        {
            "batch_size": length.batch_size,
            "steps_per_epoch": length.epoch_steps,
            "num_workers": 2 if (os.cpu_count() or 1) > 2 else 0,
        }
        | ({} if "content" in start.clip else {"positives": "caption"})
        | start.clip
    )
    counted = ", ".join(f"{part.clips} {name}" for name, part in parts.items())
    text = f"""\
# Written by: {command}
# Clips: {counted}. Train:
#   vmm fit -c {shlex.quote(str(out))}
# Every other setting: vmm fit --help; what is trained and what it costs: vmm summary -c {out.name}
seed_everything: 42
trainer:
  accelerator: auto
  devices: 1
  max_epochs: {length.epochs}  # of steps_per_epoch steps; after each it validates
  log_every_n_steps: {max(1, min(_LOGS, length.epoch_steps))}
  gradient_clip_val: 1.0
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {{save_dir: runs, name: {_flow(out.stem)}}}
{_checkpoint(parts["validation"].clips, start.monitor)}model:
  class_path: {start.task}
  init_args:
{_block(model, 4, _REMARKS)}
data:
  class_path: vmm.data.datamodules.WebVideoData
  init_args:
{_block(data, 4, _REMARKS)}
"""
    with whole_file(out) as file:
        file.write_text(text, encoding="utf-8")


def _checkpoint(clips: int, monitor: tuple[str, str]) -> str:
    """Say which state is kept; without a word, Lightning keeps the last one."""
    if clips < _TELLING:
        return ""
    curve, mode = monitor
    return f"""\
# Of all validations the state is kept that has the best {curve}, not the last one.
checkpoint: {{monitor: {curve}, mode: {mode}}}
"""


_FIRST = ("init_from", "init_parts", "video_encoder", "num_classes", "classes", "text_encoder")
_REMARKS = {
    "init_from": "the weights it starts from",
    "init_parts": "the others begin anew",
    "freeze": "stays as it is",
    "text_lr_ratio": "of the text encoder, times lr",
    "batch_size": "clips of a step; at most the training clips",
    "content": "what goes with a clip: its class",
    "positives": "clips of equal captions are not each other's negatives",
    "num_workers": "processes that decode beside; 0: none",
}


def _block(settings: dict[str, Any], indent: int, remarks: dict[str, str]) -> str:
    """Write settings a line each; those of classes in two or more."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict) and "class_path" in value:
            lines += [f"{name}:", f"  class_path: {value['class_path']}"]
            inner = f"init_args: {_flow(value.get('init_args') or {})}"
            lines += [f"  {line}" for line in inner.splitlines()]
        else:
            remark = f"  # {remarks[name]}" if name in remarks else ""
            lines.append(f"{name}: {_flow(value)}{remark}")
    return "\n".join(" " * indent + line for line in lines)


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=_WIDTH, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...").replace("\n", "\n  ")


def refuse_existing(out: Path) -> None:
    """Refuse to write over something, or where nothing can be written.

    Raises:
        ValueError: With the remedy.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"{out} is no name of a recipe; let it end in .yaml")
    if out.exists():
        raise ValueError(f"{out} exists; remove it, or name another file with -o")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or name another file with -o")


def next_commands(out: Path, parts: Parts, start: Start) -> list[str]:
    """Give what to type next, from measuring the start to an index for search."""
    from vmm.evaluation.common.run_page import commands_after  # loads torch

    runs, test = Path("runs") / out.stem, (parts.get("test") or parts["validation"]).shards
    run, shards = runs / "version_0", test if isinstance(test, str) else test[0]
    classes = start.task.endswith("ClassificationTask")
    model = "VideoClassifier" if classes else "VideoTextModel"
    measure, *others = (command for _, command in commands_after(model, run, shards))
    listed = [f"vmm fit -c {shlex.quote(str(out))}", measure]
    if start.before and not classes:
        before = shlex.quote(str(runs / "before"))
        data = f"--shards {shlex.quote(shards)} --out {before} --name before"
        listed.insert(0, f"vmm eval retrieval {start.before} {data}")
        listed.append(f"vmm eval compare {before} {shlex.quote(str(run / 'after'))}")
    return [*listed, *others]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="vmm init",
        description="Write a short recipe that trains a model on your own shards: one that finds "
        "clips by their captions, or a classifier.",
    )
    add = parser.add_argument
    help_text = "the folder that `vmm shards make --split 80/10/10` wrote, or shards to train on"
    add("shards", nargs="+", help=help_text)
    add("-o", "--out", type=Path, required=True, help="recipe to write, .yaml")
    add("--from", dest="start", required=True, metavar="START",
        help="a run of `vmm fit` or folder of `vmm import`; open_clip:NAME:PRETRAINED, e.g. "
        "open_clip:ViT-B-32-quickgelu:openai; or nothing")  # fmt: skip
    add("--task", choices=("retrieval", "classification"), default="retrieval",
        help="what is learnt: captions (default), or the one class of each clip")  # fmt: skip
    add("--validation", metavar="SHARDS", help="shards to validate on, if not in the folder")
    add("--test", metavar="SHARDS", help="shards to test on, if not in the folder")
    add("--text", metavar="NAME",
        help="text encoder where START has none that knows the words: a model of transformers "
        "(default: MiniLM, from the hub), its folder, or words: a small one of these captions' "
        "words, which needs no network")  # fmt: skip
    add("--class-field", metavar="FIELD",
        help="of classification: field of the JSON in shards (default: where `vmm shards make` "
        "writes the class)")  # fmt: skip
    add("--steps", type=whole(1), help="training steps, made up to equal times between "
        "eight validations (default: by the number of clips)")  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """``vmm init``; returns the exit status."""
    given = _parser().parse_args(argv)
    refuse_existing(given.out)
    make = _for_classes if given.task == "classification" else _for_retrieval
    parts, start = make(given)
    train = parts["train"]
    least = _LEAST_STEPS if start.before else _LEAST_FROM_NOTHING
    length = choose_length(train.clips, start.image_size, given.steps, least)
    command = shlex.join(["vmm", "init", *argv])
    write_recipe(given.out, parts, start, length, command)
    if parts["validation"].clips < _TELLING:
        say("validation has too few clips to tell which state is best, so the last one is kept")
    for sentence in start.said:
        say(sentence)
    passes = max(1, round(length.steps * length.batch_size / train.clips))
    steps = f"{number_of(length.steps, 'step')} of {number_of(length.batch_size, 'clip')}"
    say(f"{given.out}: {steps}, about {number_of(passes, 'pass', 'passes')} over them. Next:")
    for line in next_commands(given.out, parts, start):
        say(f"  {line}")
    return 0


def _for_retrieval(given: argparse.Namespace) -> tuple[Parts, Start]:
    """Look at the captions, and at what is to learn them."""
    if given.class_field is not None:
        raise ValueError("--class-field is for classes; add --task classification, or leave it out")
    parts = find_parts(given.shards, given.validation, given.test, look_at_captions)
    train = parts["train"]
    choose_length(train.clips, 1)  # or refuse before anything is written
    beside = given.out.with_suffix("")
    start = start_from(given.start, Wanted(train.clips, train.captions, given.text, beside))
    for name, part in parts.items():
        without = f", {part.without_caption} more without caption" * bool(part.without_caption)
        say(f"{name}: {number_of(part.clips, 'clip')} with captions{without}")
    if train.repeated > _MOST_REPEATED:
        say(
            f"{train.repeated:.0%} of the captions stand at several clips: training counts these "
            "as right for each other; if they are classes, add --task classification"
        )
    return parts, start


def _for_classes(given: argparse.Namespace) -> tuple[Parts, Start]:
    """Look at the labels, and at what is to learn them."""
    if given.text is not None:
        raise ValueError("--text names a text encoder, and a classifier has none; leave it out")
    look = partial(look_at_classes, field=given.class_field)
    parts = find_parts(given.shards, given.validation, given.test, look)
    choose_length(parts["train"].clips, 1)
    classifier_from(given.start, 2, None, None)  # or refuse before anything is written
    beside = given.out.with_suffix("")
    names = beside.with_name(beside.name + "_classes.txt")
    count, listed = find_classes(parts, names)
    written = None if listed is None else str(listed)
    start = classifier_from(given.start, count, written, given.class_field)
    for name, part in parts.items():
        without = len(part.truths) - part.clips
        clips = number_of(part.clips, "clip")
        say(f"{name}: {clips} with a class" + f", {without} more without" * bool(without))
    say(number_of(count, "class", "classes") + f", their names in {listed}" * bool(listed))
    if missing := unseen(parts):
        some = ", ".join(missing[:_NAMED]) + ", ..." * (len(missing) > _NAMED)
        say(f"training has no clip of {some}: what it never sees it cannot learn")
    return parts, start
