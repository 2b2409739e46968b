"""``vmm fit | validate | test | predict``: LightningCLI with its traps avoided.

The recipe always wins over what a checkpoint may carry, saved configs are complete, and a
misspelt key costs one line, not fifty.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from vmm.data.datamodules import VideoDataModule

# Imported so that recipes may use short class names.
from vmm.models.clip_vit import FrameViT  # noqa: F401
from vmm.models.videomamba import VideoMamba  # noqa: F401
from vmm.ops.cpu_setup import tune_cpu
from vmm.tasks.answer import AnswerTask  # noqa: F401
from vmm.tasks.base import TrainingTask
from vmm.tasks.checkpoint_io import LastCheckpoint, SafeCheckpointIO  # noqa: F401
from vmm.tasks.embedding_writer import EmbeddingWriter
from vmm.tasks.masked_pretrain import MaskedPretrainTask  # noqa: F401
from vmm.tasks.video_text import VideoTextTask  # noqa: F401

_NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Expected a .*NoneType|Given value|Got value: [{N]"
)


class Parser(LightningArgumentParser):
    """The argument parser, with short errors that name the nearest accepted key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Abbreviations would be taken on the command line but not in a recipe.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the mistake and what was probably meant, then exit with status 2."""
        if os.environ.get("VMM_DEBUG") or not self.exit_on_error:
            super().error(message, ex)
        lines = [line.strip() for line in message.splitlines()]
        useful = [line[:200] for line in lines if line and not _NOISE.search(line)]
        near = _nearest(getattr(ex, "subcommand_parser", None) or self, message)
        hint = f"\n  did you mean {near!r}?" if near else ""
        sys.stderr.write("vmm: error: " + "\n  ".join(useful[:6]) + hint + "\n")
        raise SystemExit(2)


def _nearest(parser: LightningArgumentParser, message: str) -> str | None:
    """The accepted key that looks most like the one an error message refuses."""
    refused = re.search(r"[Oo]ption '([\w.+-]+)'|arguments?: --([\w.+-]+)", message)
    if refused is None:
        return None
    group = re.search(r"Group '([\w.]+)'", message)
    key = (f"{group[1]}." if group else "") + (refused[1] or refused[2])
    owners = re.findall(r"class_path '([\w.]+)'", message[: refused.start()])
    if owners:
        module, _, name = owners[-1].rpartition(".")
        known = list(inspect.signature(getattr(import_module(module), name)).parameters)
    else:
        commands = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
        parsers = [parser, *(sub for choices in commands for sub in choices.values())]
        known = [action.dest for sub in parsers for action in sub._actions]
    near = get_close_matches(key, known, n=1)
    return near[0] if near else None


def _configure_messages() -> None:
    """Show vmm's own messages once, by the first process, and leave out Lightning's tips."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("vmm: %(message)s"))
    root = logging.getLogger("vmm")
    root.handlers = [handler]
    root.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


class VmmCLI(LightningCLI):
    """LightningCLI over vmm's own base classes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name the callbacks that always exist, so that overlays can change one setting each."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.set_defaults({"lr_monitor.logging_interval": "step"})

    def _parse_ckpt_path(self) -> None:
        """Never let hyper-parameters inside a checkpoint change what was asked for."""

    def before_instantiate_classes(self) -> None:
        """Choose the matrix kernels before the first one runs."""
        tune_cpu()


def run(args: list[str]) -> VmmCLI:
    """Parse a command and its recipes and run it.

    Args:
        args: Command and options, as after ``vmm``.

    Returns:
        The finished command line object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        SystemExit: If the arguments or a recipe are wrong (status 2).
        ValueError: If the run cannot start with what the recipe names.
    """
    trainer_defaults: dict[str, Any] = {
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": "runs", "flush_logs_every_n_steps": 20},
        },
        "callbacks": [EmbeddingWriter()],
        "plugins": {"class_path": "vmm.tasks.checkpoint_io.SafeCheckpointIO"},
    }
    _configure_messages()
    # Lightning starts the other processes of a distributed run with this one's sys.argv.
    argv, sys.argv = sys.argv, [sys.argv[0], *args]
    try:
        return VmmCLI(
            TrainingTask,
            VideoDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            trainer_defaults=trainer_defaults,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
    finally:
        sys.argv = argv
