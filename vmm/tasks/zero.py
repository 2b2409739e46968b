"""DeepSpeed's ZeRO: processes share moments, gradients (stage 2) and weights (stage 3).

On CUDA devices, and on CPUs, where all of it can be tried. What Lightning's strategy does
otherwise: it refuses CPUs, writes folders that only DeepSpeed reads, with the frozen teacher in
them, and does not let a step be skipped.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.fabric.strategies.deepspeed import _DEEPSPEED_AVAILABLE
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from vmm.tasks.sharding import OneFile

_BY_NUMBER = {
    *("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "ASGD", "RMSprop", "Adadelta", "Rprop"),
    *("DeepSpeedCPUAdam", "FusedAdam"),
}
"""Optimizers that do to each number what they would do to it alone."""


class ZeroStrategy(OneFile, DeepSpeedStrategy):
    """ZeRO 1, 2 or 3, with or without offload to the CPU's memory.

    Checkpoints are those of one process, with weights and moments in float32: the shares are put
    together and written as one file.

    Args:
        stage: 1 shares the moments, 2 the gradients as well, 3 the weights as well.
        offload_optimizer: Keep moments and the step of the optimizer on the CPU.
        offload_parameters: Keep weights on the CPU until they are needed (stage 3).
        bucket_size: Numbers that are exchanged at once.
        process_group_backend: As torch.distributed calls it; null: the device's.
        timeout: For a process that does not answer.

    Raises:
        ValueError: If DeepSpeed is not installed, or the settings do not go together.
    """

    def __init__(
        self,
        stage: int = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        bucket_size: int = 200_000_000,
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        if stage not in (1, 2, 3):
            raise ValueError(
                f"stage is {stage}; set it to 1, 2 or 3, and without sharing take "
                "-c recipes/overlays/ddp.yaml"
            )
        if offload_parameters and stage != 3:
            raise ValueError(f"offload_parameters needs stage 3, and stage is {stage}")
        if not _DEEPSPEED_AVAILABLE:
            raise ValueError('DeepSpeed is not installed: pip install "vmm-video[deepspeed]"')
        super().__init__(
            stage=stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
            reduce_bucket_size=bucket_size,
            allgather_bucket_size=bucket_size,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.stage = stage
        assert isinstance(self.config, dict)
        self.config["zero_force_ds_cpu_optimizer"] = False  # the recipe names the optimizer
        self._groups: list[list[nn.Parameter]] = []
        self._skips = False

    def _load_config(self, config: Any) -> None:
        """Take no settings from a file that the environment names."""

    def setup_environment(self) -> None:
        """Connect the processes, on any device."""
        if self.root_device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
            # `import deepspeed.comm.torch as ...` gives torch, which that package has as a name.
            backend: Any = importlib.import_module("deepspeed.comm.torch")
            backend.build_shm_op = lambda: None  # compiles for minutes what serves inference alone
        Strategy.setup_environment(self)
        self.setup_distributed()

    def setup_distributed(self) -> None:
        """Connect the processes, in whatever order the devices were named."""
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Build and load whole models: they are shared out after."""
        yield

    def init_deepspeed(self) -> None:
        """Hand the model over to DeepSpeed, if it is to be trained."""
        assert self.lightning_module is not None
        task = self.lightning_module
        if task.trainer.training:
            super().init_deepspeed()
            return
        precision: Any = self.precision_plugin
        task.to(self.root_device, precision._desired_dtype)
        _sync_module_states(task)

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Optimizer | None, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        import deepspeed

        kind = type(optimizer).__name__
        if optimizer is None or kind not in _BY_NUMBER:
            raise ValueError(
                f"ZeRO cuts parameters into flat shares, of which {kind} would make other steps; "
                "take AdamW, or -c recipes/overlays/ddp.yaml"
            )
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        engine, shared, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank),
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, shared

    @torch.no_grad()
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tell the optimizer's copies where the task has clamped a single number."""
        assert self.lightning_module is not None
        for parameter in self.lightning_module.parameters():
            single = getattr(parameter, "ds_numel", parameter.numel()) == 1
            own = _share(parameter) if single and parameter.requires_grad else None
            if own is not None and parameter.numel():
                seen = parameter.detach().to(own.device)
                own.copy_(torch.where(own.to(seen.dtype) == seen, own, seen.to(own.dtype)))

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: Any = None,
        **unused: Any,
    ) -> Any:
        """Train a batch; at the end of a step, let callbacks look at it and do it or skip it."""
        assert self.lightning_module is not None
        result = closure()
        if self.deepspeed_engine.is_gradient_accumulation_boundary():
            self.precision_plugin._after_closure(self.lightning_module, optimizer)
        sharing: Any = self.deepspeed_engine.optimizer
        name = "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        if self._skips:  # DeepSpeed skips a step of which the gradients' norm is not finite
            endless = torch.tensor(torch.inf, device=self.root_device)
            setattr(sharing, name, lambda: [endless] if self.stage == 3 else endless)
        self.deepspeed_engine.step()
        if self._skips:
            delattr(sharing, name)
            self._skips = False
        return result

    def gradient_norm(self) -> Tensor:
        """Measure all gradients before they are clipped: a scalar, infinity if any is not."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        sharing: Any = self.deepspeed_engine.optimizer
        if self.stage == 3:
            norm = combine_grad_norm_groups(sharing._get_norm_groups())
        else:
            norm = sharing.scaled_global_norm()
        whole: Tensor = torch.as_tensor(norm, device=self.root_device) / sharing.loss_scale
        return whole

    def whole_gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """Put a gradient, of any shape, together; all processes call it before a step."""
        from deepspeed.utils import safe_get_full_grad

        gradient: Tensor | None = safe_get_full_grad(parameter) if parameter.requires_grad else None
        return gradient

    def skip_step(self) -> None:
        """Let the optimizer's next step change nothing."""
        self._skips = True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Put the weights together for the first process, in the precision of the optimizer."""
        assert self.lightning_module is not None
        task = self.lightning_module
        state: dict[str, Any] = {}
        for name, parameter in task.named_parameters():
            if not name.startswith("teacher."):
                self._keep(state, name, self._weight(parameter))
        persistent = task.state_dict(keep_vars=True) if self.is_global_zero else {}
        buffers = {name for name, _ in task.named_buffers()}
        return state | {name: x.cpu() for name, x in persistent.items() if name in buffers}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Put the optimizer's state together for the first process, as if it were alone."""
        from deepspeed.utils import safe_get_full_optimizer_state

        sharing: Any = self.deepspeed_engine.optimizer
        own = sharing.optimizer
        if self.stage != 3:
            _find_moments(sharing)
        kinds = _kinds(own)
        state: dict[int, dict[str, Any]] = {}
        groups, number = [], 0
        for group, settings in zip(self._groups, own.param_groups, strict=True):
            names = {k: v for k, v in settings.items() if k != "params"}
            groups.append(names | {"params": [*range(number, number + len(group))]})
            for parameter in group:
                if parameter.requires_grad and kinds:
                    entry: dict[str, Any] = {}
                    for kind, single in kinds.items():
                        value = single
                        if value is None:
                            value = safe_get_full_optimizer_state(parameter, kind)
                        self._keep(entry, kind, value)
                    state[number] = entry
                number += 1
        return {"state": state, "param_groups": groups} if self.is_global_zero else {}

    def _keep(self, state: dict[str, Any], name: str, value: Any) -> None:
        """Note a value on the CPU of the first process."""
        if self.is_global_zero:
            state[name] = value.detach().cpu().clone() if isinstance(value, Tensor) else value

    def _weight(self, parameter: nn.Parameter) -> Tensor:
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        whole: Tensor | None = safe_get_full_fp32_param(parameter)
        if whole is not None:
            return whole
        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a file of any strategy."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take whole weights, before they are shared out."""
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of the optimizer's state, and of weights in its precision."""
        assert self.lightning_module is not None
        for name, parameter in self.lightning_module.named_parameters():
            if parameter.requires_grad:
                _set_share(parameter, checkpoint["state_dict"][name])
        (saved,) = checkpoint["optimizer_states"]
        sharing: Any = self.deepspeed_engine.optimizer
        numbers = [n for group in saved["param_groups"] for n in group["params"]]
        parameters = [p for group in self._groups for p in group]
        if len(numbers) != len(parameters):
            raise ValueError(
                f"the checkpoint's optimizer has {len(numbers)} parameters and this one "
                f"{len(parameters)}; take a checkpoint of this recipe"
            )
        entries = {p: saved["state"].get(n, {}) for n, p in zip(numbers, parameters, strict=True)}
        self._make_room(sharing, entries)
        for parameter, entry in entries.items():
            for kind, value in entry.items():
                if parameter.requires_grad and _by_number(value):
                    _set_share(parameter, value, kind)

    def _make_room(self, sharing: Any, entries: Mapping[nn.Parameter, Mapping[str, Any]]) -> None:
        """Give the optimizer the state that it would have after a step."""
        flat = [p for group in sharing.optimizer.param_groups for p in group["params"]]
        if self.stage == 3:
            flat = list(sharing.fp32_partitioned_groups_flat)
        example: Mapping[str, Any] = next(
            (e for p, e in entries.items() if e and p.requires_grad), {}
        )
        for share in flat:
            for kind, value in example.items():
                room = torch.zeros_like(share) if _by_number(value) else value.clone()
                sharing.optimizer.state[share][kind] = room
        if self.stage != 3:
            _find_moments(sharing)


