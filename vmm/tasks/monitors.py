"""What early stopping and checkpoints watch is looked for before training starts."""

from __future__ import annotations

from difflib import get_close_matches

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

_RISING = ("recall", "accuracy")
_FALLING = ("loss", "rank")


def check_monitors(trainer: L.Trainer, curves: set[str], validates: bool) -> None:
    """Refuse to watch what is never logged, or for the wrong end.

    Lightning finds out at the end of the first validation, which may be a day later; and it takes
    the lowest recall for the best one.

    Args:
        trainer: With its callbacks.
        curves: What the task logs; empty if it does not say.
        validates: Whether there is something to validate.

    Raises:
        ValueError: With the nearest name.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, EarlyStopping | ModelCheckpoint) or not callback.monitor:
            continue
        own = "early_stopping" if isinstance(callback, EarlyStopping) else "checkpoint"
        _check_name(f"{own}.monitor", callback.monitor, curves)
        _check_end(f"{own}.mode", callback.mode, callback.monitor)
        if own == "early_stopping" and callback.monitor.startswith("val/") and not validates:
            raise ValueError(
                f"early_stopping.monitor is {callback.monitor!r}, and nothing is validated; set "
                "data.init_args.val_videos and trainer.limit_val_batches, or watch train/loss"
            )


def _check_name(setting: str, name: str, curves: set[str]) -> None:
    known = curves | {"train/loss", "train/grad_norm"}
    if not curves or name in known or name.startswith("lr-"):
        return
    near = get_close_matches(name, known, n=1, cutoff=0)[0]
    others = ", ".join(sorted(known - {near}))
    raise ValueError(
        f"{setting} is {name!r}, which this run does not log; did you mean {near!r}? "
        f"There are also {others}"
    )


def _check_end(setting: str, mode: str, name: str) -> None:
    for words, wanted in ((_RISING, "max"), (_FALLING, "min")):
        if any(word in name for word in words) and mode != wanted:
            raise ValueError(
                f"{setting} is {mode}, which takes the worst {name} for the best one; set it to "
                f"{wanted}"
            )
