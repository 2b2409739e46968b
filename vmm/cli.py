"""The command ``vmm``: a light front door that loads nothing heavy until it must."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence

from vmm import __version__
from vmm.text_output import complain

_TRAINER_COMMANDS = {
    "fit": "train: vmm fit -c recipes/stage2_vtt.yaml [-c OVERLAY.yaml ...] [--key=value ...]",
    "validate": "retrieval on the validation shards, with a checkpoint",
    "test": "retrieval on the test shards, with a checkpoint",
    "predict": "write embeddings of the test shards to a safetensors file",
}
_LIGHT_COMMANDS = {
    "doctor": "what is installed, which scan backend is used, what is missing and what that costs",
    "export": "a run -> an encoder folder for apps, sentence-transformers, ONNX or torch.export",
    "encode": "videos -> an index of their moments, new and changed ones only",
    "index": "what is in an index; check or compact it",
    "search": "find moments in an index by a sentence or a video",
    "app": "the same as a page in the browser",
    "import": "a published checkpoint -> a folder that everything takes like a run directory",
    "export-upstream": "a run's weights in the layout of the published checkpoints",
}

_HELP = """usage: vmm COMMAND [OPTIONS]

vmm trains and evaluates VideoMamba-style video-text encoders.

commands:
{commands}

Evaluation and data preparation run from a checkout:
  python -m data_prep.synthesize --help
  python -m eval.retrieval --help

options:
  -h, --help     this text; `vmm COMMAND --help` for one command
  --version      print the version

Set VMM_DEBUG=1 to see the full traceback of an error.
"""


def _help() -> str:
    commands = _TRAINER_COMMANDS | _LIGHT_COMMANDS
    width = max(map(len, commands)) + 2
    return _HELP.format(commands="\n".join(f"  {k:<{width}}{v}" for k, v in commands.items()))


def _fail(message: str) -> int:
    complain(f"vmm: error: {message}")
    return 2


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Arguments after ``vmm``; None takes those of the process.

    Returns:
        Exit status: 0 done, 2 a mistake in the arguments, the recipe or the data they name.
    """
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"vmm {__version__}\n")
        return 0
    command = argv[0]
    if command in _LIGHT_COMMANDS:
        return _run_light(command, argv[1:])
    if command in _TRAINER_COMMANDS:
        return _run_trainer(argv)
    known = [*_TRAINER_COMMANDS, *_LIGHT_COMMANDS]
    near = difflib.get_close_matches(command, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return _fail(f"unknown command {command!r}; {hint}`vmm --help` lists them")


def _run_light(command: str, argv: list[str]) -> int:
    """Run a command that needs no trainer; turn a user's mistake into one line."""
    if command == "doctor":
        from vmm import doctor

        return doctor.main(argv)
    try:
        return _main_of(command)(argv)
    except ValueError as error:
        if os.environ.get("VMM_DEBUG"):
            raise
        return _fail(str(error))


def _main_of(command: str) -> Callable[[list[str]], int]:
    """Load what runs a command, and no more."""
    if command in ("encode", "index", "search", "app"):
        from vmm.search import command as searching

        return {
            "encode": searching.main_encode,
            "index": searching.main_index,
            "search": searching.main_search,
            "app": searching.main_app,
        }[command]
    from vmm.export import command as exporting
    from vmm.export import published

    return {
        "export": exporting.main,
        "import": published.main_import,
        "export-upstream": published.main_export_upstream,
    }[command]


def _run_trainer(argv: list[str]) -> int:
    """Hand over to LightningCLI; turn a user's mistake into one line."""
    try:
        from vmm import trainer_cli
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("vmm"):
            raise
        return _fail(
            f"`vmm {argv[0]}` needs the package {error.name!r}; "
            'install the training extra: pip install "vmm-video[train]"'
        )
    try:
        trainer_cli.run(argv)
    except ValueError as error:
        if os.environ.get("VMM_DEBUG"):
            raise
        return _fail(str(error))
    return 0
