"""Made data sets: a command line, a folder that is whole or not there, shards of made samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import av
import numpy as np
from tqdm import tqdm

from vmm.command_line import CommandParser, DefaultsFormatter, run_to_status, whole
from vmm.shards.processes import process_pool
from vmm.shards.tars import Member, write_shard
from vmm.text_output import say
from vmm.whole import whole_folder

MANIFEST = "manifest.json"

_CHUNK = 16  # samples that a process makes at a time


def number(default: int, what: str) -> Any:
    """Declare a field of ``Arguments`` with the help of its option."""
    return field(default=default, metadata={"help": what})


@dataclass(frozen=True)
class Arguments:
    """What decides the content of a data set, byte for byte; each ``number`` becomes an option.

    Raises:
        ValueError: If a number does not fit.
    """

    even: ClassVar[tuple[str, ...]] = ()
    """Names of those that are even."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name == "seed" else 1):
                raise ValueError(f"--{name.replace('_', '-')} is {value}; give a positive number")
        for name in self.even:
            value = getattr(self, name)
            if value % 2:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; give an even number")


_Job = TypeVar("_Job")
_Arguments = TypeVar("_Arguments", bound=Arguments)


@dataclass(frozen=True)
class DataSet(Generic[_Arguments, _Job]):
    """A data set that a program makes.

    Args:
        prog: How the program is typed.
        description: What it makes.
        version: Of the program: one higher whenever the same arguments give other data.
        arguments: Class of what decides the content.
        unit: What a sample is called.
        plan: Arguments -> split -> what its samples are made of.
        deal: What the samples of a split are made of -> the same for each of its shards.
        make_sample: Makes one; a function of a module.
        texts: What ``plan`` gave, and the arguments -> file name -> content of further files.
    """

    prog: str
    description: str
    version: int
    arguments: type[_Arguments]
    unit: str
    plan: Callable[[_Arguments], dict[str, list[_Job]]]
    deal: Callable[[list[_Job]], list[list[_Job]]]
    make_sample: Callable[[_Job, _Arguments], list[Member]]
    texts: Callable[[dict[str, list[_Job]], _Arguments], dict[str, str]]

    def make(
        self, out: Path, arguments: _Arguments, workers: int = 1, overwrite: bool = False
    ) -> bool:
        """Write the whole data set with its ``manifest.json``, or nothing.

        Args:
            out: Folder to create.
            arguments: What to make.
            workers: Processes.
            overwrite: Replace a folder that holds something else.

        Returns:
            False if ``out`` already holds exactly this. What an earlier version of the program
            made with the same arguments, or what has lost a shard, is made again.

        Raises:
            ValueError: If ``out`` holds something else.
        """
        if out.exists() and any(out.iterdir()):
            state = self._state(out, arguments)
            if state == "complete":
                return False
            if state == "foreign" and not overwrite:
                raise ValueError(
                    f"{out} is not empty and was not made with these arguments; "
                    "give another --out, or --overwrite"
                )
        with whole_folder(out, replace=True) as folder:
            splits = self.plan(arguments)
            manifest = {
                "version": self.version,
                "arguments": asdict(arguments),
                f"{self.unit}s": {split: len(jobs) for split, jobs in splits.items()},
                "shards": self._write_shards(folder, splits, arguments, workers),
                "made_with": {"av": av.__version__, "numpy": np.__version__},
            }
            texts = self.texts(splits, arguments)
            for name, text in {**texts, MANIFEST: json.dumps(manifest, indent=2) + "\n"}.items():
                (folder / name).write_text(text, encoding="utf-8")
        return True

    def _state(
        self, out: Path, arguments: _Arguments
    ) -> Literal["complete", "outdated", "foreign"]:
        """Tell what a folder that is not empty holds, seen from these arguments."""
        try:
            manifest = json.loads((out / MANIFEST).read_bytes())
            if manifest["arguments"] != asdict(arguments):
                return "foreign"
            whole = all((out / name).is_file() for name in manifest["shards"])
            return "complete" if whole and manifest["version"] == self.version else "outdated"
        except (OSError, ValueError, KeyError, TypeError):
            return "foreign"

    def _write_shards(
        self, folder: Path, splits: Mapping[str, list[_Job]], arguments: _Arguments, workers: int
    ) -> dict[str, str]:
        """Make samples, in this process or in several, and write them in order.

        Returns:
            File name -> SHA-256.
        """
        shards = {
            f"{split}-{number:06d}.tar": of_shard
            for split, jobs in splits.items()
            for number, of_shard in enumerate(self.deal(jobs))
        }
        jobs = [job for of_shard in shards.values() for job in of_shard]
        with (
            self._in_order(jobs, arguments, workers) as made,
            tqdm(total=len(jobs), unit=self.unit, desc="rendering") as progress,
        ):
            digests = {}
            for name, of_shard in shards.items():
                digests[name] = write_shard(folder / name, islice(made, len(of_shard)))
                progress.update(len(of_shard))
            return digests

    @contextmanager
    def _in_order(
        self, jobs: Sequence[_Job], arguments: _Arguments, workers: int
    ) -> Iterator[Iterator[list[Member]]]:
        make = self.make_sample
        if workers <= 1:
            yield (make(job, arguments) for job in jobs)
            return
        chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
        with process_pool(workers, len(chunks)) as pool:
            # Not `map`, which cancels when it is interrupted: a pool that then ends fails over it.
            running = [pool.submit(_make_each, make, chunk, arguments) for chunk in chunks]
            yield (made for future in running for made in future.result())

    def command(self, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        """Be the program's command line, typed otherwise if so; return the exit status."""
        parser = CommandParser(
            prog=prog or self.prog,
            description=self.description,
            formatter_class=DefaultsFormatter,
        )
        add = parser.add_argument
        add("--out", type=Path, required=True, help="folder to create")
        for one in fields(self.arguments):
            flag = "--" + one.name.replace("_", "-")
            add(flag, type=int, default=one.default, help=one.metadata["help"])
        add("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
        add("--overwrite", action="store_true", help="replace what is in --out")
        given = vars(parser.parse_args(argv))
        out, workers, overwrite = (given.pop(name) for name in ("out", "workers", "overwrite"))

        def run() -> int:
            made = self.make(out, self.arguments(**given), workers, overwrite)
            state = "is complete" if made else "is already there, with these arguments"
            say(f"{out} {state}")
            return 0

        return run_to_status(parser.prog, run, "nothing was written")


def _make_each(
    make: Callable[[_Job, _Arguments], list[Member]], jobs: Sequence[_Job], arguments: _Arguments
) -> list[list[Member]]:
    return [make(job, arguments) for job in jobs]
