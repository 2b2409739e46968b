"""A moving average of the weights beside those that are trained."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

logger = logging.getLogger(__name__)

_SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
_AVERAGE, _TRAINED = "state_dict", "current_model_state"
"""Where a checkpoint has the average, and the weights that training goes on with."""


class WeightAverage(EMAWeightAveraging):
    """Keep an exponential moving average of the weights, and validate with it.

    Checkpoints hold both. Evaluation, export, ``init_from`` and ``vmm validate | test | predict``
    take the average; a run that goes on takes up both, to the last bit. What an evaluation or an
    export names ``last:raw`` are the weights without averaging.

    Args:
        decay: Share of the old average in the new one, e.g. 0.999; null = no average.
        update_every_n_steps: Optimizer steps from one update to the next.
        update_starting_at_step: Optimizer steps before the average begins.
        device: Where the average is; null = with the model.
    """

    def __init__(
        self,
        decay: float | None = None,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        device: str | None = None,
    ) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"ema.decay is {decay}; set it between 0 and 1, e.g. to 0.999")
        if update_every_n_steps < 1:
            raise ValueError(f"ema.update_every_n_steps is {update_every_n_steps}; set it above 0")
        super().__init__(
            device=device,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
        )
        self.decay = decay
        self._swapped = False
        """Whether the model holds the average just now."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the model, with its start weights; a frozen teacher is shared.

        Raises:
            ValueError: If no average can be kept, or none that is worth it.
        """
        if stage != "fit" or self.decay is None:
            return
        _refuse(trainer)
        pl_module.configure_model()
        trainer.precision_plugin.convert_module(
            pl_module
        )  # not yet done; nor is it where it will be
        self._average_model = AveragedModel(
            pl_module,
            device=self._device or trainer.strategy.root_device,
            use_buffers=True,
            multi_avg_fn=get_ema_multi_avg_fn(self.decay),  # type: ignore[no-untyped-call]
        )
        if getattr(pl_module, "teacher", None) is not None:
            self._average_model.module.teacher = pl_module.teacher

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After the steps that were asked for."""
        return self._average_model is not None and super().should_update(step_idx, epoch_idx)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the model; the trained weights stay, for whoever saves yet."""
        if self._average_model is not None:
            self._swap_models(pl_module)

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save both, also in the middle of a validation, and no teacher."""
        if self._average_model is None:
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            both = checkpoint[_TRAINED], checkpoint[_AVERAGE]
            checkpoint[_AVERAGE], checkpoint[_TRAINED] = both
        checkpoint[_TRAINED] = {
            name: value
            for name, value in checkpoint[_TRAINED].items()
            if not name.startswith("teacher.")
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with both; without an average, with the trained weights."""
        if trainer.state.fn != "fit" or _AVERAGE not in checkpoint:
            return
        if _TRAINED in checkpoint:  # the task has put the teacher into the other one
            checkpoint[_TRAINED] = checkpoint[_AVERAGE] | checkpoint[_TRAINED]
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
        elif _TRAINED in checkpoint:
            logger.info("the checkpoint has an average of weights, which ends here: ema.decay")
            pl_module.load_state_dict(checkpoint[_TRAINED])


def _refuse(trainer: L.Trainer) -> None:
    if isinstance(trainer.strategy, _SHARDED):
        raise ValueError(
            f"ema.decay: no average of weights is kept under {type(trainer.strategy).__name__}, "
            "where no process has the whole model; use the strategy ddp, or set ema.decay to null"
        )
    if trainer.precision in ("16-true", "bf16-true"):
        raise ValueError(
            f"ema.decay: with trainer.precision {trainer.precision} most steps of an average are "
            "rounded away; use bf16-mixed, or set ema.decay to null"
        )
    savers = trainer.checkpoint_callbacks
    if any(getattr(saver, "save_weights_only", False) for saver in savers):
        raise ValueError(
            "ema.decay: with checkpoint.save_weights_only the average would be in no checkpoint; "
            "set one of both to its default"
        )
