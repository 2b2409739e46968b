"""Vectors as NumPy's ``.npz``: ``vectors`` (n, E), ``spans`` (n, 2), ``video`` (n,), ``about``.

``about`` is JSON in bytes: ``Table.about``. The arrays are not compressed, so that a small file
cannot grow in memory, and nothing in them is a pickle.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from vmm.search.stores.table import CHUNK, Chunk, Table, counted, parsed_about
from vmm.text_output import number_of
from vmm.whole import whole_file

_ERRORS = (
    *(zipfile.BadZipFile, KeyError, EOFError, ValueError, OverflowError, struct.error),
    RuntimeError,
)
"""What damaged archives raise; of an encrypted one, or an unknown compression, a RuntimeError."""
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def write(table: Table, out: Path) -> list[str]:
    """Write a file; only a chunk of the moments is in memory."""
    width = table.settings.embedding_dim
    about = np.frombuffer(table.about.encode(), np.uint8)
    chunks = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as path, zipfile.ZipFile(path, "w") as archive:
        with _new(archive, "vectors", (table.rows, width), np.float32) as file:
            for chunk in table.chunks:
                file.write(np.ascontiguousarray(chunk.vectors, np.float32).data)
                chunks.append((chunk.video, chunk.spans))
        empty = np.zeros(0, np.int32), np.zeros((0, 2))
        video, spans = (np.concatenate(arrays) for arrays in zip(empty, *chunks, strict=True))
        for name, array in (("video", video), ("spans", spans), ("about", about)):
            with _new(archive, name, array.shape, array.dtype) as file:
                file.write(np.ascontiguousarray(array).data)
    return [f"wrote {number_of(table.rows, 'vector')} to {out}"]


@contextmanager
def _new(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> Iterator[IO[bytes]]:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        description = npy.dtype_to_descr(np.dtype(dtype))
        header = {"descr": description, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        yield file


class _Array(NamedTuple):
    """An array in the file, its header read and compared with the file's size."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int


def read(path: Path) -> Table:
    """Read a file, which may come from anywhere.

    Raises:
        ValueError: If it is none of ``write``, or its arrays do not fit together.
        OSError: If it cannot be opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name: _array(archive, name) for name in ("about", "vectors", "spans", "video")
            }
            settings, records = parsed_about(_read(archive, arrays["about"]).tobytes())
            rows, width = arrays["vectors"].shape[0], settings.embedding_dim
            for name, shape in (
                ("vectors", (rows, width)),
                ("spans", (rows, 2)),
                ("video", (rows,)),
            ):
                if arrays[name].shape != shape:
                    raise ValueError(f"{name} are {arrays[name].shape}, expected {shape}")
            video = _read(archive, arrays["video"])
            if arrays["video"].dtype.kind not in "iu" or arrays["spans"].dtype.kind != "f":
                raise ValueError("video must be whole numbers, and spans numbers")
            if arrays["vectors"].dtype.kind != "f":
                raise ValueError("vectors must be floating-point numbers")
            spans = _read(archive, arrays["spans"]).astype(np.float64)
    except _ERRORS as error:
        raise ValueError(f"{path} holds no vectors of vmm: {error}") from error
    return Table(
        settings, counted(records, video), rows, _chunks(path, arrays["vectors"], video, spans)
    )


def _array(archive: zipfile.ZipFile, name: str) -> _Array:
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed; write it with numpy.savez")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} is of NumPy's format {version}")
        shape, by_columns, dtype = _HEADERS[version](file)
        offset = file.tell()
    if dtype.hasobject or dtype.kind not in "iuf" or by_columns:
        raise ValueError(f"{name} is no plain array of numbers in the order of rows")
    if offset + prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{name} of {shape} does not fit its {member.file_size} bytes")
    return _Array(member.filename, shape, dtype, offset)


def _read(archive: zipfile.ZipFile, array: _Array) -> npt.NDArray[Any]:
    with archive.open(array.member) as file:
        file.read(array.offset)
        return np.frombuffer(file.read(), array.dtype).reshape(array.shape)


def _chunks(
    path: Path, array: _Array, video: npt.NDArray[Any], spans: npt.NDArray[np.float64]
) -> Iterator[Chunk]:
    size = array.dtype.itemsize * array.shape[1]
    try:
        with zipfile.ZipFile(path) as archive, archive.open(array.member) as file:
            file.read(array.offset)
            for first in range(0, len(video), CHUNK):
                rows = slice(first, min(first + CHUNK, len(video)))
                content = file.read(size * (rows.stop - first))
                vectors = np.frombuffer(content, array.dtype).reshape(-1, array.shape[1])
                yield Chunk(video[rows].astype(np.int32), spans[rows], vectors.astype(np.float32))
    except _ERRORS as error:
        raise ValueError(f"{path} is damaged: {error}") from error
