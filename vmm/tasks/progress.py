"""How far a run is: a bar on a terminal, and a line every minute in what is no terminal."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, Timer
from tqdm import tqdm

logger = logging.getLogger(__name__)

EVERY_S = 60.0
"""Between two lines where there is no bar."""
_SPEED_IS_KNOWN = 5
"""Steps after the first one, which also warms up, until the end is foretold."""
_REDRAW_S = 0.5


class Progress(ProgressBar):
    """Says how far a run is, when it will end, and what each validation found.

    Steps are those of the optimizer, counted over the whole run. Only the first process speaks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._speaks = True
        self._bar: tqdm[Any] | None = None
        self._inner: tqdm[Any] | None = None
        self._batches: float = 0
        self._drawn = self._said = time.monotonic()
        self._foretold = False

    def disable(self) -> None:
        """Say nothing."""
        self._speaks = False

    def enable(self) -> None:
        """Speak again."""
        self._speaks = True

    # Training.

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._first, self._began = trainer.global_step, 0.0
        self._foretold, self._said = False, time.monotonic()
        total = trainer.estimated_stepping_batches
        if self._speaks and self._first < total:
            self._bar = _bar("training", total, "step", self._first)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Say how far it is, if it is time; the numbers are not asked for more often."""
        now, done = time.monotonic(), trainer.global_step - self._first
        if not self._began:
            if done:
                self._began, self._first_done = now, done
            return
        if not self._speaks:
            return
        if not self._foretold and done >= self._first_done + _SPEED_IS_KNOWN:
            self._foretold = True
            seconds = self._left(trainer)
            if seconds is not None:
                logger.info("end:        expected at %s, in %s", _clock(seconds), in_words(seconds))
        if self._bar is not None and now - self._drawn > _REDRAW_S:
            self._drawn = now
            self._bar.set_postfix_str(_shown(trainer, "train/"), refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)
        elif self._bar is None and now - self._said > EVERY_S:
            self._said = now
            logger.info("%s", self._line(trainer))

    def _left(self, trainer: L.Trainer) -> float | None:
        """Estimate the seconds that are left; None if nobody knows."""
        steps = trainer.global_step - self._first - self._first_done
        total = trainer.estimated_stepping_batches
        if steps <= 0 or total == math.inf:
            return None
        each = (time.monotonic() - self._began) / steps
        seconds = max(0.0, total - trainer.global_step) * each
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (limit := callback.time_remaining()) is not None:
                seconds = min(seconds, limit)
        return seconds

    def _line(self, trainer: L.Trainer) -> str:
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        share = "" if total == math.inf else f" of {total:,} ({step / total:.0%})"
        seconds = self._left(trainer)
        left = "" if seconds is None else f", {in_words(seconds)} left, until {_clock(seconds)}"
        numbers = _shown(trainer, "train/")
        return f"step {step:,}{share}{numbers and ', '}{numbers}{left}"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the bar to its end."""
        if self._bar is not None:
            self._bar.set_postfix_str(_shown(trainer, "train/"), refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)
            self._bar.refresh()
        self._close()

    # Evaluation, also within training.

    def _begin(self, trainer: L.Trainer, what: str, batches: Any) -> None:
        self._batches = sum(batches) if isinstance(batches, list) else batches
        self._evaluated, self._said = 0, time.monotonic()
        if self._speaks and not trainer.sanity_checking:
            self._inner = _bar(what, self._batches, "batch", 0)

    def _go_on(self, trainer: L.Trainer, what: str) -> None:
        self._evaluated += 1
        if self._inner is not None:
            self._inner.update()
        elif self._speaks and time.monotonic() - self._said > EVERY_S:
            self._said = time.monotonic()
            logger.info("%s: batch %d of %s", what, self._evaluated, f"{self._batches:,}")

    def _end(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the batches."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)
        self._begin(trainer, "validation", trainer.num_val_batches)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count one."""
        self._go_on(trainer, "validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what a validation within training found."""
        self._end()
        if self._speaks and trainer.state.fn == "fit" and not trainer.sanity_checking:
            numbers = _shown(trainer, "val/")
            if numbers:
                logger.info("validation at step %s: %s", f"{trainer.global_step:,}", numbers)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the batches."""
        self._begin(trainer, "test", trainer.num_test_batches)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count one."""
        self._go_on(trainer, "test")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self._end()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the batches."""
        self._begin(trainer, "prediction", trainer.num_predict_batches)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count one."""
        self._go_on(trainer, "prediction")

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self._end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal to what is said about it."""
        self._close()

    def _close(self) -> None:
        self._end()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bar(what: str, total: float, unit: str, done: int) -> tqdm[Any] | None:
    """Draw a bar, if there is a terminal."""
    if not sys.stderr.isatty():
        return None
    known = None if total == math.inf else int(total)
    lasting = unit == "step"
    return tqdm(
        desc=what, total=known, initial=done, unit=unit, leave=lasting, dynamic_ncols=True,
        smoothing=0.05 if lasting else 0.3, file=sys.stderr,
    )  # fmt: skip


def _shown(trainer: L.Trainer, prefix: str) -> str:
    """Give the numbers that a task wants shown, and those that checkpoints are chosen by."""
    numbers = {**trainer.progress_bar_metrics}
    for callback in trainer.checkpoint_callbacks:
        name = getattr(callback, "monitor", None)
        if name in trainer.callback_metrics:
            numbers[name] = float(trainer.callback_metrics[name])
    chosen = {name: value for name, value in numbers.items() if name.startswith(prefix)}
    return ", ".join(f"{name.removeprefix('train/')} {value:.4g}" for name, value in chosen.items())


def in_words(seconds: float) -> str:
    """Say how long something takes, as exactly as anybody wants to know."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"


def _clock(seconds: float) -> str:
    """Give the time of day in so many seconds, with the date if that is not today's."""
    now, then = time.localtime(), time.localtime(time.time() + seconds)
    same = now[:3] == then[:3]
    return time.strftime("%H:%M" if same else "%Y-%m-%d %H:%M", then)
