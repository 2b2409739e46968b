"""The files of an index: each is there whole or not at all, and never changed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from vmm.data.schema import is_leftover
from vmm.search.sources import Source
from vmm.whole import whole_file

Floats = npt.NDArray[np.float32]
Spans = npt.NDArray[np.float64]
Number = TypeVar("Number", np.float32, np.int64)

_SUFFIX = ".safetensors"
_BLOCK = 2**15
"""Rows that are read at once: 64 MB of vectors of 512 numbers."""


@dataclass(frozen=True)
class Record:
    """What one part says of a video.

    Attributes:
        path: Of ``Source``.
        member: Of ``Source``.
        size: Of the file or shard, bytes.
        mtime_ns: When it was changed.
        digest: Of the video's content; empty if it could not be read.
        seconds: Length of the video.
        first: Number of its moments before those of this record.
        count: Moments of this record.
        done: Whether these are the last.
        problem: Why there are not more; empty if all is well.
    """

    path: str
    member: str
    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    seconds: float = 0.0
    first: int = 0
    count: int = 0
    done: bool = False
    problem: str = ""

    @property
    def source(self) -> Source:
        """The video."""
        return Source(Path(self.path), self.member)


_EXAMPLE = Record("", "")


@dataclass(frozen=True)
class Part:
    """What a part says, without its arrays.

    Attributes:
        records: Videos, in the order of their moments.
        removed: Videos to forget first.
        replaces: Names of parts that this one stands for.
    """

    records: Sequence[Record]
    removed: Sequence[Source] = field(default=())
    replaces: Sequence[str] = field(default=())


def part_paths(folder: Path) -> list[Path]:
    """Return the parts in a folder, in their order."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if not is_leftover(path.name))


def part_number(path: Path) -> int:
    """Return the number that orders a part among the others.

    Raises:
        ValueError: If the file was not made here.
    """
    number = path.name.partition("-")[0]
    if not number.isdigit():
        raise damaged(path, "it is no part of an index")
    return int(number)


def write_part(
    folder: Path, number: int, part: Part, spans: Spans, width: int, vectors: Iterable[Floats]
) -> None:
    """Write a part, which may be larger than the memory.

    Args:
        folder: Of the parts.
        number: Its place among them.
        part: What it says.
        spans: (n, 2) seconds.
        width: E.
        vectors: (k, E) each, n rows together.
    """
    content = {
        "records": [asdict(record) for record in part.records],
        "removed": [[str(source.path), source.member] for source in part.removed],
        "replaces": list(part.replaces),
    }
    tables: dict[str, npt.NDArray[Any]] = {
        "records": json_table(content),
        "spans": np.asarray(spans, np.float64),
    }
    with whole_file(folder / f"{number:08d}-{secrets.token_hex(6)}{_SUFFIX}") as path:
        write_tables(path, tables, (len(spans), width), vectors)


def json_table(content: object, before: int = 0) -> npt.NDArray[np.uint8]:
    """Return what JSON holds as a table, behind which the next one begins at a multiple of 8.

    Args:
        content: For JSON.
        before: Bytes of the tables that come before it.
    """
    text = json.dumps(content).encode()
    return np.frombuffer(text + b" " * (-(before + len(text)) % 8), np.uint8)


_KINDS = {"float32": "F32", "float64": "F64", "int64": "I64", "uint8": "U8"}


