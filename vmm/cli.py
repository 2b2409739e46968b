"""The command ``vmm``: a light front door that loads nothing heavy until it must."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from vmm.command_line import MISTAKE, run_to_status
from vmm.text_output import complain
from vmm.version import __version__

_TRAINER_COMMANDS = {
    "fit": "train: vmm fit -c recipes/stage2_vtt.yaml [-c OVERLAY.yaml ...] [--key=value ...]",
    "validate": "retrieval on the validation shards, with a checkpoint",
    "test": "retrieval on the test shards, with a checkpoint",
    "predict": "write embeddings of the test shards to a safetensors file",
}
_LIGHT_COMMANDS = {
    "summary": "what a recipe or a run is and costs: parameters, tokens, GFLOPs, memory, steps",
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


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Arguments after ``vmm``; None takes those of the process.

    Returns:
        Exit status: 0 done, 2 a mistake in the arguments, the recipe or the data they name, 130
        stopped by Ctrl-C.
    """
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"vmm {__version__}\n")
        return 0
    command = argv[0]
    if command in _LIGHT_COMMANDS or command in _TRAINER_COMMANDS:
        return run_to_status("vmm", lambda: _main_of(command)(argv[1:]), _KEPT.get(command, ""))
    known = [*_TRAINER_COMMANDS, *_LIGHT_COMMANDS]
    near = difflib.get_close_matches(command, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if command.startswith("-"):
        hint = "the command comes first, e.g. `vmm fit -c RECIPE`; "
    complain(f"vmm: error: unknown command {command!r}; {hint}`vmm --help` lists them")
    return MISTAKE


_KEPT = {
    "fit": "the run directory keeps the checkpoints that it has",
    "export": "nothing was written",
    "encode": "the index keeps what was encoded, the same command does the rest",
    "import": "nothing was written",
    "export-upstream": "nothing was written",
}
"""What an interrupted command leaves; those that are missing leave nothing to speak of."""


def _main_of(command: str) -> Callable[[list[str]], int]:
    """Load what runs a command, and no more."""
    if command == "doctor":
        from vmm import doctor

        return doctor.main
    if command == "summary":
        return _summarize
    if command in _TRAINER_COMMANDS:
        return partial(_run_trainer, command)
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


def _run_trainer(command: str, argv: list[str]) -> int:
    """Hand over to LightningCLI."""
    with _training_extra(command):
        from vmm import trainer_cli
    ended = trainer_cli.run([command, *argv])
    if command == "fit" and ended is not None:
        from vmm.after_fit import choose_match_weight

        choose_match_weight(ended.trainer, ended.datamodule)
    return 0


def _summarize(argv: list[str]) -> int:
    with _training_extra("summary"):
        from vmm import summary
    return summary.main(argv)


@contextmanager
def _training_extra(command: str) -> Iterator[None]:
    """Say what to install where a package of training is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("vmm"):
            raise
        raise ValueError(
            f"`vmm {command}` needs the package {error.name!r}; "
            'install the training extra: pip install "vmm-video[train]"'
        ) from error
