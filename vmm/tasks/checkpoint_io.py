"""Checkpoint files that are either complete or not there, and the newest of them."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from vmm.data.datamodules import run_folder
from vmm.models.weight_files import load_plain, plain_names, refuse_damaged, write_pickle
from vmm.tasks.resume import steps_of
from vmm.tasks.stopping import Stopped, StopSignals
from vmm.text_output import number_of
from vmm.whole import whole_file

logger = logging.getLogger(__name__)

# Lightning needs these of every checkpoint.
_FIELDS = {"state_dict", "epoch", "global_step", "pytorch-lightning_version"}


class SafeCheckpointIO(TorchCheckpointIO):
    """Write beside the target, read back, then rename.

    Lightning stages the file in the temporary directory and moves it; across file systems that is
    a copy over the previous checkpoint, which a kill or a full disk leaves truncated. Here the
    old file survives until the new one is complete, loadable without pickle, and on disk.

    Args:
        max_failures: So many saves in a row may fail for want of a disk that takes them: training
            goes on, and no older checkpoint is removed meanwhile.
    """

    def __init__(self, max_failures: int = 0) -> None:
        super().__init__()
        self.max_failures = max_failures
        self._failures = 0

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, unless what should take its place could not be written."""
        if not self._failures:
            super().remove_checkpoint(path)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save a checkpoint under ``path``, atomically.

        Raises:
            pickle.UnpicklingError: If the checkpoint holds an object that could not be loaded
                again with ``weights_only=True``; nothing is left behind.
            ValueError: If it cannot be written, and too many before could not.
        """
        target = Path(os.fspath(path))
        try:
            self._write(checkpoint, target)
            self._failures = 0
        except OSError as error:
            self._failures += 1
            said = f"{target} cannot be written ({error.strerror or error})"
            if self._failures > self.max_failures:
                raise ValueError(
                    f"{said}; the checkpoints before it are kept. Make room, then go on with "
                    "--resume"
                ) from error
            logger.warning("%s; going on, %d tries left", said, self.max_failures - self._failures)

    def _write(self, checkpoint: dict[str, Any], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as unfinished:
            write_pickle(checkpoint, unfinished)
            torch.load(unfinished, weights_only=True, mmap=True, map_location="meta")

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Load a checkpoint of ``vmm fit``; it is never unpickled, whatever ``weights_only`` says.

        Raises:
            ValueError: If it is none, or damaged.
        """
        if "://" in str(path):
            content = super().load_checkpoint(str(path), map_location, weights_only=True)
        else:
            refuse_damaged(Path(path))
            content = load_plain(Path(path), map_location=map_location)
        if not isinstance(content, dict) or not content.keys() >= _FIELDS:
            raise ValueError(
                f"{path} holds weights and not the state of a run, so none can go on from it; "
                "start one from its weights with --model.init_args.init_from"
            )
        return content | {"state_dict": plain_names(content["state_dict"])}


