"""Callbacks that tests put into runs of several processes."""

import os
from pathlib import Path

import lightning as L
import torch


class WritePid(L.Callback):
    """Write ``pid-RANK`` into the folder PID_FOLDER after three steps."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            folder = Path(os.environ["PID_FOLDER"])
            (folder / "pid").with_suffix(f".{trainer.global_rank}").write_text(str(os.getpid()))
            (folder / f"pid.{trainer.global_rank}").rename(folder / f"pid-{trainer.global_rank}")


class SpoilGradient(L.Callback):
    """Make a gradient of one process NaN, once the processes have exchanged them."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 1 and trainer.global_rank == 1:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(torch.nan)
