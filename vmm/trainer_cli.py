"""``vmm fit | validate | test | predict``: LightningCLI with its traps avoided.

The recipe always wins over what a checkpoint may carry, saved configs are complete, and what
cannot work is refused before anything is written.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from vmm.data.datamodules import VideoDataModule, run_folder

# Imported so that recipes may use short class names.
from vmm.models.video_vit import DividedViT, JointViT  # noqa: F401
from vmm.models.videomamba import VideoMamba  # noqa: F401
from vmm.models.weight_files import refuse_as_weights
from vmm.ops.tuning.cpu_setup import tune_cpu
from vmm.recipe_files import prepared
from vmm.recipe_parser import RecipeParser, one_sentence, with_model_configs
from vmm.runs import find_checkpoint
from vmm.tasks.accelerator import settle_accelerator
from vmm.tasks.answer import AnswerTask  # noqa: F401
from vmm.tasks.averaging import WeightAverage
from vmm.tasks.base import TrainingTask
from vmm.tasks.checkpoint_io import LastCheckpoint, SafeCheckpointIO  # noqa: F401
from vmm.tasks.classification import ClassificationTask  # noqa: F401
from vmm.tasks.compiling import LayerCompiler
from vmm.tasks.draws import SeededDraws
from vmm.tasks.embedding_writer import EmbeddingWriter
from vmm.tasks.introduction import Introduction
from vmm.tasks.loggers import go_on, make_logger
from vmm.tasks.lr_finder import RateFinder
from vmm.tasks.masked_pretrain import MaskedPretrainTask  # noqa: F401
from vmm.tasks.messages import configure_messages
from vmm.tasks.monitors import check_monitors
from vmm.tasks.number_guard import NumberGuard
from vmm.tasks.own_text import check_words, own_text, run_behind
from vmm.tasks.progress import Progress
from vmm.tasks.resume import newest_run, newest_whole, say_differences, steps_of, sweep
from vmm.tasks.run_record import RunRecord
from vmm.tasks.save_recipe import NothingToTrain, SaveRecipe
from vmm.tasks.self_distillation import SelfDistillationTask  # noqa: F401
from vmm.tasks.strategies import not_met
from vmm.tasks.throughput import Throughput
from vmm.tasks.trainer_settings import (
    check_trainer,
    refusal,
    refuse_finders,
    reworded,
    say_of_precision,
    with_safe_files,
)
from vmm.tasks.video_text import VideoTextTask  # noqa: F401
from vmm.tasks.watchdog import Lost, Watchdog, how_lost

logger = logging.getLogger(__name__)

CALLBACKS: dict[str, type[Callback]] = {
    "checkpoint": ModelCheckpoint,
    "last_checkpoint": LastCheckpoint,
    "lr_monitor": LearningRateMonitor,
    "number_guard": NumberGuard,
    "watchdog": Watchdog,
    "throughput": Throughput,
    "ema": WeightAverage,
    "compile": LayerCompiler,
    "lr_finder": RateFinder,
    "early_stopping": EarlyStopping,
}
"""Those that every run has, by the name of their settings."""


class VmmCLI(LightningCLI):
    """LightningCLI over vmm's own base classes."""

    resume = False
    """Whether a run goes on in its own folder."""

    own_text = False
    """Whether the text encoder was built from the files of the run that gives the weights."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name the callbacks that always exist, so that overlays can change one setting each."""
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        parser.set_defaults(
            {
                "lr_monitor.logging_interval": "step",
                "early_stopping.monitor": "",  # off
                "early_stopping.mode": "max",
            }
        )
        parser.add_subclass_arguments(
            Logger,
            "also_log_to",
            skip={"save_dir"},  # the run's folder
            instantiate=False,
            required=False,
            help="what gets the curves beside metrics.csv; see recipes/overlays/tensorboard.yaml",
        )
        help_text = "go on in the folder of this recipe's newest run, or begin one if there is none"
        parser.add_argument("--resume", action=ActionYesNo, default=False, help=help_text)

    def _parse_ckpt_path(self) -> None:
        """Never let hyper-parameters inside a checkpoint change what was asked for."""

    def before_instantiate_classes(self) -> None:
        """Check the settings, and choose the matrix kernels before the first one runs."""
        settings = self.config[self.subcommand]
        check_trainer(str(self.subcommand), settings["trainer"])
        self.resume, settings["resume"] = bool(settings["resume"]), False  # said anew each time
        if self.resume:
            self._name_run(settings)
        with_model_configs(settings["model"])
        tune_cpu()

    def _name_run(self, settings: Namespace) -> None:
        """Give a run that goes on the version that it had."""
        if self.subcommand != "fit" or settings["ckpt_path"] is not None:
            raise ValueError("--resume is for fit, and finds the checkpoint by itself")
        curves = settings["trainer"]["logger"]
        own = curves["init_args"] if isinstance(curves, Namespace) else {}
        if "version" not in own or "save_dir" not in own:
            raise ValueError("--resume goes on in the folder of one logger, such as CSVLogger")
        if own["version"] is None and (run := newest_run(Path(own["save_dir"], own["name"]))):
            own["version"] = run.name

    def run_behind(self, settings: Namespace) -> Path | None:
        """Find the run whose own text files serve, where the recipe names the same encoder."""
        return run_behind(settings, self.resume)

    def instantiate_classes(self) -> None:
        """Let an error of a constructor be itself, not a page of what else was tried."""
        settings = self.config[self.subcommand]
        run, parser = self.run_behind(settings), self._parser(self.subcommand)
        try:
            with own_text(parser, settings, run) as self.own_text:
                super().instantiate_classes()
        except ValueError as error:
            tried: BaseException = error
            while str(tried.__cause__).startswith("Does not validate") and tried.__cause__:
                tried = tried.__cause__
            if not str(tried).startswith("Does not validate"):
                raise
            if tried.__cause__ and not str(tried.__cause__).startswith("Expected a"):
                raise tried.__cause__ from None
            raise ValueError(one_sentence(str(tried))) from error
        if not self.own_text:
            check_words(getattr(self.model, "model", None), run)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Leave out the callbacks of what is switched off, and refuse what no trainer can be."""
        if self.subcommand in ("validate", "test"):  # they print what they find
            config["logger"] = False
        if config["enable_checkpointing"] is False:
            callbacks = [c for c in callbacks if not isinstance(c, Checkpoint)]
        if config["logger"] is False:
            callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
        off = {EarlyStopping: "monitor", RateFinder: "steps", LayerCompiler: "backend"}
        callbacks = [c for c in callbacks if getattr(c, off.get(type(c), "__class__"))]
        callbacks += self._speakers(config)
        refuse_finders(config["callbacks"])
        config["accelerator"] = settle_accelerator(config["accelerator"])
        config |= self._loggers(config) | {"plugins": with_safe_files(config["plugins"])}
        if any(isinstance(c, RateFinder) for c in callbacks):
            config, callbacks = self._to_find_rate(config, callbacks)
        try:
            trainer = super()._instantiate_trainer(config, callbacks)
        except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
            raise refusal(error) from error
        say_of_precision(config["precision"], trainer)
        return trainer

    def _speakers(self, config: dict[str, Any]) -> list[Callback]:
        """Say what Lightning's summary and bar do not, unless the recipe wants those or nothing."""
        config["enable_model_summary"] = bool(config["enable_model_summary"])
        named = config["callbacks"] if isinstance(config["callbacks"], list) else []
        if config["enable_progress_bar"] or any(isinstance(c, ProgressBar) for c in named):
            return [Introduction()]
        return [Introduction()] + [Progress()] * (config["enable_progress_bar"] is None)

    def _to_find_rate(
        self, config: dict[str, Any], callbacks: list[Callback]
    ) -> tuple[dict[str, Any], list[Callback]]:
        """Leave a run nothing that makes it one, so that it only looks for a learning rate."""
        if self.subcommand != "fit" or self.resume:
            raise ValueError("lr_finder.steps is for a fit that begins; set it to 0")
        self.save_config_callback = None
        (finder,) = (c for c in callbacks if isinstance(c, RateFinder))
        kept = (RateFinder, Throughput, Watchdog, Introduction, Progress)
        return config | finder.changed(), [c for c in callbacks if isinstance(c, kept)]

    def _loggers(self, config: dict[str, Any]) -> dict[str, Any]:
        """Put what also gets the curves after the logger whose folder is the run's."""
        own, node = config["logger"], self.config[self.subcommand]["also_log_to"]
        if self.subcommand != "fit" or node is None or own is False or config["fast_dev_run"]:
            return {}
        return {"logger": [own, make_logger(node, Path(own.log_dir))]}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Settle which checkpoint is used; an evaluation needs one, or ``init_from``."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        given = kwargs.get("ckpt_path")
        if subcommand == "fit":
            data = getattr(self.datamodule, "validates", True)
            validates = bool(data and self.trainer.limit_val_batches)
            check_monitors(self.trainer, self.model.curves(), validates)
        own = self._folder()
        in_place = given in ("best", "last") and own is not None and (own / "config.yaml").exists()
        if self.resume or (in_place and subcommand == "fit"):
            given = kwargs["ckpt_path"] = self._go_on(best=given == "best")
        else:
            self._refuse_used_folder()
        kwargs["ckpt_path"] = None if given is None else self._checkpoint(str(given))
        if subcommand != "fit" and given is not None:
            self.model.init_from = None  # the checkpoint has all weights
        elif subcommand != "fit" and self.model.init_from is None:
            raise ValueError(
                f"`vmm {subcommand}` without a checkpoint would use random weights; give "
                "--ckpt_path RUN (or a file), or --model.init_args.init_from RUN"
            )
        return kwargs

    def _go_on(self, best: bool) -> str | None:
        """Prepare the folder of a run that goes on; give the checkpoint that it goes on from."""
        run = run_folder(self.trainer)
        assert run is not None
        sweep(run)
        checkpoint = find_checkpoint(run) if best else newest_whole(run)
        logger.info("going on from %s", checkpoint or f"the beginning: {run} has no checkpoint")
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SaveRecipe):
                callback.take(run, self.trainer.is_global_zero, self.own_text)
        if not self.trainer.is_global_zero:
            return None if checkpoint is None else str(checkpoint)
        recipe = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        say_differences(run, recipe)
        if checkpoint is None:
            return None
        for curves in self.trainer.loggers:
            go_on(curves, steps_of(checkpoint))
        return str(checkpoint)

    def _folder(self) -> Path | None:
        """Find the folder of the run, or where it would be of a command that writes none."""
        named = self.config[self.subcommand]["trainer"]["logger"]
        if self.trainer.loggers or not isinstance(named, Namespace):
            return run_folder(self.trainer)
        own = named["init_args"]
        return Path(own["save_dir"], own["name"] or "", str(own["version"]))

    def _refuse_used_folder(self) -> None:
        """Refuse a folder that holds a run, before the logger deletes what is in it."""
        folder = run_folder(self.trainer)
        ours = bool(self.trainer.loggers) and self.trainer.is_global_zero
        if ours and folder is not None and (folder / "config.yaml").exists():
            raise ValueError(
                f"{folder} holds a run already; give this one a version of its own "
                "(--trainer.logger.init_args.version NAME), or go on from the other's last "
                f"checkpoint (--resume, or --ckpt_path {folder})"
            )

    def _checkpoint(self, given: str) -> str:
        """Find the checkpoint file that ``--ckpt_path`` means."""
        path = Path(given)
        if not given:
            raise ValueError("--ckpt_path is empty; is a variable of the shell not set?")
        which = "last" if self.subcommand == "fit" else "best"
        if given in ("best", "last"):
            own = self._folder()
            run = None if own is None else newest_run(own.parent)
            if run is None:
                raise ValueError(
                    f"--ckpt_path {given} is that of the newest run beside this one's folder, and "
                    "there is none; name a run's folder (fit takes the last of its checkpoints, "
                    "the other commands the best) or a file"
                )
            path, which = run, given
        if path.name == "checkpoints" and (path.parent / "config.yaml").is_file():
            path = path.parent
        if (path / "config.yaml").is_file():
            path = find_checkpoint(path, which)
            logger.info("taking %s", path)
        sweep(path.parent.parent)
        if path.suffix == ".safetensors":
            raise ValueError(
                f"{path} holds weights without the state of a run; use them with "
                f"--model.init_args.init_from {given}"
            )
        if not path.is_file() and "://" not in given and given != "hpc":
            refuse_as_weights(path)
        return given if "://" in given else str(path)


