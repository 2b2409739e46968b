"""What training draws at random is a function of the seed, the batch and the process."""

from __future__ import annotations

import os
import random
from typing import Any

import lightning as L
import numpy as np
import torch

from vmm.data.order import derive_seed


class SeededDraws(L.Callback):
    """Seed all generators anew before every batch.

    So a run that goes on from a checkpoint draws what it would have drawn, whatever was drawn
    between (a validation, a loader, a killed attempt), and processes draw apart: masks, negatives,
    hidden words, dropout and drop path.
    """

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed Python, NumPy and torch, for all devices."""
        run = os.environ.get("PL_GLOBAL_SEED", "0")  # seed_everything
        done = trainer.fit_loop.epoch_loop.batch_progress.state_dict()["total"]["processed"]
        seed = derive_seed("draws", run, done, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
