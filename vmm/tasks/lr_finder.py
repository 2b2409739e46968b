"""Which learning rate to begin with: a short run whose rate rises until the loss does."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch

from vmm.data.datamodules import run_folder

logger = logging.getLogger(__name__)

FILE_NAME = "lr_finder"
_UNSMOOTH = 10


class RateFinder(L.Callback):
    """Raise the learning rate step by step, write what became of the loss, and end.

    Lightning's own callback gives all parameters one rate and leaves files in the working folder.
    Here they keep their ratios (``text_lr_ratio``), and ``lr_finder.json`` and ``lr_finder.png``
    are all that is left in a folder of its own: no recipe, no checkpoint, so it is no run.

    Args:
        steps: Optimizer steps, e.g. 100; 0 = off, train as usual.
        min_lr: Learning rate of the first step.
        max_lr: Of the last one.
        stop_at: End when the smoothed loss is so many times the lowest.
    """

    def __init__(
        self, steps: int = 0, min_lr: float = 1e-6, max_lr: float = 1.0, stop_at: float = 4.0
    ) -> None:
        if steps < 0 or 0 < steps < 20:
            raise ValueError(f"lr_finder.steps is {steps}; set it to 20 or more, or to 0 for none")
        if not 0 < min_lr < max_lr:
            raise ValueError(
                f"lr_finder.min_lr is {min_lr} and lr_finder.max_lr {max_lr}; set the first above "
                "0 and the other above it"
            )
        self.steps, self.min_lr, self.max_lr, self.stop_at = steps, min_lr, max_lr, stop_at
        self._smooth = 0.0
        self._rates: list[float] = []
        self._losses: list[float] = []

    def changed(self) -> dict[str, Any]:
        """Settings of the trainer while it looks."""
        return {
            "max_steps": self.steps,
            "max_epochs": -1,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_checkpointing": False,
        }

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of the step."""
        share = trainer.global_step / (self.steps - 1)
        self._rate = self.min_lr * (self.max_lr / self.min_lr) ** share
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._rate * group.get("lr_ratio", 1.0)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the loss, smoothed as Lightning's finder does, and end when it is high."""
        if trainer.fit_loop._should_accumulate():
            return
        found: Any = trainer.strategy.reduce(outputs["loss"].detach().float(), reduce_op="mean")
        loss = float(torch.as_tensor(found))
        self._smooth = 0.98 * self._smooth + 0.02 * loss
        smooth = self._smooth / (1 - 0.98 ** (len(self._losses) + 1))
        if not math.isfinite(smooth):
            trainer.should_stop = True
            return
        self._rates.append(self._rate)
        self._losses.append(smooth)
        if smooth > self.stop_at * min(self._losses):
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the curve and what it suggests."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or folder is None:
            return
        best = suggestion(self._rates, self._losses)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{FILE_NAME}.json"
        curve = {"suggestion": best, "lr": self._rates, "loss": self._losses}
        path.write_text(json.dumps(curve), encoding="utf-8")
        _draw(self._rates, self._losses, best, path.with_suffix(".png"))
        if best is None:
            logger.info("the loss did not fall at any learning rate, see %s", path)
            return
        logger.info(
            "the loss falls fastest at a learning rate of %.1e (%s); take it with "
            "--model.init_args.optimizer.init_args.lr %.1e", best, path, best,
        )  # fmt: skip


def suggestion(rates: list[float], losses: list[float]) -> float | None:
    """Find the rate at which the loss falls fastest, by the rate's order of magnitude.

    Lightning looks at the fall by the rate itself, which is always steepest near 0.

    Args:
        rates: Rising.
        losses: Smoothed, one for each rate; the first ten are not smooth yet.

    Returns:
        The rate; None if there is none.
    """
    if len(losses) < _UNSMOOTH + 2:
        return None
    logarithms = torch.tensor(rates[_UNSMOOTH:], dtype=torch.float64, device="cpu").log()
    values = torch.tensor(losses[_UNSMOOTH:], dtype=torch.float64, device="cpu")
    (falls,) = torch.gradient(values, spacing=[logarithms])
    steepest = int(falls.argmin())
    return rates[_UNSMOOTH + steepest] if falls[steepest] < 0 else None


def _draw(rates: list[float], losses: list[float], best: float | None, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
    axes.plot(rates, losses)
    if best is not None:
        axes.axvline(best, color="C3", label=f"{best:.1e}")
        axes.legend()
    figure.savefig(path, dpi=100)