def run(args: list[str], kind: type[VmmCLI] = VmmCLI) -> VmmCLI | None:
    """Parse a command and its recipes and run it.

    Args:
        args: Command and options, as after ``vmm``.
        kind: What runs it.

    Returns:
        The finished command line object, with ``trainer``, ``model`` and ``datamodule``; None if
        ``--resume`` found a run that is finished.

    Raises:
        SystemExit: If the arguments or a recipe are wrong (status 2).
        ValueError: If the run cannot start with what the recipe names.
        KeyboardInterrupt: If it was stopped by Ctrl-C, with what is kept.
    """
    args = prepared(args)
    trainer_defaults: dict[str, Any] = {
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": "runs", "flush_logs_every_n_steps": 20},
        },
        "callbacks": [SeededDraws(), RunRecord(), EmbeddingWriter()],
        "plugins": {"class_path": "vmm.tasks.checkpoint_io.SafeCheckpointIO"},
    }
    configure_messages(args[0] if args else "")
    # Lightning starts the other processes of a distributed run with this one's sys.argv.
    argv, sys.argv = sys.argv, [sys.argv[0], *args]
    try:
        return kind(
            TrainingTask,
            VideoDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=RecipeParser,
            trainer_defaults=trainer_defaults,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=SaveRecipe,
        )
    except NothingToTrain as error:
        if "--resume" not in args:
            raise
        logger.info("%s", error)
        return None
    except (MisconfigurationException, ValueError) as error:
        raise reworded(error) from error.__cause__
    except (RuntimeError, ConnectionError, EOFError) as error:
        if lost := how_lost(error) or not_met(error):
            ended = Lost(lost)
            ended.run = getattr(error, "run", None)
            raise ended from error
        raise
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # which Lightning turns into status 1
            raise stop.__context__ from None
        raise
    finally:
        sys.argv = argv
