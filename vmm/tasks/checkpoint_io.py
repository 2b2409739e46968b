"""Checkpoint files that are either complete or not there, and the newest of them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint


class SafeCheckpointIO(TorchCheckpointIO):
    """Write beside the target, read back, then rename.

    Lightning stages the file in the temporary directory and moves it; across file systems that is
    a copy over the previous checkpoint, which a kill or a full disk leaves truncated. Here the
    old file survives until the new one is complete, loadable without pickle, and on disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save a checkpoint under ``path``, atomically.

        Raises:
            pickle.UnpicklingError: If the checkpoint holds an object that could not be loaded
                again with ``weights_only=True``; nothing is left behind.
        """
        target = Path(os.fspath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(f".{target.name}.tmp", ".", target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            torch.load(temporary, weights_only=True, mmap=True, map_location="meta")
            temporary.replace(target)
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        finally:
            temporary.unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """Keep ``checkpoints/last.ckpt`` of the run at the newest state.

    It is written after every validation and at the end of every epoch. Lightning's own
    ``save_last`` writes it only together with a new best checkpoint, so that a run that stopped
    improving loses everything since.

    Args:
        every_n_train_steps: Also save this often between validations.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        self.every_n_train_steps = every_n_train_steps
        self._saved_step = 0

    def _save(self, trainer: L.Trainer) -> None:
        done = trainer.global_step
        if trainer.sanity_checking or done == self._saved_step:
            return
        self._saved_step = done
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what was just measured."""
        if trainer.state.fn == "fit":
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of an epoch, which is the end of the run or a good place to go on from."""
        self._save(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: Any
    ) -> None:
        """Save between validations."""
        if self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0:
            self._save(trainer)