def write_tables(
    path: Path,
    tables: Mapping[str, npt.NDArray[Any]],
    shape: tuple[int, int],
    vectors: Iterable[Floats],
) -> None:
    """Write a file in the format of safetensors with a checksum, which may be larger than memory.

    Args:
        path: The file.
        tables: By names that come before "vectors", for the checksum is over all in this order.
        shape: (n, E) of the table "vectors".
        vectors: (k, E) each, n rows together.
    """
    ordered = sorted(tables.items())
    described = [(name, _KINDS[t.dtype.name], t.shape, t.nbytes) for name, t in ordered]
    header: dict[str, Any] = {"__metadata__": {"checksum": "0" * 32}}
    begin = 0
    for name, kind, size, length in [*described, ("vectors", "F32", shape, 4 * math.prod(shape))]:
        offsets = [begin, begin + length]
        header[name] = {"dtype": kind, "shape": size, "data_offsets": offsets}
        begin += length
    digest = hashlib.blake2b(digest_size=16)
    rows = 0
    with path.open("wb") as file:

        def put(table: npt.NDArray[Any]) -> None:
            digest.update(table.data)
            file.write(table.data)

        file.write(_header(header))
        for _, table in ordered:
            put(np.ascontiguousarray(table))
        for block in vectors:
            put(np.ascontiguousarray(block, np.float32))
            rows += len(block)
        if rows != shape[0]:
            raise RuntimeError(f"{rows} vectors for {shape[0]} moments")
        file.seek(0)
        header["__metadata__"]["checksum"] = digest.hexdigest()
        file.write(_header(header))


def _header(content: dict[str, Any]) -> bytes:
    """Begin a file in the format of safetensors: length and JSON; the tables follow."""
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_part(path: Path, embedding_dim: int) -> Part:
    """Read what a part says, not its vectors.

    Raises:
        ValueError: If it is damaged.
    """
    with _opened(path) as file:
        try:
            content = json.loads(file.get_tensor("records").tobytes())
            records = [parsed_record(values) for values in content["records"]]
            removed = [Source(Path(path), str(member)) for path, member in content["removed"]]
            rows = sum(record.count for record in records)
            shapes = [file.get_slice(name).get_shape() for name in ("vectors", "spans")]
            if shapes != [[rows, embedding_dim], [rows, 2]]:
                raise ValueError("its tables do not fit together")
            return Part(records, removed, [str(name) for name in content["replaces"]])
        except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise damaged(path, error) from error


def parsed_record(values: dict[str, Any]) -> Record:
    """Check what a file from anywhere says of a video.

    Raises:
        ValueError: If that is no record.
    """
    if set(values) != {f.name for f in fields(Record)}:
        raise ValueError("it is of another version of vmm")
    for name, value in values.items():
        kind = type(getattr(_EXAMPLE, name))
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{name} is {value!r:.80}, not of type {kind.__name__}")
    record = Record(**values)
    if record.first < 0 or record.count < 0 or not 0 <= record.seconds < math.inf:
        raise ValueError("numbers of moments or seconds are negative or no numbers")
    if "\0" in record.path or not os.fsencode(record.path):
        raise ValueError(f"{record.path!r:.80} names no file")
    return record


def map_arrays(path: Path) -> tuple[Floats, Spans]:
    """Return the vectors of a part, mapped from the file, and the spans."""
    with _opened(path, "pt") as file:
        vectors, spans = file.get_tensor("vectors").numpy(), file.get_tensor("spans").numpy()
    if vectors.dtype != np.float32 or not np.isfinite(spans).all():
        raise damaged(path, "its vectors or times are no numbers")
    return vectors, spans


def is_intact(path: Path) -> bool:
    """Compare all of a part with its checksum; the file is mapped, not read into memory."""
    digest = hashlib.blake2b(digest_size=16)
    with _opened(path, "pt") as file:
        for name in sorted(file.keys()):
            digest.update(np.ascontiguousarray(file.get_tensor(name).numpy()).data)
        return digest.hexdigest() == (file.metadata() or {}).get("checksum")


def blocks_of(table: npt.NDArray[Number]) -> Iterator[npt.NDArray[Number]]:
    """Yield (k, ...) rows of a mapped table, so many as memory bears."""
    for first in range(0, len(table), _BLOCK):
        yield table[first : first + _BLOCK]


def _opened(path: Path, framework: str = "numpy") -> Any:
    try:
        return safe_open(path, framework)
    except (SafetensorError, OSError, MemoryError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, why: object) -> ValueError:
    """Return the error that says why a part cannot be used, and what to do."""
    return ValueError(
        f"{path} is damaged: {why}; delete it, `vmm encode` then encodes what was in it"
    )
