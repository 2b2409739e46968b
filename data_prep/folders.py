"""Made data sets: a command line, a folder that is whole or not there, shards of made samples."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tqdm import tqdm

from data_prep.tars import Member, write_shard
from vmm.command_line import CommandParser, run_to_status, whole
from vmm.text_output import say
from vmm.whole import whole_folder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")
_Arguments = TypeVar("_Arguments", bound="DataclassInstance")

MANIFEST = "manifest.json"

_CHUNK = 16  # samples that a process makes at a time


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
    with whole_folder(out, replace=True) as folder:
        manifest = {"version": version, "arguments": arguments, **write(folder)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
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


def make_shards_of(
    shards: Mapping[str, Sequence[_Job]],
    make: Callable[[_Job], list[Member]],
    folder: Path,
    workers: int,
    unit: str,
) -> dict[str, str]:
    """Make samples, in this process or in several, and write them in order.

    Args:
        shards: File name -> what the samples in it are made of.
        make: Makes one; a function of a module, or a partial of one.
        folder: Where to.
        workers: Processes.
        unit: What the progress bar counts.

    Returns:
        File name -> SHA-256.
    """
    jobs = [job for of_shard in shards.values() for job in of_shard]
    with (
        _in_order(make, jobs, workers) as made,
        tqdm(total=len(jobs), unit=unit, desc="rendering") as progress,
    ):
        digests = {}
        for name, of_shard in shards.items():
            digests[name] = write_shard(folder / name, islice(made, len(of_shard)))
            progress.update(len(of_shard))
        return digests


@contextmanager
def _in_order(
    make: Callable[[_Job], _Made], jobs: Sequence[_Job], workers: int
) -> Iterator[Iterator[_Made]]:
    if workers <= 1:
        yield map(make, jobs)
        return
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    with process_pool(workers, len(chunks)) as pool:
        # Not `map`, which cancels when it is interrupted; a pool that then ends fails over that.
        running = [pool.submit(_make_each, make, chunk) for chunk in chunks]
        yield (made for future in running for made in future.result())


def _make_each(make: Callable[[_Job], _Made], jobs: Sequence[_Job]) -> list[_Made]:
    return [make(job) for job in jobs]


@contextmanager
def process_pool(
    workers: int, jobs: int, prepare: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Give processes that a Ctrl-C ends at once and without a word of their own.

    Args:
        workers: How many at most.
        jobs: How many there will be to do; more processes are not started.
        prepare: Called with ``arguments`` in each before it works.
        arguments: For ``prepare``.
    """
    context = multiprocessing.get_context("spawn")  # not forked: the caller may run threads
    others = set(multiprocessing.active_children())
    start = partial(_start_worker, prepare, *arguments)
    workers = max(1, min(workers, jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start) as pool:
        results = pool._result_queue  # which a pool that was shut down has forgotten
        try:
            # The terminal sends Ctrl-C to all processes; those started here inherit that it waits.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                for _ in range(workers):
                    pool.submit(int)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            yield pool
        except KeyboardInterrupt:
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
            # A child may die in the middle of a result. The pool reads on for the rest of it as
            # long as anybody could write that, and this process is the last that could.
            results._writer.close()  # type: ignore[attr-defined]
            raise


def _start_worker(prepare: Callable[..., None] | None, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare(*arguments)


def run_command(
    name: str,
    description: str,
    arguments: type[_Arguments],
    help_of: Mapping[str, str],
    make: Callable[[Path, _Arguments, int, bool], bool],
    argv: Sequence[str] | None,
) -> int:
    """Be the command line of a program that makes a data set; return the exit status.

    Args:
        name: Of the module.
        description: What it makes.
        arguments: Dataclass of integers that decide the content; each becomes an option.
        help_of: What each of them is.
        make: Gets the folder, the arguments, the number of processes and whether to replace what
            is there; returns False if the folder is already complete.
        argv: The command line.
    """
    parser = CommandParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    for field in fields(arguments):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=int, default=field.default, help=help_of[field.name])
    parser.add_argument("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")
    options = parser.parse_args(argv)

    def run() -> int:
        given = arguments(**{f.name: getattr(options, f.name) for f in fields(arguments)})
        made = make(options.out, given, options.workers, options.overwrite)
        state = "is complete" if made else "is already there, with these arguments"
        say(f"{options.out} {state}")
        return 0

    return run_to_status(name, run, "nothing was written")
