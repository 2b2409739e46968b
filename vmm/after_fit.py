"""What ``vmm fit`` does where a run has ended well: it chooses how to re-rank."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch.distributed as dist

from vmm.data.datamodules import run_folder
from vmm.distributed import world_size
from vmm.evaluation.retrieval.mixing import CLIPS, choose_weight
from vmm.tasks.video_text import VideoTextTask

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
    said = "re-ranking takes the matching head with the weight %g, chosen on %d validation clips"
    logger.info(said, choice.weight, choice.clips)
