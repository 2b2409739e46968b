"""What the evaluation commands share on their way in and out."""

from __future__ import annotations

import argparse
import logging
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import torch

from vmm import __version__
from vmm.command_line import CommandParser, run_to_status
from vmm.text_output import say, write_text


def new_parser(module: str, description: str | None, run_help: str) -> argparse.ArgumentParser:
    """Start the options of a command with those that all have.

    Args:
        module: Of the command.
        description: What it does.
        run_help: What ``--run`` may be.
    """
    parser = CommandParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, help=run_help)
    add("--checkpoint", default="best", help="best, last or a path (default: best)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
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


def folder_for(options: argparse.Namespace, name: str, model: str) -> Path:
    """Return where results go: ``--out``, or a folder in the run or below ``runs``."""
    if options.out:
        return Path(options.out)
    if options.run:
        return Path(options.run) / name
    return Path("runs") / "".join(c if c.isalnum() else "-" for c in model) / name


def run_command(
    module: str,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, str], dict[str, Any] | None],
    table: Callable[[dict[str, Any]], str],
    args: Sequence[str] | None,
) -> int:
    """Be the command line of an evaluation.

    Args:
        module: Of the command.
        parser: Its options.
        run: Gets them and the command as it can be shown; returns the result, or None in all
            processes but the first.
        table: Writes a result for the terminal.
        args: The command line; None = the process's.

    Returns:
        The exit status; see ``vmm.command_line.run_to_status``.
    """
    arguments = sys.argv[1:] if args is None else list(args)
    options = parser.parse_args(arguments)
    if (options.run is None) == (getattr(options, "model", None) is None):
        parser.error("give --run or --model" if "model" in options else "give --run")
    if options.dataset and not (options.annotations and options.media):
        parser.error("--dataset needs --annotations and --media")
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def measure() -> int:
        _refuse_missing_device(options.device)
        result = run(options, portable_command(module, arguments))
        if result is not None:
            say(table(result), lines=True)
        return 0

    return run_to_status(module, measure, "the same command goes on from what it had measured")


def _refuse_missing_device(device: str) -> None:
    """Try a device before anything is loaded for it."""
    try:
        wanted = torch.device(device)
        if wanted.type != "cuda":
            torch.zeros(1, device=wanted).item()
        elif (wanted.index or 0) >= torch.cuda.device_count():  # a trial would cost GPU memory
            raise RuntimeError(f"torch sees {torch.cuda.device_count()} GPUs")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise ValueError(
            f"--device {device!r} cannot be used here ({reason}); give cpu, cuda or cuda:NUMBER"
        ) from error


def portable_command(module: str, arguments: Sequence[str]) -> str:
    """Write a command without paths of this machine: relative to here, or the last part only."""
    return shlex.join(["python", "-m", module, *map(_portable, arguments)])


def _portable(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if path.is_absolute():
        here = Path.cwd()
        value = str(path.relative_to(here)) if path.is_relative_to(here) else path.name
    return option + equals + value


def versions() -> dict[str, str]:
    """Name the versions that a number may depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "av", "numpy")}
    return {"python": platform.python_version(), **packages, "vmm": __version__}


def write_accuracy_page(path: Path, **content: Any) -> None:
    """Write a page of accuracies: one file that loads nothing from anywhere.

    Args:
        path: The HTML file.
        content: ``title``, ``summary``, ``table`` (rows of text, header first; the second column
            is drawn as a bar), ``note``, ``tables`` (title -> rows), ``findings``, ``pictures``
            (caption -> data URI) and ``card`` (pairs of a name and a value).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "report" / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("accuracy.html.j2").render(**content)
    write_text(path, page)
