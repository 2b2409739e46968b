"""All benchmarks of one thread of a CPU, one after the other, and what became of their bars.

``python -m benchmarks [NAME ...] [--short] [--output FOLDER]``. Each runs in a process of its own,
as some change their process for good (threads, freed memory).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import report

NAMES = ("scan", "block", "step", "compiling", "decode", "encoder", "export", "long_video")
NAMES += ("care", "rerank", "collection", "opening", "loading")


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; return the exit status, 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {NAMES}")
    parser.add_argument("--short", action="store_true", help="minutes instead of an hour")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no benchmark {sorted(unknown)}; there are {', '.join(NAMES)}")
    names = given.names or NAMES
    start, statuses, missed = time.monotonic(), [], []
    for number, name in enumerate(names, 1):
        began = time.monotonic()
        statuses.append(run(name, given.short, given.output))
        if statuses[-1]:
            done = f"failed with status {statuses[-1]}"
        else:
            bars = bars_of(name, given.output)
            missed += [bar for bar in bars if not bar.met]
            done = f"{sum(bar.met for bar in bars)} of {len(bars)} bars met" if bars else "no bars"
        took = time.monotonic() - began
        print(f"{number} of {len(names)}, {name}: {done}, {took:.0f} s", flush=True)
    if missed:
        print(report.bar_table(missed))
    print(f"{time.monotonic() - start:.0f} s; the pages are in {given.output}")
    return int(any(statuses))


def run(name: str, short: bool, output: Path) -> int:
    """Run one benchmark in a process of its own; return how that ended.

    On Linux that is a fork, so that what several of them import is loaded once.
    """
    module = f"benchmarks.{name}"
    forks = sys.platform == "linux"
    if forks:
        importlib.import_module(module)
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    process = context.Process(target=_alone, args=(module, short, output))
    process.start()
    process.join()
    return int(process.exitcode)


def _alone(module: str, short: bool, output: Path) -> None:
    sys.argv = [module, "--output", str(output), *(["--short"] if short else [])]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        importlib.import_module(module).main()  # the page that it prints is in the folder, too


def bars_of(name: str, folder: Path) -> list[report.Bar]:
    """Read the bars of the result that a benchmark wrote last."""
    path = max(folder.glob(f"{name}_*.json"), key=lambda path: path.stat().st_mtime_ns)
    bars = json.loads(path.read_text("utf-8"))["bars"]
    return [report.Bar(**{field: bar[field] for field in report.Bar._fields}) for bar in bars]


if __name__ == "__main__":
    sys.exit(main())