def _find_moments(sharing: Any) -> None:
    """Let parameters find their moments; DeepSpeed looks after the first group's first step."""
    sharing._hp_optimizer_states_linked = False
    sharing._lazy_init_hp_params_optimizer_state()


def _by_number(value: Any) -> bool:
    """Tell a state that each number of a parameter has from one of the whole, as its step."""
    return isinstance(value, Tensor) and value.ndim > 0


def _kinds(optimizer: Optimizer) -> dict[str, Any]:
    """Name what an optimizer keeps; with the value, where it is one of the whole."""
    entry: dict[str, Any] = next((state for state in optimizer.state.values() if state), {})
    return {kind: None if _by_number(value) else value for kind, value in entry.items()}


def _share(parameter: nn.Parameter) -> Tensor | None:
    """Give the optimizer's copy of a parameter, as far as it is this process's."""
    if hasattr(parameter, "ds_id"):
        if dist.get_rank():  # a single number is the first process's
            return None
        sharing: Any = parameter._z3_optimizer  # type: ignore[attr-defined]
        share: Tensor = sharing._get_fp32_opt_state_partition(parameter, False)[0]
        return share
    held = getattr(parameter, "_hp_mapping", None)
    return None if held is None else held.hp_fragment


def _set_share(parameter: nn.Parameter, value: Tensor, kind: str | None = None) -> None:
    """Take this process's share of a whole value: of the weight, or of a moment."""
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    value = value.float()
    if hasattr(parameter, "ds_id"):
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        first = size * dist.get_rank()
        flat = F.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
        value = flat[first : first + size]
        setter = safe_set_local_fp32_param if kind is None else safe_set_local_optimizer_state
    else:
        setter = safe_set_full_fp32_param if kind is None else safe_set_full_optimizer_state
    setter(parameter, value, *([] if kind is None else [kind]))
