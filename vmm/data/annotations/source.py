"""Annotation files to rows: JSON, JSON lines, CSV, SQLite, Parquet, lists and plain pickles.

The files come from outside. Nothing in them is run; whatever is wrong with one is a ``ValueError``
that names the file, the row and what was expected.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

_CSV = (".csv", ".tsv", ".txt")
_SQLITE = (".db", ".sqlite")
_PICKLE = (".pkl", ".pickle")


class Row(NamedTuple):
    """A record of a file, and where it stands."""

    where: str
    values: dict[str, Any]

    def wrong(self, expected: str) -> ValueError:
        """Make the error that says what the row should have held."""
        shown = ", ".join(map(str, list(self.values)[:12])) or "nothing"
        return ValueError(f"{self.where}: expected {expected}; the record has: {shown}")

    def has(self, *names: str) -> bool:
        """Tell whether all fields are there and not null."""
        return all(self.values.get(name) is not None for name in names)

    def text(self, *names: str) -> str:
        """Return the first of these fields that is there, as text that is not blank."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return str(value).strip()
        raise self.wrong(f"text in the field {_either(names)}")

    def texts(self, *names: str) -> list[str]:
        """Return a field that is one text or a list of them; blank ones are left out."""
        for name in names:
            if name in self.values:
                value = self.values[name]
                items = value if isinstance(value, list) else [value]
                if all(item is None or isinstance(item, str) for item in items):
                    return [item.strip() for item in items if item and item.strip()]
        raise self.wrong(f"text or a list of texts in the field {_either(names)}")

    def number(self, name: str) -> float:
        """Return a finite number."""
        try:
            value = float(self.values[name])
        except (KeyError, TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise self.wrong(f"a number in the field {name!r}, not {self.values.get(name)!r}")
        return value

    def optional_number(self, name: str) -> float | None:
        """Return a finite number, or None where the field is missing or blank."""
        return None if self.values.get(name) in (None, "") else self.number(name)

    def integer(self, name: str) -> int:
        """Return a whole number."""
        value = self.number(name)
        if value != int(value):
            raise self.wrong(f"a whole number in the field {name!r}, not {value}")
        return int(value)

    def rows(self, name: str) -> list[Row]:
        """Return the records of a field that holds a list of them."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(f"a list of records in the field {name!r}")
        return [Row(f"{self.where}, {name}[{i}]", item) for i, item in enumerate(value)]

    def rest(self, *taken: str) -> dict[str, Any]:
        """Return the fields besides those taken, as metadata."""
        return {
            str(name): value
            for name, value in self.values.items()
            if name is not None and name not in taken and value not in (None, "")
        }


class Source:
    """An annotation file, read at most once.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ValueError(f"{path} is not a file; give an annotation file")

    def wrong(self, expected: str) -> ValueError:
        """Make the error that says what the file should have been."""
        return ValueError(f"{self.path}: expected {expected}")

    def beside(self, *names: str) -> Source | None:
        """Return the first of these files that stands in the same folder."""
        found = (self.path.with_name(name) for name in names)
        return next((Source(path) for path in found if path.is_file()), None)

    @cached_property
    def content(self) -> Any:
        """What a JSON or pickle file holds; of JSON lines, the list of lines."""
        if self.path.suffix in _PICKLE:
            return _load_pickle(self.path)
        if self.path.suffix != ".jsonl":
            try:
                return json.loads(self._text)
            except RecursionError as error:
                raise self.wrong("JSON that is not nested thousands of times") from error
            except ValueError as error:
                first = self._text.lstrip().split("\n", 1)[0].strip()
                if not (first.startswith("{") and first.endswith("}")):
                    raise self.wrong(f"JSON ({error})") from error
        return [
            self._json_line(number, line)
            for number, line in enumerate(self._text.splitlines(), 1)
            if line.strip()
        ]

    def rows(self) -> Iterator[Row]:
        """Yield the records of a list of JSON objects, of a CSV with header, SQLite or Parquet.

        Raises:
            ValueError: If the file is not such a list.
        """
        if self.path.suffix in _CSV:
            yield from self._csv_rows()
            return
        if self.path.suffix in _SQLITE:
            records: Any = _load_sqlite(self.path)
        elif self.path.suffix == ".parquet":
            records = _load_parquet(self.path)
        else:
            records = self.content
        if not isinstance(records, list):
            raise self.wrong(f"a list of records, not {type(records).__name__}")
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise ValueError(
                    f"{self.path}, item {number}: expected a record with named fields, "
                    f"not {type(record).__name__}"
                )
            yield Row(f"{self.path}, item {number}", record)

    def object(self) -> Row:
        """Return a JSON file whose outermost level is an object."""
        if not isinstance(self.content, dict):
            raise self.wrong(f"a JSON object, not {type(self.content).__name__}")
        return Row(str(self.path), self.content)

    def objects(self, content: Any = None) -> Iterator[tuple[str, Row]]:
        """Yield (id, record) of an object that maps ids to records."""
        mapping = self.object().values if content is None else content
        if not isinstance(mapping, dict):
            raise self.wrong(f"an object that maps ids to records, not {type(mapping).__name__}")
        for name, record in mapping.items():
            if not isinstance(record, dict):
                raise ValueError(
                    f"{self.path}, {name!r}: expected a record with named fields, "
                    f"not {type(record).__name__}"
                )
            yield str(name), Row(f"{self.path}, {name!r}", record)

    def table(self, delimiter: str, columns: int) -> Iterator[tuple[str, list[str]]]:
        """Yield (place, cells) of a table without header or quoting; blank lines are left out.

        Args:
            delimiter: What stands between the cells.
            columns: Least number of cells.

        Raises:
            ValueError: If a line has fewer cells.
        """
        for number, line in enumerate(self._text.splitlines(), 1):
            if not line.strip():
                continue
            cells = [cell.strip() for cell in line.split(delimiter)]
            if len(cells) < columns:
                raise ValueError(
                    f"{self.path}, line {number}: expected at least {columns} columns separated "
                    f"by {delimiter!r}, found {len(cells)}"
                )
            yield f"{self.path}, line {number}", cells

    def lines(self) -> list[str]:
        """Return the lines that are not blank, without surrounding white space."""
        return [line.strip() for line in self._text.splitlines() if line.strip()]

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the first record's fields, or of the file's outermost two levels."""
        if self.path.suffix in _PICKLE:
            return frozenset()
        if self.path.suffix in _CSV:
            head = csv.reader(self._text.splitlines()[:1], delimiter=self._delimiter)
            return frozenset(name.strip() for name in next(head, []))
        if self.path.suffix in (*_SQLITE, ".parquet"):
            first = next(self.rows(), None)
            return frozenset(str(name) for name in first.values) if first else frozenset()
        content = self.content[0] if isinstance(self.content, list) and self.content else None
        levels = [self.content if isinstance(self.content, dict) else content]
        if isinstance(levels[0], dict):
            for value in list(levels[0].values())[:4]:
                levels.append(value[0] if isinstance(value, list) and value else value)
        return frozenset(str(name) for level in levels if isinstance(level, dict) for name in level)

    @cached_property
    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path} is not UTF-8 ({error.reason} at byte {error.start}); convert it, "
                "e.g. `iconv -f WINDOWS-1252 -t UTF-8`"
            ) from error

    def _json_line(self, number: int, line: str) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path}, line {number}: expected JSON ({error})") from error

    @cached_property
    def _delimiter(self) -> str:
        head = self._text.split("\n", 1)[0]
        return next((mark for mark in "\t,; " if mark in head), ",")

    def _csv_rows(self) -> Iterator[Row]:
        lines = csv.reader(
            io.StringIO(self._text, newline=""),
            delimiter=self._delimiter,
            skipinitialspace=True,
            strict=True,
        )
        try:
            header = [name.strip() for name in next(lines, [])]
            for cells in lines:
                where = f"{self.path}, line {lines.line_num}"
                if len(cells) > len(header):
                    raise ValueError(
                        f"{where}: {len(cells)} columns, the header has {len(header)}; quote cells "
                        f"that hold {self._delimiter!r}"
                    )
                if cells:
                    yield Row(where, dict(zip(header, cells, strict=False)))
        except csv.Error as error:
            raise ValueError(f"{self.path}, line {lines.line_num}: {error}") from error


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(repr(name) for name in names)


def _load_sqlite(path: Path) -> list[dict[str, Any]]:
    """Read the table ``annos`` without writing anything beside the file."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM annos ORDER BY rowid")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ValueError(f"{path}: expected SQLite with a table `annos` ({error})") from error


def _load_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path}: Parquet needs pyarrow; `pip install pyarrow`") from error
    try:
        records: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: expected Parquet ({error})") from error
    return records


class _PlainUnpickler(pickle.Unpickler):
    """Builds numbers, texts, lists, tuples, sets and dictionaries, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class and function."""
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")


def _load_pickle(path: Path) -> Any:
    """Read a pickle of plain containers; one that needs any class or function is refused."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    # A damaged pickle can raise nearly anything.
    except (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError,
            MemoryError, RecursionError, TypeError, ValueError) as error:  # fmt: skip
        raise ValueError(
            f"{path}: expected a pickle of plain lists and dictionaries, which is all that is read "
            f"({error})"
        ) from error
