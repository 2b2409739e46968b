"""What training draws at random is a function of the seed, the batch and the sample or process."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch

from vmm.data.order import derive_seed
from vmm.drawing import Uniform, uniform_rows


def sample_draws(trainer: L.Trainer | None, purpose: str, keys: Sequence[str]) -> Uniform:
    """Return the numbers for what is drawn for each sample of a batch.

    They follow from the seed of the run, the batch's number, the purpose and the sample's key, so
    that they are the same on any number of processes, and after any kill. In validation they are
    the same every time; without a trainer torch's generator decides.

    Args:
        trainer: Of the run, if there is one.
        purpose: What is drawn.
        keys: Of the B samples.
    """
    number = _number(trainer)
    return partial(uniform_rows, [derive_seed(_run_seed(), number, purpose, key) for key in keys])


def batch_draws(trainer: L.Trainer | None, purpose: str, key: str) -> np.random.Generator:
    """Return the generator of what is drawn once for a batch, as ``sample_draws``.

    Args:
        trainer: Of the run, if there is one.
        purpose: What is drawn.
        key: Of the batch's first sample, which tells the batches of processes apart.
    """
    seed = derive_seed(_run_seed(), _number(trainer), purpose, key)
    return np.random.Generator(np.random.Philox(key=seed))


def _number(trainer: L.Trainer | None) -> int:
    if trainer is None:
        return int(torch.randint(2**62, (), device="cpu"))
    return _batch_number(trainer) if trainer.training else -1


@contextmanager
def drawn_by_seed(purpose: str) -> Iterator[None]:
    """Let new weights on the CPU follow from the seed of the run, whatever was drawn before them.

    Lightning seeds anew where processes are connected, and does not where there is one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(purpose, _run_seed()))
        yield


def _run_seed() -> str:
    return os.environ.get("PL_GLOBAL_SEED", "0")  # of seed_everything


def _batch_number(trainer: L.Trainer) -> int:
    """Count the batches before this one, since the run began."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.state_dict()["total"]["processed"])


class SeededDraws(L.Callback):
    """Seed all generators anew before every batch, for what is not drawn by sample.

    So a run that goes on from a checkpoint draws what it would have drawn, whatever was drawn
    between (a validation, a loader, a killed attempt), and processes draw apart: dropout and drop
    path.
    """

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed Python, NumPy and torch, on the CPU and the device of this process.

        ``torch.manual_seed`` seeds devices that are not in use, too, for later: most of its time.
        """
        seed = derive_seed("draws", _run_seed(), _batch_number(trainer), trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        device = trainer.strategy.root_device
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
