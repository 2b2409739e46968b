"""What ``vmm fit`` does where a run has ended: it chooses how to re-rank, and says what there is.

Nothing that goes wrong here ends a run otherwise than it had ended.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist

from vmm.data.datamodules import run_folder
from vmm.distributed import world_size
from vmm.evaluation.common.run_page import FILE_NAME, facts, next_commands, write_run_page
from vmm.evaluation.retrieval.mixing import CLIPS, choose_weight
from vmm.runs import read_config
from vmm.tasks.video_text import VideoTextTask
from vmm.text_output import number_of

logger = logging.getLogger(__name__)


def choose_match_weight(trainer: L.Trainer, data: Any) -> None:
    """Choose the weight of the matching head on validation clips, where it was trained.

    The first process does so alone, with the best checkpoint; what goes wrong ends no run.

    Args:
        trainer: Of the run that has ended.
        data: Its datamodule.
    """
    task, run, batches = trainer.lightning_module, run_folder(trainer), trainer.limit_val_batches
    if world_size() > 1:
        dist.destroy_process_group()  # the others are about to go
    matched = isinstance(task, VideoTextTask) and task.loss_weights.vtm
    if not matched or run is None or not trainer.is_global_zero or not batches:
        return
    shards = getattr(data, "val_videos", None)
    if not shards or not trainer.checkpoint_callback:
        return
    clips = min(CLIPS, batches * data.batch_size) if isinstance(batches, int) else CLIPS
    try:
        device = trainer.strategy.root_device
        choice = choose_weight(run, "best", str(device), shards, data.num_workers, clips)
    except (ValueError, OSError) as error:
        logger.warning("no weight of the matching head was chosen: %s", error)
        return
    said = "re-ranking takes the matching head with the weight %g, chosen on %s"
    logger.info(said, choice.weight, number_of(choice.clips, "validation clip"))


def say_what_there_is(trainer: L.Trainer) -> None:
    """Write the run's page, and say where it is, how good it became and what can be done now.

    Args:
        trainer: Of the run that has ended; only the first process speaks.
    """
    run = None if trainer.fast_dev_run or not trainer.loggers else _folder(trainer)  # type: ignore[attr-defined]
    if run is None or not trainer.is_global_zero or not (run / "config.yaml").is_file():
        return
    stopper = trainer.early_stopping_callback
    early = stopper is not None and stopper.wait_count >= stopper.patience
    why = f": {stopper.monitor} got no better (early_stopping)" if stopper and early else ""
    steps = number_of(trainer.global_step, "step")
    logger.info("%-11s after %s%s", "done:", steps, why)
    try:
        config = read_config(run)
        found = dict(facts(run, config))
        logger.info("%-11s %s", "run:", run)
        logger.info("%-11s %s", "checkpoint:", found["checkpoint"])
        if "its numbers" in found:
            logger.info("%-11s %s", "numbers:", found["its numbers"])
        write_page(run)
        for what, command in next_commands(run, config):
            logger.info("%-11s %s: %s", "next:", what, command)
    except (ValueError, OSError) as error:
        logger.warning("what the run has cannot be said: %s", error)


def _folder(trainer: L.Trainer) -> Path | None:
    """Find the run's folder without asking the other processes, which are gone."""
    folder = trainer.loggers[0].log_dir
    return None if folder is None else Path(folder)


def write_page(run: Path | None) -> None:
    """Write ``report.html`` of a run, also of one that was stopped, and say where it is.

    Args:
        run: Its folder; None if it keeps none.
    """
    if run is None or not (run / "config.yaml").is_file():
        return
    try:
        write_run_page(run / FILE_NAME, [(f"{run.parent.name}/{run.name}", run)])
    except (ValueError, OSError) as error:
        logger.warning("no %s was written: %s", FILE_NAME, error)
    else:
        logger.info("%-11s %s", "report:", run / FILE_NAME)
