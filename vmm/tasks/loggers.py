"""TensorBoard and its like beside the run's own ``metrics.csv``."""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from vmm.tasks.resume import continue_curves

_PACKAGES = {"TensorBoardLogger": "tensorboard", "WandbLogger": "wandb", "MLFlowLogger": "mlflow"}


def check_logger(node: Any) -> None:
    """Refuse another logger in the place of the one whose folder is the run's.

    Args:
        node: ``trainer.logger`` of a recipe.

    Raises:
        ValueError: If it is not a ``CSVLogger``.
    """
    if node is False:
        return
    own = isinstance(node, Namespace) and issubclass(_class_of(node), CSVLogger)
    if not own:
        said = getattr(node, "class_path", "a list" if isinstance(node, list) else node)
        raise ValueError(
            f"trainer.logger is {said}; a run's folder and its metrics.csv are those of a "
            "CSVLogger. Leave it out, and name what should have the curves, too, as also_log_to "
            "(-c recipes/overlays/tensorboard.yaml)"
        )


def make_logger(node: Namespace, run: Path) -> Logger:
    """Make the logger that has the curves, too.

    Args:
        node: ``class_path`` and ``init_args`` of a recipe.
        run: The run's folder, where it keeps its files.

    Raises:
        ValueError: If its package is not installed.
    """
    cls = _class_of(node)
    package = _PACKAGES.get(cls.__name__, "")
    if package and find_spec(package) is None:
        raise ValueError(f"also_log_to: {cls.__name__} needs {package}: pip install {package}")
    arguments = dict(node.get("init_args") or {})
    given = {name: value for name, value in arguments.items() if value is not None}
    title = f"{run.parent.name}/{run.name}"
    if package == "tensorboard":  # among the run's files, so that `tensorboard --logdir runs` works
        given |= {"name": "", "version": ""}
    elif package == "wandb":  # a run that goes on goes on there, too
        digest = hashlib.blake2b(str(run.absolute()).encode(), digest_size=8).hexdigest()
        given = {"name": title, "id": digest, "resume": "allow"} | given
    elif package == "mlflow":
        given = {"run_name": title} | given
    made = cls(**(dict(node.get("dict_kwargs") or {}) | given), save_dir=str(run))
    assert isinstance(made, Logger)
    return made


def go_on(curves: Logger, steps: int) -> None:
    """Let a logger go on without what comes after a checkpoint.

    Args:
        curves: Before its first use.
        steps: Steps that are done and not done again.
    """
    if isinstance(curves, TensorBoardLogger):
        curves._kwargs["purge_step"] = steps
    elif isinstance(curves, CSVLogger):
        continue_curves(curves, steps)


def _class_of(node: Namespace) -> type:
    module, _, name = str(node.class_path).rpartition(".")
    found = getattr(import_module(module), name)
    assert isinstance(found, type)
    return found
