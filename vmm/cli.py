"""The command ``vmm``: a light front door that loads nothing heavy until it must."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from vmm import fit_help
from vmm.command_line import MISTAKE, run_to_status
from vmm.recipe_files import prepared, read_recipes, refuse_no_steps
from vmm.setting_names import refuse_misspelt
from vmm.text_output import complain, say
from vmm.version import __version__


class Command(NamedTuple):
    """What ``vmm`` knows of a command before anything of it is loaded."""

    about: str
    main: str
    """Module and function; gets the arguments, gives the exit status."""
    kept: str = ""
    """What it leaves when it is interrupted; nothing to speak of without."""


TRAINER_COMMANDS = {
    "fit": "train: vmm fit -c stage2_vtt.yaml [-c OVERLAY.yaml ...] [--key=value ...]",
    "validate": "retrieval on the validation shards, with a checkpoint",
    "test": "retrieval on the test shards, with a checkpoint",
    "predict": "write embeddings of the test shards to a safetensors file",
}
_NOTHING = "nothing was written"
COMMANDS = {
    "init": Command(
        "your own shards -> a short recipe that starts from a model of your choice",
        "vmm.starting.command:main",
        _NOTHING,
    ),
    "summary": Command(
        "what a recipe or a run is and costs: parameters, tokens, GFLOPs, memory, steps",
        "vmm.summary_command:main",
    ),
    "doctor": Command(
        "what is installed, which scan backend is used, what is missing and what that costs",
        "vmm.doctor:main",
    ),
    "export": Command(
        "a run -> an encoder folder for apps, sentence-transformers, ONNX or torch.export",
        "vmm.export.command:main",
        _NOTHING,
    ),
    "encode": Command(
        "videos -> an index of their moments, new and changed ones only",
        "vmm.search.filling:main",
        "the index keeps what was encoded, the same command does the rest",
    ),
    "index": Command(
        "what is in an index; check or compact it, find duplicates", "vmm.search.inspecting:main"
    ),
    "search": Command(
        "find moments in an index by a sentence or a video", "vmm.search.search_command:main"
    ),
    "app": Command("the same as a page in the browser", "vmm.search.command:main_app"),
    "serve": Command(
        "an exported encoder over HTTP: captions and videos to vectors",
        "vmm.serving.command:main",
    ),
    "import": Command(
        "a published checkpoint -> a folder that everything takes like a run directory",
        "vmm.export.published_command:main_import",
        _NOTHING,
    ),
    "export-upstream": Command(
        "a run's weights in the layout of the published checkpoints",
        "vmm.export.published_command:main_export_upstream",
        _NOTHING,
    ),
    "completion": Command(
        "print a script with which bash, zsh or fish completes all this", "vmm.completion:main"
    ),
}
_RETRIEVAL = "vmm.evaluation.retrieval"
GROUPS = {
    "eval": {
        "retrieval": Command("text to video and back, on a test set", f"{_RETRIEVAL}.command:main"),
        "classification": Command(
            "classes, by a trained classifier or by prompts",
            "vmm.evaluation.classification.command:main",
        ),
        "long-video-qa": Command(
            "multiple-choice questions about long videos",
            "vmm.evaluation.long_video_qa.command:main",
        ),
        "grounding": Command(
            "moments and highlights of videos that sentences describe",
            "vmm.evaluation.grounding.command:main",
        ),
        "open-qa": Command(
            "open questions, by a trained answer decoder", "vmm.evaluation.open_qa.command:main"
        ),
        "probe": Command(
            "what frozen features are worth: linear, nearest-neighbour and attentive probes",
            "vmm.evaluation.probe.command:main",
        ),
        "compare": Command(
            "two results of retrieval side by side: better, or luck?",
            f"{_RETRIEVAL}.compare_command:main",
        ),
        "mteb": Command(
            "tasks of mteb's leaderboards, and its results beside ours",
            "vmm.evaluation.leaderboards.mteb_command:main",
        ),
        "lint": Command("what is off with scores from anywhere", f"{_RETRIEVAL}.lint_command:main"),
        "report": Command("one page of runs and results", f"{_RETRIEVAL}.report_command:main"),
        "match-weight": Command(
            "choose how much the matching head counts, on validation clips",
            f"{_RETRIEVAL}.match_weight_command:main",
        ),
    },
    "shards": {
        "make": Command(
            "an annotation file and a folder of media -> shards", "vmm.shards.command:main_make"
        ),
        "inspect": Command(
            "count, measure and show what is in shards", "vmm.shards.command:main_inspect"
        ),
        "demo": Command(
            "the demo's clips and captions, as the demo recipes make them by themselves",
            "vmm.shards.demo.synthesize:main",
            _NOTHING,
        ),
    },
    "vectors": {
        "export": Command(
            "an index -> Parquet, NumPy, FAISS, LanceDB or Qdrant",
            "vmm.search.vectors_command:main_export",
        ),
        "import": Command(
            "vectors from Parquet or NumPy -> an index",
            "vmm.search.vectors_command:main_import",
            _NOTHING,
        ),
    },
}
"""Commands of two words."""
ABOUT_GROUPS = {
    "eval": "measure a run or somebody else's model: retrieval, classes, questions, moments, ...",
    "shards": "make shards of a data set, and look into them",
    "vectors": "the vectors of an index for other programs, and back",
}

_HELP = """usage: vmm COMMAND [OPTIONS]

