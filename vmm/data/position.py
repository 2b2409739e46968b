"""Where a trainer stands in the training data, counted in batches.

Lightning's own count, which it saves and restores, is the only one.
"""

from __future__ import annotations

from typing import Any


def next_step(trainer: Any) -> int:
    """Return the step that comes next; ``trainer.overfit_batches`` repeats the first ones.

    Args:
        trainer: Of the run; None = there is none.
    """
    done = completed_batches(trainer)
    overfits = getattr(trainer, "overfit_batches", 0)
    return done % int(trainer.num_training_batches) if overfits else done


def completed_batches(trainer: Any) -> int:
    """Count the batches that training has finished; see ``next_step``."""
    return int(_batches(trainer)["total"]["processed"])


def stepped_batches(trainer: Any) -> int:
    """Count the batches up to the last optimizer step; see ``next_step``."""
    if trainer is None:
        return 0
    done = int(_batches(trainer)["current"]["processed"])
    if done == trainer.num_training_batches:  # the end of an epoch makes a step
        return completed_batches(trainer)
    return completed_batches(trainer) - done % int(trainer.accumulate_grad_batches)


def go_back(trainer: Any, completed: int) -> None:
    """Set Lightning's count to the batches whose step is done.

    It counts those of an unfinished accumulation, of which the gradients are lost, as done; they
    are trained on again.

    Args:
        trainer: Of the run.
        completed: Batches up to the last optimizer step, see ``stepped_batches``.
    """
    batches = trainer.fit_loop.epoch_loop.batch_progress
    progress = batches.state_dict()
    again = progress["total"]["processed"] - completed
    for counts in (progress["total"], progress["current"]):
        counts.update({name: count - again for name, count in counts.items()})
    batches.load_state_dict(progress)


def _batches(trainer: Any) -> dict[str, Any]:
    """Return Lightning's count of batches."""
    if trainer is None:
        return {"total": {"processed": 0}, "current": {"processed": 0}}
    counts: dict[str, Any] = trainer.fit_loop.epoch_loop.batch_progress.state_dict()
    return counts
