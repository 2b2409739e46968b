"""What the evaluation commands share on their way in and out."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.recipe_files import refuse_no_run
from vmm.text_output import say

if TYPE_CHECKING:  # loads torch
    from vmm.evaluation.common.results import Result


def new_parser(prog: str, description: str | None, run_help: str) -> argparse.ArgumentParser:
    """Start the options of a command with those that all have.

    Args:
        prog: How the command is typed, e.g. "vmm eval retrieval".
        description: What it does.
        run_help: What ``--run`` may be.
    """
    parser = CommandParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, help=run_help)
    add(
        "--checkpoint",
        default="best",
        help="best, last or a path (default: best); with :raw at the end, not its average",
    )
    add("--device", help="where to compute (default: cuda if there is one, else cpu)")
    add("--out", type=Path, help="folder for the results (default: inside the run)")
    add("--name", help="name of the result (default: the encoder's)")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Let other people's models stand in for ``--run``."""
    parser.add_argument(
        "--model",
        help="instead of --run: open_clip:NAME[:PRETRAINED], frame by frame; "
        "sentence-transformers:NAME; or vmm:FOLDER of `vmm export`",
    )
    help_text = "run code that comes with --model"
    parser.add_argument("--trust-remote-code", action="store_true", help=help_text)


def add_data(parser: argparse.ArgumentParser, shards_help: str, datasets: Sequence[str]) -> None:
    """Let a test set be given as shards, or as official files."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--shards", help=shards_help)
    data.add_argument("--dataset", choices=datasets, help="a published test set")
    parser.add_argument("--annotations", type=Path, help="official annotation file of the data set")
    parser.add_argument("--media", help="folder of its media, or its shards")


def add_coverage(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Let what cannot be read count, or not."""
    choices = ("strict", "available")
    parser.add_argument("--coverage", choices=choices, default="strict", help=help_text)


def add_batches(parser: argparse.ArgumentParser, size: int, help_text: str | None = None) -> None:
    """Let batches and decoding processes be chosen."""
    parser.add_argument("--batch-size", type=whole(1), default=size, help=help_text)
    help_text = "decoding processes (default: 2)"
    parser.add_argument("--num-workers", type=whole(0, 1024), default=2, help=help_text)


def run_command(
    parser: argparse.ArgumentParser,
    evaluate: Callable[[dict[str, Any], str], Result | None],
    args: Sequence[str] | None,
) -> int:
    """Be the command line of an evaluation.

    Nothing heavy is loaded before ``evaluate`` does it: help comes at once, and so does Ctrl-C.

    Args:
        parser: Its options, and how it is typed.
        evaluate: Gets their values and the command as it can be shown; returns the result, or None
            in all processes but the first.
        args: The command line; None = the process's.

    Returns:
        The exit status; see ``vmm.command_line.run_to_status``.
    """
    arguments = sys.argv[1:] if args is None else list(args)
    found = parser.parse_args(arguments)
    if (found.run is None) == (getattr(found, "model", None) is None):
        parser.error("give --run or --model" if "model" in found else "give --run")
    if getattr(found, "dataset", None):
        folder = found.annotations is not None and found.annotations.is_dir()
        if found.annotations is None or not (found.media or folder):
            parser.error("--dataset needs --annotations and --media")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("vmm").setLevel(logging.INFO)  # libraries' own progress is not shown

    def measure() -> int:
        refuse_absent(found)
        import torch

        found.device = found.device or ("cuda" if torch.cuda.is_available() else "cpu")
        result = evaluate(vars(found), portable_command(parser.prog, arguments))
        if result is not None:
            say(result.table(), lines=True)
        return 0

    return run_to_status(parser.prog, measure, "the same command goes on from what it had measured")


def refuse_absent(given: argparse.Namespace) -> None:
    """Refuse a run and shards that are not there, before torch is loaded.

    Raises:
        ValueError: With the remedy.
    """
    if given.run is not None:
        refuse_no_run(given.run)
    if getattr(given, "shards", None):
        from vmm.data.patterns import expand_shards

        expand_shards(given.shards, quiet=True)


def portable_command(prog: str, arguments: Sequence[str]) -> str:
    """Write a command without paths of this machine: relative to here, or the last part only."""
    return " ".join([prog, shlex.join(map(_portable, arguments))])


def _portable(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if path.is_absolute():
        here = Path.cwd()
        value = str(path.relative_to(here)) if path.is_relative_to(here) else path.name
    return option + equals + value


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Read how a page was made: a JSON list of names, commands and seconds."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
        return [
            {
                "name": str(step["name"]),
                "command": str(step["command"]),
                "seconds": float(step["seconds"]),
            }
            for step in steps
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not a JSON list of name, command and seconds: {error!r}"
        ) from error


def named_path(text: str) -> tuple[str, Path]:
    """Take NAME=PATH apart."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)
