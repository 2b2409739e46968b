"""The recipe in a run's folder, and what it names: saved when work begins, not before."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from vmm.models.run_text import keep_text_files
from vmm.models.text_interface import TextEncoder
from vmm.tasks.resume import lock


class NothingToTrain(ValueError):
    """The checkpoint is at the end of the run."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(
            f"the checkpoint is of step {trainer.global_step}, where this run ends, so there is "
            "nothing to train; raise trainer.max_epochs or trainer.max_steps"
        )


class SaveRecipe(SaveConfigCallback):
    """Save the recipe when work begins, so that a run that cannot start leaves none behind.

    From then on no other process trains in the folder.
    """

    lock: IO[bytes] | None = None
    has_text = False
    """Whether the text encoder was built from the files in the run's folder."""

    def take(self, run: Path, first: bool, has_text: bool = False) -> None:
        """Go on in a run's folder; all processes know it, the first keeps the folder."""
        self.overwrite = True
        self.has_text = has_text
        if first and run.is_dir():
            self.lock = lock(run)

    def _leave(self, *unused: Any, **named: Any) -> None:
        """Let others train in the folder."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    teardown = on_exception = _leave

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not yet."""

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.loggers and not trainer.sanity_checking:
            path = Path(trainer.log_dir or "", self.config_filename)
            if trainer.training and trainer.is_global_zero and self.lock is None:
                self.lock = lock(path.parent)
            first = trainer.is_global_zero and not self.already_saved
            if self.overwrite and first and path.is_file():
                number = len([*path.parent.glob("config-*.yaml")])
                path.replace(path.with_name(f"config-{number}.yaml"))  # of the run so far
            text = getattr(getattr(pl_module, "model", None), "text_encoder", None)
            keeps = first and trainer.training and not self.has_text
            # Without checkpoints there are no weights for them to go with.
            if keeps and isinstance(text, TextEncoder) and trainer.checkpoint_callback:
                keep_text_files(path.parent, text)
            super().setup(trainer, pl_module, "")

    on_validation_start = on_test_start = on_predict_start = _begin

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save it, if there is something to train, or at least a validation to finish."""
        at_the_end = trainer.global_step >= trainer.estimated_stepping_batches
        if at_the_end and not trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation:
            raise NothingToTrain(trainer)
        self._begin(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if training did not even start."""
        if not self.already_saved:
            raise NothingToTrain(trainer)
