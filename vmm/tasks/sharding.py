"""FSDP2: every process keeps a share of the weights, gradients and moments of all blocks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from vmm.models.bert import BertLayer
from vmm.models.mamba import BiMambaBlock

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")
_ENTRANCES: dict[type[nn.Module], tuple[str, ...]] = {
    BertLayer: ("project_vision",),
    BiMambaBlock: ("scan_piece", "mix_piece"),
}
"""Methods beside ``forward`` by which a block is used from outside."""


def share_out(task: nn.Module, mesh: Any) -> None:
    """Leave each process its share of a task's weights; all hold the same ones before.

    What is gathered and freed together is an element of a ``ModuleList``: the blocks of the
    encoders, one at a time. All else is gathered for a whole step. The frozen teacher stays whole.

    Args:
        task: On the device of this process.
        mesh: Of one dimension to share over, or of two: copies, and shares of each copy.
    """
    teacher = getattr(task, "teacher", None)
    whole = set() if teacher is None else set(teacher.parameters())
    for parent in [m for m in task.modules() if isinstance(m, nn.ModuleList)]:
        for block in parent:
            if whole.isdisjoint(block.parameters()):
                entrances = _ENTRANCES.get(type(block), ())
                fully_shard(block, mesh=mesh)
                for name in entrances:
                    register_fsdp_forward_method(block, name)
    fully_shard(task, mesh=mesh, ignored_params=whole)
    for name in _STEPS:
        register_fsdp_forward_method(task, name)


def reshard(task: Any) -> None:
    """Free what a pass without a backward has gathered."""
    if isinstance(task, FSDPModule):
        task.reshard()


def gathered(state: Any, keep: bool) -> Any:
    """Put the shares of all processes together, on the CPU; called by all of them.

    Args:
        state: A state dict.
        keep: Whether this process wants it; the others get an empty one.
    """

    def gather(value: Any) -> Any:
        if isinstance(value, DTensor):
            value = value.full_tensor()
        return value.cpu() if keep and isinstance(value, Tensor) else value

    whole = tree_map(gather, state)
    return whole if keep else {}


class OneFile(Strategy):
    """Base of strategies that share out weights and keep checkpoints as one process does."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are loaded before they are shared out."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The optimizer's state is one of our files', too."""
        return True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Write one file, as every other strategy."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)


class ShardedStrategy(OneFile, ModelParallelStrategy):
    """FSDP2 over all processes, or over those of one copy of several (HSDP).

    Checkpoints are those of one process: the shares are put together and written as one file.

    Args:
        copies: Copies of the whole that are shared out; 1 is plain FSDP2. With as many as there
            are machines, only gradients cross between them.
        process_group_backend: As torch.distributed calls it; null: the device's.
        timeout: For a process that does not answer.

    Raises:
        ValueError: If the copies do not divide the processes.
    """

    def __init__(
        self,
        copies: int = 1,
        process_group_backend: str | None = None,
        timeout: timedelta | None = timedelta(minutes=30),
    ) -> None:
        if copies < 1:
            raise ValueError(f"copies is {copies}; set it to 1 (FSDP2) or more (HSDP)")
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        self.copies = copies

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every process sees samples of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def setup_environment(self) -> None:
        """Connect the processes and say which of them share what."""
        self._setup_distributed()
        shares, left = divmod(self.world_size, self.copies)
        if left:
            raise ValueError(
                f"trainer.strategy.init_args.copies is {self.copies}, which does not divide "
                f"{self.world_size} processes"
            )
        device = self.root_device.type
        sizes, names = (self.copies, shares), ("copies", "shares")
        mesh = init_device_mesh(device, sizes, mesh_dim_names=names)
        self._device_mesh = mesh if self.copies > 1 else mesh["shares"]

    def setup(self, trainer: L.Trainer) -> None:
        """Make all processes' weights equal, and share them out if they are to be trained."""
        assert self.lightning_module is not None
        task = self.precision_plugin.convert_module(self.lightning_module)
        task.to(self.root_device)
        _sync_module_states(task)
        if trainer.training and not isinstance(task, FSDPModule):
            share_out(task, self.device_mesh)
        super().setup(trainer)

    def on_validation_end(self) -> None:
        """Forget the whole weights that a validation leaves: a training step begins with shares."""
        reshard(self.lightning_module)

    def local_gradients(self) -> list[Tensor]:
        """Give this process's shares of the gradients, of any shape."""
        assert self.lightning_module is not None
        gradients = (p.grad for p in self.lightning_module.parameters())
        return [g.to_local() if isinstance(g, DTensor) else g for g in gradients if g is not None]

    def total_norm(self, local: Tensor) -> Tensor:
        """Make the norm of all gradients of those of the shares; both are scalars."""
        squares = local.square()
        dist.all_reduce(squares)
        return (squares / self.copies).sqrt()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Put the weights together for the first process."""
        assert self.lightning_module is not None
        whole: dict[str, Any] = gathered(self.lightning_module.state_dict(), self.is_global_zero)
        return whole

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Put the optimizer's state together for the first process."""
        own = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        whole: dict[str, Any] = gathered(own.state_dict(), self.is_global_zero)
        return whole

    def load_checkpoint(
        self, checkpoint_path: str | os.PathLike[str], weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a file of any strategy."""
        return Strategy.load_checkpoint(self, Path(checkpoint_path), weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take whole weights, before they are shared out."""
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of the optimizer's state."""
        Strategy.load_optimizer_state_dict(self, checkpoint)
        for optimizer in self.optimizers:
            _share_state(optimizer)


def _share_state(optimizer: Optimizer) -> None:
    """Replace whole moments by this process's share of them."""
    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, DTensor):
            continue
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and name != "step":
                mesh, placements = parameter.device_mesh, parameter.placements
                state[name] = distribute_tensor(value, mesh, placements, src_data_rank=None)