vmm trains and evaluates VideoMamba-style video-text encoders.

commands:
{commands}

options:
  -h, --help     this text; `vmm COMMAND --help` for one command
  --version      print the version

Set VMM_DEBUG=1 to see the full traceback of an error.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Arguments after ``vmm``; None takes those of the process.

    Returns:
        Exit status: 0 done, 2 a mistake in the arguments, the recipe or the data they name, 130
        stopped by Ctrl-C.
    """
    argv = list(sys.argv[1:] if args is None else args)
    single = {name: command.about for name, command in COMMANDS.items()}
    commands = TRAINER_COMMANDS | ABOUT_GROUPS | single
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_HELP.format(commands=_listed(commands)))
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"vmm {__version__}\n")
        return 0
    name, *rest = argv
    if name in TRAINER_COMMANDS:
        kept = "the run directory keeps the checkpoints that it has" if name == "fit" else ""
        return run_to_status("vmm", lambda: _run_trainer(name, rest), kept)
    if name in GROUPS:
        return _run_of_group(name, rest)
    if name in COMMANDS:
        return _run(name, COMMANDS[name], rest)
    return _unknown("vmm", name, commands)


def _listed(commands: dict[str, str]) -> str:
    width = max(map(len, commands)) + 2
    return "\n".join(f"  {name:<{width}}{about}" for name, about in commands.items())


def _run_of_group(group: str, argv: list[str]) -> int:
    """Run a command of two words."""
    commands = GROUPS[group]
    if not argv or argv[0] in ("-h", "--help"):
        listed = _listed({name: command.about for name, command in commands.items()})
        sys.stdout.write(
            f"usage: vmm {group} COMMAND [OPTIONS]\n\n{ABOUT_GROUPS[group]}\n\ncommands:\n"
            f"{listed}\n\n`vmm {group} COMMAND --help` says more of one.\n"
        )
        return 0
    if argv[0] in commands:
        return _run(f"{group} {argv[0]}", commands[argv[0]], argv[1:])
    return _unknown(f"vmm {group}", argv[0], list(commands))


def _run(name: str, command: Command, argv: list[str]) -> int:
    """Load what runs a command, and no more, and run it."""

    def run() -> int:
        module, _, function = command.main.partition(":")
        with _training_extra(name):
            status: int = getattr(import_module(module), function)(argv)
        return status

    return run_to_status("vmm", run, command.kept)


def _unknown(program: str, name: str, known: Iterable[str]) -> int:
    near = difflib.get_close_matches(name, [*known], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if name.startswith("-"):
        hint = "the command comes first, e.g. `vmm fit -c RECIPE`; " if program == "vmm" else ""
    complain(f"{program}: error: unknown command {name!r}; {hint}`{program} --help` lists them")
    return MISTAKE


def _run_trainer(command: str, argv: list[str]) -> int:
    """Hand over to LightningCLI, once it is sure that the recipes are some."""
    asked = fit_help.asked_for(argv)
    if asked is not None and asked != fit_help.ALL:
        return _explain(command, asked, argv)
    argv = ["--help"] if asked else prepared(argv)
    if command == "fit":
        refuse_no_steps(argv)
    refuse_misspelt(argv)
    with _training_extra(command):
        from vmm import trainer_cli
        from vmm.tasks.watchdog import Watchdog
    Watchdog.write_page = _write_page
    try:
        ended = trainer_cli.run([command, *argv])
    except (KeyboardInterrupt, ValueError, OSError) as error:
        if (run := getattr(error, "run", None)) is not None:
            with suppress(KeyboardInterrupt):  # the first one is told
                _write_page(run)
        raise
    if command == "fit" and ended is not None:
        from vmm import after_fit

        after_fit.choose_match_weight(ended.trainer, ended.datamodule)
        after_fit.say_what_there_is(ended.trainer)
    return 0


def _write_page(run: Path) -> None:
    from vmm.after_fit import write_page

    write_page(run)


def _explain(command: str, asked: str, argv: list[str]) -> int:
    """Show the help of a trainer command, or of one of its settings."""
    recipes = read_recipes(argv)
    if not asked:
        sys.stdout.write(fit_help.page(command, recipes))
        return 0
    with _training_extra(command):
        from vmm.setting_help import explain
    say(explain(asked, recipes), lines=True)
    return 0


_PACKAGES_OF_TRAINING = (
    *("lightning", "jsonargparse", "timm", "braceexpand", "matplotlib", "jinja2", "tensorboard"),
    *("sklearn", "open_clip", "shtab"),
)


@contextmanager
def _training_extra(command: str) -> Iterator[None]:
    """Say what to install where a package of training is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in _PACKAGES_OF_TRAINING:
            raise
        raise ValueError(
            f"`vmm {command}` needs the package {package!r}; "
            'install the training extra: pip install "vmm-video[train]"'
        ) from error
