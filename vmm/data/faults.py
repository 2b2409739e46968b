"""What is wrong with the data: counted, recorded, and a stop when it is too much."""

from __future__ import annotations

import ctypes
import json
import logging
import time
from collections import Counter
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

_EVIDENCE = 32
_NAME_BYTES = 400


class SampleError(ValueError):
    """A sample cannot be used: its file, its words or its place in a shard.

    Args:
        reason: The kind, to count by.
        detail: What happened.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class UnusableData(ValueError):
    """So much of the training data is bad that training stops."""


class BadSample(NamedTuple):
    """One line of the quarantine file."""

    shard: str
    """Empty for a file of a folder."""
    key: str
    """Of the sample or tar member; empty if the whole shard is meant."""
    reason: str
    """The kind, to count by."""
    detail: str = ""

    @property
    def place(self) -> str:
        """Where it is, as one name."""
        return "/".join(filter(None, (self.shard, self.key)))


class BadSamples:
    """Counts samples that could not be used, logs them now and then, and records them.

    Args:
        record: Quarantine file: one JSON line with the fields of ``BadSample`` for each, once.
        limit: ``check`` stops above this share of the samples that this process has read, but not
            before 32 were bad; 0 stops at the first.
    """

    def __init__(self, record: str | None = None, limit: float = 1.0) -> None:
        self.record = record
        self.limit = limit
        self.usable = 0
        """Samples that this process could use; the stream counts them."""
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, BadSample] = {}
        self._recorded: set[tuple[str, str, str]] | None = None

    def add(self, sample: BadSample) -> None:
        """Count one; logged when it is the 1st, 10th, 100th ... of its kind in this process."""
        self.counts[sample.reason] += 1
        self._examples.setdefault(sample.reason, sample)
        count = self.counts[sample.reason]
        if count in (1, 10, 100) or count % 1000 == 0:
            _log.warning(
                "cannot use %r (%s: %s); %d of this kind so far",
                *(sample.place, sample.reason, sample.detail, count),
            )
        self.write(sample)

    def write(self, sample: BadSample) -> None:
        """Record a sample without counting it, unless the file has it already."""
        if self.record is None:
            return
        if self._recorded is None:
            self._recorded = _read_record(self.record)
        if sample[:3] not in self._recorded:
            self._recorded.add(sample[:3])
            Path(self.record).parent.mkdir(parents=True, exist_ok=True)
            # One write in append mode: lines of several workers do not mix.
            with open(self.record, "ab", buffering=0) as file:
                file.write(json.dumps(sample._asdict()).encode() + b"\n")

    def check(self) -> None:
        """Stop if too much is bad.

        Raises:
            UnusableData: With a table of the causes.
        """
        bad = self.counts.total()
        tried = bad + self.usable
        if bad <= self.limit * tried or (bad < _EVIDENCE and self.limit > 0):
            return
        raise UnusableData(
            f"{bad} of {tried} training samples that this process has read cannot be used "
            f"({bad / tried:.0%}), more than max_bad = {self.limit:.0%} allows:\n{self.table()}\n"
            "repair or remove these shards, or raise data.init_args.max_bad; "
            f"the quarantine file ({self.record or 'data.init_args.quarantine, not set'}) "
            "names every bad sample"
        )

    def table(self) -> str:
        """Return one line per kind: how often, and an example."""
        lines = []
        for reason, count in self.counts.most_common():
            example = self._examples[reason]
            detail = example.detail[:120]
            lines.append(f"  {count:8d}  {reason:<12}  e.g. {example.place!r}: {detail}")
        return "\n".join(lines)


def _read_record(path: str) -> set[tuple[str, str, str]]:
    """Return (shard, key, reason) of the lines of a quarantine file that can be read."""
    known: set[tuple[str, str, str]] = set()
    try:
        with open(path, "rb") as file:
            for line in file:
                try:
                    fields = json.loads(line)
                    known.add((fields["shard"], fields["key"], fields["reason"]))
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a kill has cut
    except FileNotFoundError:
        pass
    return known


class ReadingBoard:
    """What each worker is reading, in memory that outlives the worker.

    Args:
        workers: Number of workers; without any, the process itself is number 0.
    """

    def __init__(self, workers: int) -> None:
        self._workers = max(workers, 1)
        self._text = RawArray(ctypes.c_ubyte, self._workers * _NAME_BYTES)

    def note(self, worker: int, name: str) -> None:
        """Note what a worker begins to read."""
        text = f"{time.time():.0f} {name!r}".encode("ascii", "backslashreplace")
        first = worker * _NAME_BYTES
        cell = text[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self._text[first : first + _NAME_BYTES] = list(cell)

    def __str__(self) -> str:
        lines = []
        for worker in range(self._workers):
            cell = self._text[worker * _NAME_BYTES : (worker + 1) * _NAME_BYTES]
            since, _, name = bytes(cell).rstrip(b"\0").decode("ascii").partition(" ")
            if name:
                lines.append(f"worker {worker}: {name} for {time.time() - int(since):.0f} s")
        return "; ".join(lines) or "nothing yet"
