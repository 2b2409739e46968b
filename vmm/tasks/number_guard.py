"""Numbers that are not finite never reach the weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from vmm.command_line import BAD_NUMBERS
from vmm.data.datamodules import run_folder
from vmm.tasks.compiling import as_written
from vmm.tasks.sharding import ShardedStrategy, reshard
from vmm.tasks.zero import ZeroStrategy
from vmm.types import VideoTextBatch

logger = logging.getLogger(__name__)

FILE_NAME = "bad_steps.jsonl"


class Diverged(ValueError):
    """Ends a run whose numbers are not finite step after step."""

    status = BAD_NUMBERS


class NumberGuard(L.Callback):
    """Skip a step whose loss or gradients are not finite, on all processes alike.

    Without gradients an optimizer changes neither weights nor its own state. Each such step is a
    line of ``bad_steps.jsonl`` in the run's folder: its number, samples, what was not finite, and
    the first module whose output was, or else the first parameter whose gradient was. The norm of
    all gradients, before clipping, is logged as ``train/grad_norm``, as often as the losses; a task
    that clips by it need not measure it again.

    With a loss scaler (16-mixed) overflowing gradients are its own business.

    Args:
        max_in_a_row: After so many such steps in a row the run stops.
    """

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise ValueError(f"number_guard.max_in_a_row is {max_in_a_row}; set it to 1 or more")
        self.max_in_a_row = max_in_a_row
        self.skipped = 0
        """Steps of the whole run."""
        self._in_a_row = 0
        self._logged = False
        self._batch: VideoTextBatch | None = None
        self._loss: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Keep the count."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = int(state_dict["skipped"])

    def on_train_start(self, *unused: Any) -> None:
        """Log the first norm, for whoever watches it."""
        self._logged = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch, in case that it is a bad one."""
        self._batch = batch

    def on_train_batch_end(self, *unused: Any, **named: Any) -> None:
        """Let the batch go before the next one is loaded: a large one is much memory."""
        self._batch = None

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Remember the loss, a scalar; with accumulation one bad one is enough."""
        loss = loss.detach().float()
        self._loss = loss if self._loss is None else self._loss + loss

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients; drop them if any process has a bad number.

        Raises:
            Diverged: If there were too many such steps in a row.
        """
        strategy = trainer.strategy
        norm = _own_norm(strategy, optimizer)
        loss, self._loss = self._loss, None
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        scaled |= isinstance(strategy, ZeroStrategy) and str(trainer.precision).startswith("16")
        found = norm.new_zeros(()) if scaled else norm
        own = 0 * (found if loss is None else found + loss.to(norm))  # NaN if not finite
        if strategy.reduce(own.clone(), reduce_op="sum").item() == 0:
            self._in_a_row = 0
            if isinstance(strategy, ShardedStrategy):
                norm = strategy.total_norm(norm)
            elif not scaled and not isinstance(strategy, ZeroStrategy):
                pl_module.gradient_norm = norm
            if not self._logged or trainer._logger_connector.should_update_logs:
                pl_module.log("train/grad_norm", norm)  # costs a step more than all else here
                self._logged = True
            return
        self.skipped += 1
        self._in_a_row += 1
        assert self._batch is not None
        # By all processes: losses gather, and the folder's name is told by the first one.
        first, folder = _first_output(trainer, pl_module, self._batch), run_folder(trainer)
        first = first or _first_gradient(strategy, pl_module)
        if own.item() != 0:
            self._record(trainer, loss, first, folder)
        if isinstance(strategy, ZeroStrategy):
            strategy.skip_step()
        else:
            optimizer.zero_grad(set_to_none=True)
        if self._in_a_row >= self.max_in_a_row:
            raise Diverged(
                f"loss or gradients were not finite in {self._in_a_row} steps in a row, the last "
                f"is {trainer.global_step}; none of them changed a weight. Lower the learning "
                f"rate, or look at {FILE_NAME} in the run's folder"
            )

    def _record(
        self, trainer: L.Trainer, loss: Tensor | None, first: str | None, folder: Path | None
    ) -> None:
        """Say and write what was not finite in this process."""
        what = "gradient" if loss is None or bool(loss.isfinite()) else "loss"
        assert self._batch is not None
        line = {
            "step": trainer.global_step,
            "process": trainer.global_rank,
            "not_finite": what,
            "first": first,
            "samples": list(self._batch["key"]),
        }
        logger.warning(
            "step %d is skipped: its %s is not finite, first in %s (%d such steps so far)",
            trainer.global_step, what, first, self.skipped,
        )  # fmt: skip
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / FILE_NAME).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _own_norm(strategy: Strategy, optimizer: Optimizer) -> Tensor:
    """Measure the gradients that this process has, or all, if they cannot be told apart."""
    if isinstance(strategy, ZeroStrategy):
        return strategy.gradient_norm()
    if isinstance(strategy, ShardedStrategy):
        return nn.utils.get_total_norm(strategy.local_gradients())
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _first_gradient(strategy: Strategy, module: nn.Module) -> str | None:
    """Name the first gradient that is not finite; called by all processes together."""
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        if isinstance(strategy, ZeroStrategy):
            gradient = strategy.whole_gradient(parameter)
        gradient = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        if gradient is not None and not bool(gradient.isfinite().all()):
            return f"the gradient of {name}"
    return None


@torch.no_grad()
def _first_output(
    trainer: L.Trainer, module: L.LightningModule, batch: VideoTextBatch
) -> str | None:
    """Look at a batch again, module by module."""
    strategy = trainer.strategy
    assert strategy.model is not None
    found: list[str] = []
    with _watched(module, found), torch.random.fork_rng(), as_written():
        # Through the strategy, which may have to put the weights together first.
        strategy._forward_redirection(strategy.model, module, "compute_losses", batch)
    reshard(module)
    if not bool(batch["video"].isfinite().all()):
        return "the pixels"
    return f"the output of {found[0]}" if found else None


@contextmanager
def _watched(module: nn.Module, found: list[str]) -> Iterator[None]:
    """Collect the names of the modules whose outputs are not finite, in the order they ran."""

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            parts = output if isinstance(output, tuple | list) else (output,)
            if any(isinstance(x, Tensor) and not bool(x.isfinite().all()) for x in parts):
                found.append(name)

        return look

    inner = [(name, child) for name, child in module.named_modules() if name]
    hooks = [child.register_forward_hook(watch(name)) for name, child in inner]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
