"""What Lightning's trainer takes and should not, found before anything is built."""

from __future__ import annotations

import logging
import re
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from vmm.tasks.checkpoint_io import SafeCheckpointIO
from vmm.tasks.loggers import check_logger
from vmm.tasks.strategies import check_machines, check_strategy

logger = logging.getLogger(__name__)


def check_trainer(command: str, settings: Namespace) -> None:
    """Refuse settings of the trainer that Lightning takes and that end in nothing or in a crash.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        settings: Of the recipe's trainer.

    Raises:
        ValueError: With the setting and the remedy.
    """
    needs_folder = command in ("fit", "predict") and not settings["fast_dev_run"]
    if settings["logger"] is False and needs_folder:
        raise ValueError(
            "trainer.logger is false, and a run keeps its checkpoints, recipe and embeddings in "
            "the logger's folder; leave the logger on"
        )
    if settings["default_root_dir"] is not None and settings["logger"] is not False:
        raise ValueError(
            f"trainer.default_root_dir is {settings['default_root_dir']}, and a run goes where its "
            "logger writes; set trainer.logger.init_args.save_dir"
        )
    check_logger(settings["logger"])
    check_strategy(settings["strategy"])
    check_machines(settings["num_nodes"], settings["plugins"])
    if settings["barebones"]:
        raise ValueError(
            "trainer.barebones switches off the logger and the checkpoints, which a run needs; "
            "leave it out, and measure with the curves of speed in metrics.csv"
        )
    limit = {"fit": "train", "validate": "val"}.get(command, command)
    ends = ("max_epochs", "max_steps", "max_time") if command == "fit" else ()
    for name in (f"limit_{limit}_batches", *ends):
        if settings[name] == 0 or re.fullmatch("[0:]+", str(settings[name])):
            raise ValueError(f"trainer.{name} is 0, so there is nothing to do; set it above 0")
    for name in ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch"):
        value = settings[name]
        if isinstance(value, int | float) and value <= 0:
            raise ValueError(f"trainer.{name} is {value}; set it above 0, or leave it out")
    lowest = {"num_sanity_val_steps": -1, "log_every_n_steps": 0, "min_epochs": 0, "min_steps": 0}
    for name, low in lowest.items():
        if (settings[name] or 0) < low:
            raise ValueError(f"trainer.{name} is {settings[name]}; set it to {low} or more")
    if (settings["gradient_clip_val"] or 0) < 0:
        raise ValueError("trainer.gradient_clip_val is below 0; null does not clip")


def say_of_precision(asked: Any, trainer: L.Trainer) -> None:
    """Say that a CPU trains in another precision than was asked for.

    Args:
        asked: ``trainer.precision``.
        trainer: Made with it.
    """
    if str(asked) in ("16-mixed", "16") and trainer.precision == "bf16-mixed":
        logger.info("trainer.precision %s is bf16-mixed on a CPU", asked)


def with_safe_files(plugins: Any) -> list[Any]:
    """Keep the way in which checkpoints are written where other plugins are named.

    Args:
        plugins: ``trainer.plugins``, one or a list or none.
    """
    named = list(plugins) if isinstance(plugins, list) else [plugins] if plugins else []
    if any(isinstance(plugin, CheckpointIO) for plugin in named):
        return named
    return [*named, SafeCheckpointIO()]


def refuse_finders(callbacks: Any) -> None:
    """Refuse what Lightning finds for models that are made otherwise.

    Raises:
        ValueError: With what to use instead.
    """
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, LearningRateFinder):
            raise ValueError(
                "trainer.callbacks has Lightning's LearningRateFinder, which gives all parameters "
                "one rate; find it with -c recipes/overlays/find_lr.yaml"
            )
        if isinstance(callback, BatchSizeFinder):
            raise ValueError(
                "trainer.callbacks has Lightning's BatchSizeFinder, which leaves files in the "
                "working folder; try sizes with data.init_args.batch_size, and take "
                "model.init_args.micro_batch for more than memory holds"
            )


_OF_MACHINES = re.compile("accelerator|device|strategy|gpu|cuda|xla", re.IGNORECASE)


def refusal(error: Exception) -> ValueError:
    """Put into one sentence why Lightning makes no trainer of its settings."""
    said = " ".join(str(error).split())
    where = " (trainer.accelerator auto with trainer.devices 1 always does)"
    remedy = where if _OF_MACHINES.search(said) else ""
    return ValueError(f"these settings of the trainer do not work here{remedy}: {said}")


_RARE = re.compile(r"`val_check_interval` \((\d+)\) must be .* training batches \((\d+)\)")


def reworded(error: Exception) -> Exception:
    """Put what Lightning says once it knows the data into a sentence of ours; others stay."""
    said = " ".join(str(error).split())
    if rare := _RARE.search(said):
        return ValueError(
            f"trainer.val_check_interval is {rare[1]} and an epoch has {rare[2]} batches, so there "
            f"would be no validation; set it to {rare[2]} or less, to 1.0 (at the end of every "
            "epoch), or trainer.limit_val_batches to 0"
        )
    return ValueError(said) if isinstance(error, MisconfigurationException) else error
