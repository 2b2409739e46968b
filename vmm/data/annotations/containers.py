"""Files that are no text: SQLite, Parquet, plain pickles, and what only looks like annotations.

Nothing in a file is run; whatever is wrong with one is a ``ValueError`` that names it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import sqlite3
from pathlib import Path
from typing import Any

from vmm.data.text_input import clean_text

SQLITE = (".db", ".sqlite", ".sqlite3")
PICKLE = (".pkl", ".pickle")

_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")

# How a file begins -> what it is and what to do. None of them is text.
_OTHER_KINDS = (
    (b"PK\x03\x04", "a ZIP archive or an Excel file; unpack it, or save it as CSV"),
    (b"\x1f\x8b", "compressed with gzip; unpack it with `gunzip`"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard; unpack it with `unzstd`"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file; save it as CSV"),
    (b"\x89HDF", "HDF5, which is not read; write its records as JSON or CSV"),
    (b"\x93NUMPY", "a NumPy array, which is not read; write its records as JSON or CSV"),
    (b"PAR1", "Parquet; give it the extension .parquet"),
    (b"SQLite format 3", "SQLite; give it the extension .db"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file; fetch it with `git lfs pull`"),
    (b"<!doctype", "a web page, not the file itself; download it again"),
    (b"<html", "a web page, not the file itself; download it again"),
)


def refuse_other_kinds(path: Path, own: bytes = b"") -> None:
    """Say what a file is that cannot be what its name promises.

    Args:
        path: The file.
        own: How files of the promised kind begin.

    Raises:
        ValueError: If it begins like another kind, or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    for mark, what in _OTHER_KINDS:
        if mark != own and head.lstrip(b"\xef\xbb\xbf \r\n").lower().startswith(mark.lower()):
            raise ValueError(f"{path} is {what}")


def load_sqlite(path: Path) -> list[dict[str, Any]]:
    """Read the table ``annos`` without writing anything beside the file."""
    refuse_other_kinds(path, b"SQLite format 3")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM annos ORDER BY rowid")]
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected SQLite with a table `annos` ({error})") from error
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def load_parquet(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file."""
    refuse_other_kinds(path, b"PAR1")
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path}: Parquet needs pyarrow; `pip install pyarrow`") from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except (ValueError, OSError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{path}: expected Parquet ({error})") from error
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def load_pickle(path: Path) -> Any:
    """Read a pickle of plain containers; one that needs any class or function is refused."""
    refuse_other_kinds(path)
    try:
        data = path.read_bytes()
        for opcode, argument, _ in pickletools.genops(data):
            # Memory is taken for as many things as the number says, before there are any.
            if opcode.name in _MEMO and argument is not None and argument > len(data):
                raise pickle.UnpicklingError(f"it numbers its {argument}th thing")
        return _cleaned(_PlainUnpickler(io.BytesIO(data), encoding="utf-8").load(), {})
    # A damaged pickle can raise nearly anything.
    except (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError,
            MemoryError, OSError, RecursionError, TypeError, ValueError) as error:  # fmt: skip
        raise ValueError(
            f"{path}: expected a pickle of plain lists and dictionaries, which is all that is read "
            f"({error})"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """Builds numbers, texts, lists, tuples, sets and dictionaries, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class and function."""
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")


def _cleaned(value: Any, known: dict[int, Any]) -> Any:
    """Clean all texts of lists, tuples and dictionaries; what is shared is visited once."""
    if isinstance(value, str):
        return clean_text(value)
    if not isinstance(value, list | tuple | dict):
        return value
    if id(value) not in known:
        known[id(value)] = value  # what holds itself is not followed for ever
        if isinstance(value, dict):
            found: Any = {_cleaned(k, known): _cleaned(v, known) for k, v in value.items()}
        else:
            found = type(value)(_cleaned(item, known) for item in value)
        known[id(value)] = found
    return known[id(value)]


def _plain(value: Any) -> Any:
    """Leave what JSON can hold; bytes, such as pictures, are no annotation."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return None if isinstance(value, bytes) else str(value)
