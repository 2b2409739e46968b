"""Made data sets: a command line, a folder that is whole or not there, samples made in order."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")
_Arguments = TypeVar("_Arguments", bound="DataclassInstance")

MANIFEST = "manifest.json"


def make_folder(
    out: Path,
    version: int,
    arguments: dict[str, Any],
    write: Callable[[Path], dict[str, Any]],
    overwrite: bool = False,
) -> bool:
    """Write a whole data set with its ``manifest.json``, or nothing.

    Everything is written beside ``out`` and renamed when it is complete.

    Args:
        out: Folder to create.
        version: Of the program: one higher whenever the same arguments give other data.
        arguments: What decides the content.
        write: Fills an empty folder and returns what else the manifest says: ``shards`` (file name
            -> hash), at least.
        overwrite: Replace a folder that holds something else.

    Returns:
        False if ``out`` already holds exactly this. What an earlier version of the program made
        with the same arguments, or what has lost a shard, is made again.

    Raises:
        ValueError: If ``out`` holds something else.
    """
    if out.exists() and any(out.iterdir()):
        state = _state(out, version, arguments)
        if state == "complete":
            return False
        if state == "foreign" and not overwrite:
            raise ValueError(
                f"{out} is not empty and was not made with these arguments; "
                "give another --out, or --overwrite"
            )
    unfinished = out.parent / f".{out.name}.partial-{os.getpid()}"
    unfinished.mkdir(parents=True)
    try:
        manifest = {"version": version, "arguments": arguments, **write(unfinished)}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if out.exists():
            shutil.rmtree(out)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _state(
    out: Path, version: int, arguments: dict[str, Any]
) -> Literal["complete", "outdated", "foreign"]:
    """Tell what a folder that is not empty holds, seen from these arguments."""
    try:
        manifest = json.loads((out / MANIFEST).read_bytes())
        if manifest["arguments"] != arguments:
            return "foreign"
        whole = all((out / name).is_file() for name in manifest["shards"])
        return "complete" if whole and manifest["version"] == version else "outdated"
    except (OSError, ValueError, KeyError, TypeError):
        return "foreign"


@contextmanager
def in_order(
    make: Callable[[_Job], _Made], jobs: Sequence[_Job], workers: int
) -> Iterator[Iterator[_Made]]:
    """Do jobs in order, in this process or in several.

    Args:
        make: Does one; a function of a module, or a partial of one.
        jobs: All of them.
        workers: Processes.
    """
    if workers <= 1:
        yield map(make, jobs)
        return
    # Spawned, not forked: the caller may run threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool.map(make, jobs, chunksize=16)


def run_command(
    name: str,
    description: str,
    arguments: type[_Arguments],
    help_of: Mapping[str, str],
    make: Callable[[Path, _Arguments, int, bool], bool],
    argv: Sequence[str] | None,
) -> int:
    """Be the command line of a program that makes a data set; return the exit code.

    Args:
        name: Of the module.
        description: What it makes.
        arguments: Dataclass of integers that decide the content; each becomes an option.
        help_of: What each of them is.
        make: Gets the folder, the arguments, the number of processes and whether to replace what
            is there; returns False if the folder is already complete.
        argv: The command line.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    for field in fields(arguments):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=int, default=field.default, help=help_of[field.name])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")
    options = parser.parse_args(argv)
    try:
        given = arguments(**{f.name: getattr(options, f.name) for f in fields(arguments)})
        made = make(options.out, given, options.workers, options.overwrite)
    except ValueError as error:
        parser.error(str(error))
    print(f"{options.out} {'is complete' if made else 'is already there, with these arguments'}")
    return 0
