"""Which of Lightning's strategies train as one process would, and what to take for the others."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed import DistStoreError

logger = logging.getLogger(__name__)

_NAMES = {"auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"}
_CLASSES = {"DDPStrategy", "SingleDeviceStrategy", "ShardedStrategy", "ZeroStrategy"}
_ALONE = ("model_averaging_period", "ddp_comm_state", "ddp_comm_hook")
"""Settings of ``DDPStrategy`` with which processes do not have the same gradients."""


def check_strategy(given: Any) -> None:
    """Refuse a strategy under which training would be another one, or that nobody has tried.

    Args:
        given: ``trainer.strategy``: a name, or a node with ``class_path`` and ``init_args``.

    Raises:
        ValueError: With what to take instead.
    """
    arguments: Mapping[str, Any] = {}
    if isinstance(given, str):
        name, known = given, given in _NAMES
    else:
        name = str(given["class_path"])
        arguments = given.get("init_args") or {}
        ours = name.startswith(("lightning.", "vmm."))
        known = ours and name.rpartition(".")[2] in _CLASSES
    alone = [key for key in _ALONE if arguments.get(key) is not None]
    if arguments.get("start_method", "popen") != "popen":
        alone.append("start_method")
    if alone:
        raise ValueError(
            f"trainer.strategy.init_args.{alone[0]} is {arguments[alone[0]]!r}, with which this "
            "training was never compared to that of one process; leave it out"
        )
    if not known:
        raise ValueError(
            f"trainer.strategy {name} would not train as one process does; take "
            f"-c recipes/overlays/{_instead(name)}.yaml"
        )


def _instead(name: str) -> str:
    if re.search("deepspeed|zero", name, re.IGNORECASE):
        stage = re.search("[13]", name)
        return f"zero{stage[0] if stage else 2}"
    return "fsdp2" if re.search("fsdp|ModelParallel", name, re.IGNORECASE) else "ddp"


def not_met(error: BaseException) -> str:
    """Say it, if an error is that of processes that waited for others to start; else nothing."""
    if not isinstance(error, DistStoreError):
        return ""
    return (
        f"the processes did not find each other: {error} Start all of them, or let them wait "
        "longer with trainer.strategy.init_args.timeout"
    )


_LAUNCHERS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
_BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def check_machines(number: int, plugins: Any) -> None:
    """Refuse several machines of which nobody says which one this is: it would wait for ever.

    Args:
        number: ``trainer.num_nodes``.
        plugins: ``trainer.plugins``, one of which may know.

    Raises:
        ValueError: With how to start them.
    """
    if number < 2 or "Environment" in str(plugins) or any(x.detect() for x in _LAUNCHERS):
        return
    if any(name not in os.environ for name in _BY_HAND):
        raise ValueError(
            f"trainer.num_nodes is {number}, and nothing has started this process as one of them; "
            "start it on each machine by srun or torchrun (the README shows how), or with "
            f"{', '.join(_BY_HAND)} in the environment, or set trainer.num_nodes to 1"
        )
    which, address, port = (os.environ[name] for name in _BY_HAND)
    logger.info("machine %s, the first is 0; waiting for others at %s:%s", which, address, port)
