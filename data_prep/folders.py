"""Made data sets: a folder that is written whole or not at all, and samples rendered in order."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")

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
