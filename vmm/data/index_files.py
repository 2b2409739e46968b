"""Indexes are kept as JSON beside their shards; a start reads only the first line of each.

The first line says which state of the shard this is and what each selection takes of it; the
samples, thousands of them, come after it and are read when one of them is wanted. What is not
indexed yet is, by all cores of the machine.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vmm.data.contents import Selection, Summary, selection_name, summaries
from vmm.data.index import MAX_MEMBER_BYTES, Entry, ShardIndex, Stamp, scan_shard, stamp_of
from vmm.whole import whole_file

_log = logging.getLogger(__name__)

INDEX_VERSION = 5
INDEX_SUFFIX = ".index.json"
_LARGEST_HEAD = 2**20
_TOGETHER = 64
_FEW = 32
"""Shards that are not worth another process."""


def load_indexes(paths: Sequence[str]) -> Iterator[ShardIndex]:
    """Load or build the indexes of many shards, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(paths), _TOGETHER):  # few in memory, however many there are
            yield from pool.map(load_index, paths[first : first + _TOGETHER])


def load_index(path: str) -> ShardIndex:
    """Return a shard's index, from the file beside it if that is up to date.

    A new index is written beside the shard where that is possible; else it is only returned. A
    shard that cannot be opened has no samples and says why.

    Args:
        path: The shard.
    """
    stored = Path(path + INDEX_SUFFIX)
    try:
        stamp = stamp_of(os.stat(path))
        index = _read_stored(stored, stamp)
        if index is None:
            index = scan_shard(path)
            index.stamp = stamp
            _store(stored, index)
    except OSError as error:
        return ShardIndex([], f"{type(error).__name__}: {error.strerror}")
    return index


def load_summaries(paths: Sequence[str], selection: Selection) -> Iterator[Summary]:
    """Say what a selection takes of many shards, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(paths), _TOGETHER):
            part = paths[first : first + _TOGETHER]
            yield from pool.map(load_summary, part, [selection] * len(part))


def load_summary(path: str, selection: Selection) -> Summary:
    """Say what a selection takes of a shard; see ``load_index``."""
    try:
        summary = _read_head(path, selection)
    except OSError:
        summary = None
    return Summary.of(load_index(path), selection) if summary is None else summary


def index_shards(paths: Sequence[str]) -> None:
    """Index the shards that have no index of their state yet, with a bar if these are many.

    Args:
        paths: Of the shards. What cannot be read is left for those who want it.
    """
    new = [path for path, known in zip(paths, _are_indexed(paths), strict=True) if not known]
    workers = min(os.cpu_count() or 1, len(new) // _FEW)
    if workers < 2:
        for _ in load_indexes(new):
            pass
        return
    _log.info("new shards: %d; their index is made once", len(new))
    with tqdm(total=len(new), desc="indexing", unit="shard", mininterval=1) as bar:
        for _ in _by_processes(new, workers):
            bar.update()


def _are_indexed(paths: Sequence[str]) -> Iterator[bool]:
    def known(path: str) -> bool:
        try:
            return _read_head(path, Selection("video")) is not None
        except OSError:
            return False

    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(known, paths)


def _by_processes(paths: Sequence[str], workers: int) -> Iterator[None]:
    """Index shards in other processes; yields once for each. Threads would wait for each other."""
    command = [sys.executable, "-c", "from vmm.data.index_files import index_listed as f; f()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    children = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to this process, which ends them
        )
        for _ in range(workers)
    ]

    def share(number: int) -> int:
        """Give one child its part and count what it says is done."""
        child = children[number]
        assert child.stdin is not None and child.stdout is not None
        with child.stdin as listed:
            listed.write(json.dumps(paths[number::workers]).encode())
        return sum(1 for _ in child.stdout)

    try:
        with ThreadPoolExecutor(workers) as pool:
            for done in pool.map(share, range(workers)):
                yield from [None] * done
    finally:
        for child in children:
            child.kill()
            child.wait()


def index_listed() -> None:
    """Index the shards that standard input lists as JSON; writes a line for each."""
    for path in json.load(sys.stdin):
        load_index(path)
        sys.stdout.write("\n")
        sys.stdout.flush()


def _read_head(path: str, selection: Selection) -> Summary | None:
    """Read the first line of a stored index; None if there is none of this state.

    Raises:
        OSError: If there is no such shard.
    """
    stamp = stamp_of(os.stat(path))
    try:
        with open(path + INDEX_SUFFIX, "rb") as file:
            line = file.readline(_LARGEST_HEAD).rstrip()
        head = json.loads(line[:-1] + b"}" if line.endswith(b",") else line)
        if head["stamp"] != [INDEX_VERSION, *stamp]:
            return None
        return Summary.stored(head["summaries"][selection_name(selection)], stamp)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _read_stored(path: Path, stamp: Stamp) -> ShardIndex | None:
    """Read a stored index; None if it is absent, damaged, impossible or of another state."""
    try:
        content = json.loads(path.read_bytes())
        if content["stamp"] != [INDEX_VERSION, *stamp]:
            return None
        entries = [
            Entry(str(key), {n: _place(p, stamp) for n, p in parts.items()}, bool(captioned), why)
            for key, captioned, parts, why in content["entries"]
        ]
        ignored = [(str(name), str(reason)) for name, reason in content["ignored"]]
        return ShardIndex(entries, content["damage"], ignored, stamp)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _place(place: Any, stamp: Stamp) -> tuple[int, int]:
    offset, size = int(place[0]), int(place[1])
    if not (offset >= 0 and 0 <= size <= MAX_MEMBER_BYTES and offset + size <= stamp[0]):
        raise ValueError(f"no member can be at {place}")
    return offset, size


def _store(path: Path, index: ShardIndex) -> None:
    """Write beside the shard, whole or not at all; a read-only folder is no error."""
    head = {"stamp": [INDEX_VERSION, *(index.stamp or ())], "summaries": summaries(index)}
    rest = {
        "damage": index.damage,
        "ignored": index.ignored,
        "entries": [[e.key, int(e.captioned), e.members, e.failure] for e in index.entries],
    }
    first, second = (json.dumps(part, separators=(",", ":")) for part in (head, rest))
    try:
        with whole_file(path, durable=False) as file:
            file.write_text(f"{first[:-1]},\n{second[1:]}")
    except OSError as error:
        _log.info("cannot keep the index %s (%s); it is built again next time", path, error)
