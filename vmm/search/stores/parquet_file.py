"""Vectors as Parquet: a row for each moment, and in the schema's metadata ``Table.about``.

Columns are those of ``with_names``, and ``vector``, a list of E float32. Needs the extra
``parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from vmm.search.stores.table import CHUNK, Chunk, Table, counted, parsed_about, with_names
from vmm.text_output import number_of
from vmm.whole import whole_file

_ABOUT = b"vmm"
_MOST_SQUEEZED = 50
"""Vectors are noise to a packer: what grows more when it is unpacked means harm."""
_LEAST = 2**20
_ERRORS = (pa.ArrowException, OSError, ValueError, NotImplementedError)


def schema_of(table: Table) -> Any:
    """Return the schema of a table, with what there is to know of it."""
    vector = pa.list_(pa.float32(), table.settings.embedding_dim)
    columns = {
        **{"id": pa.int64(), "video": pa.int32(), "file": pa.string(), "member": pa.string()},
        **{"start": pa.float64(), "end": pa.float64(), "vector": vector},
    }
    return pa.schema(list(columns.items()), {_ABOUT: table.about.encode()})


def batches_of(table: Table) -> Iterator[Any]:
    """Yield a table as record batches of ``schema_of``."""
    schema = schema_of(table)
    for chunk, columns in with_names(table):
        numbers = pa.array(np.ascontiguousarray(chunk.vectors, np.float32).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(numbers, table.settings.embedding_dim)
        yield pa.record_batch({**columns, "vector": vectors}, schema=schema)


def write(table: Table, out: Path) -> list[str]:
    """Write a file; only a chunk of the moments is in memory."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as path, parquet.ParquetWriter(path, schema_of(table)) as writer:
        for batch in batches_of(table):
            writer.write_batch(batch)
    return [f"wrote {number_of(table.rows, 'vector')} to {out}"]


def read(path: Path) -> Table:
    """Read a file, which may come from anywhere. Rows may be missing, and columns be added.

    Raises:
        ValueError: If it is none of ``write``.
    """
    try:
        file = parquet.ParquetFile(path, memory_map=True)
        schema, rows = file.schema_arrow, file.metadata.num_rows
        about = (schema.metadata or {}).get(_ABOUT)
        if about is None:
            raise ValueError("its schema does not say which encoder made it; keep the metadata")
        settings, records = parsed_about(about)
        _check_columns(schema, settings.embedding_dim)
        size = 4 * rows * settings.embedding_dim
        if size > max(_MOST_SQUEEZED * path.stat().st_size, _LEAST):
            raise ValueError(f"its {rows} vectors would be {size} bytes, which no such file holds")
        videos = [b.column(0).to_numpy(False) for b in file.iter_batches(CHUNK, columns=["video"])]
        video = np.concatenate([np.zeros(0, np.int32), *videos])
        if video.dtype.kind not in "iu":
            raise ValueError("a moment has no video")
        records = counted(records, video.astype(np.int64))
    except _ERRORS as error:
        raise ValueError(f"{path} holds no vectors of vmm: {error}") from error
    return Table(settings, records, rows, _chunks(path, settings.embedding_dim))


def _check_columns(schema: Any, width: int) -> None:
    for name, fits in (
        ("video", pa.types.is_integer),
        ("start", pa.types.is_floating),
        ("end", pa.types.is_floating),
        ("vector", _is_list),
    ):
        if schema.names.count(name) != 1 or not fits(schema.field(name).type):
            raise ValueError(f"it has no column {name!r} of numbers")
    kind = schema.field("vector").type
    if pa.types.is_fixed_size_list(kind) and kind.list_size != width:
        raise ValueError(f"its vectors are {kind.list_size} wide, its encoder's {width}")


def _is_list(kind: Any) -> bool:
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(one(kind) for one in lists) and pa.types.is_floating(kind.value_type)


def _chunks(path: Path, width: int) -> Iterator[Chunk]:
    columns = ["video", "start", "end", "vector"]
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(CHUNK, columns=columns):
                by_name = {name: batch.column(name) for name in columns}
                vectors = by_name["vector"]
                if any(column.null_count for column in by_name.values()):
                    raise ValueError("a moment lacks its vector or its times")
                numbers = vectors.flatten().to_numpy(False).astype(np.float32)
                lengths = vectors.value_lengths().to_numpy(False)
                if not (lengths == width).all():
                    raise ValueError(f"a vector is not {width} wide, as the encoder's are")
                times = [by_name[n].to_numpy(False).astype(np.float64) for n in ("start", "end")]
                video = by_name["video"].to_numpy(False).astype(np.int32)
                yield Chunk(video, np.stack(times, 1), numbers.reshape(-1, width))
    except _ERRORS as error:
        raise ValueError(f"{path} is damaged: {error}") from error