class LastCheckpoint(Checkpoint):
    """Keep ``checkpoints/last.ckpt`` of the run at the newest state.

    It is written after every validation and at the end of every epoch. Lightning's own
    ``save_last`` writes it only together with a new best checkpoint, so that a run that stopped
    improving loses everything since.

    Ctrl-C, SIGTERM and SIGUSR1 wait for the end of the step and save it, too: in the middle of one,
    some weights are of the next. All processes agree on the step.

    Args:
        every_n_train_steps: Also save this often between validations.
        every_minutes: Also save when so many minutes have passed since the last time.
        keep: States to keep, the newest; those before are ``last-step=N.ckpt``.
        keep_every_hours: Also keep one state of each so many hours for ever, as
            ``last-kept-step=N.ckpt``.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 1,
        keep_every_hours: float | None = None,
    ) -> None:
        given = {"every_n_train_steps": every_n_train_steps, "keep": keep}
        times = {"every_minutes": every_minutes, "keep_every_hours": keep_every_hours}
        for name, value in (given | times).items():
            if value is not None and (value <= 0 or (name in given and value < 1)):
                least = "1 or more" if name in given else "more than 0"
                null = "" if name == "keep" else ", or to null"
                raise ValueError(f"last_checkpoint.{name} is {value}; set it to {least}{null}")
        self.every_n_train_steps = every_n_train_steps
        self.every_minutes = every_minutes
        self.keep, self.keep_every_hours = keep, keep_every_hours
        self._saved_step = 0
        self._saved = self._kept = time.monotonic()
        self._signals = StopSignals()

    def _save(self, trainer: L.Trainer, again: bool = False) -> None:
        done, path = trainer.global_step, _last(trainer)
        if path is None or trainer.sanity_checking or (done == self._saved_step and not again):
            return
        for curves in trainer.loggers:
            curves.save()  # or a run that goes on from here would miss some
        if trainer.is_global_zero and path.is_file():
            self._retain(path)
        self._saved_step, self._saved = done, time.monotonic()
        trainer.save_checkpoint(path, weights_only=False)

    def _retain(self, path: Path) -> None:
        """Give the state that is about to be replaced a name of its own, if it is to stay."""
        names = []
        if self.keep > 1:
            names.append("last-step={}.ckpt")
        hours = self.keep_every_hours
        if hours is not None and self._saved - self._kept >= 3600 * hours:
            self._kept = self._saved
            names.append("last-kept-step={}.ckpt")
        for name in names:
            try:
                os.link(path, path.with_name(name.format(steps_of(path))))
            except FileExistsError:
                continue  # kept before a run went on
            except (OSError, ValueError) as error:  # no links here, or a damaged file
                logger.warning("the state before is not kept: %s", error)
        before = sorted(path.parent.glob("last-step=*.ckpt"), key=lambda p: p.stat().st_mtime_ns)
        for old in before[: max(len(before) - self.keep + 1, 0)]:
            old.unlink(missing_ok=True)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let signals wait from here on."""
        self._signals.begin()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let signals wait from here on."""
        self._signals.begin()

    def _stop(self, trainer: L.Trainer, number: int) -> None:
        if not trainer.validating:  # Lightning logs a step after its hooks, which is too late here
            trainer._logger_connector.update_train_step_metrics()
        self._save(trainer)
        path = _last(trainer)
        where = f"go on with --resume (elsewhere: --ckpt_path {path})"
        kept = where if path is not None and path.is_file() else "nothing was saved"
        done = number_of(trainer.global_step, "step is", "steps are")
        raise Stopped(number, f"{done} done, {kept}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let signals stop at once again."""
        self._signals.end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """The same, for a run that fails."""
        self._signals.end()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: Any
    ) -> None:
        """Write the curves of the step that was saved, which come after it."""
        if self._saved_step and self._saved_step == trainer.global_step:
            for curves in trainer.loggers:
                curves.save()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: Any
    ) -> None:
        """Stop between two batches of a validation, which begins anew when the run goes on."""
        if trainer.state.fn == "fit" and (number := self._signals.asked()[0]):
            if trainer.sanity_checking:
                raise Stopped(number, "training had not begun")
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()  # as in the first batch
            progress.increment_started()
            self._stop(trainer, number)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what was just measured."""
        if trainer.state.fn == "fit":
            self._save(trainer, again=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of an epoch, if it is one: a run may end within, and another go on there."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: Any
    ) -> None:
        """Save between validations; stop if a signal came."""
        done, often = trainer.global_step, self.every_n_train_steps
        minutes = (time.monotonic() - self._saved) / 60
        number, due = self._signals.asked(
            self.every_minutes is not None and minutes >= self.every_minutes
        )
        due = due or done == trainer.max_steps or trainer.should_stop
        if due or (often and done % often == 0):
            self._save(trainer)
        if number:
            self._stop(trainer, number)


def _last(trainer: L.Trainer) -> Path | None:
    folder = run_folder(trainer)
    return None if folder is None else folder / "checkpoints" / "last.ckpt"
