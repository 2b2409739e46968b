"""Annotation files to rows: JSON, JSON lines, CSV, SQLite, Parquet, lists and plain pickles.

The files come from outside. Nothing in them is run; whatever is wrong with one is a ``ValueError``
that names the file, the row and what was expected. A wrong file is refused. One odd row of a file,
such as a question whose answer is no option, is left out, counted and named (``Source.odd``).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from vmm.data.annotations.containers import (
    PICKLE,
    SQLITE,
    load_parquet,
    load_pickle,
    load_sqlite,
    refuse_other_kinds,
)
from vmm.data.annotations.row import OddRow, Row
from vmm.data.text_input import clean_json, read_text, split_lines

_log = logging.getLogger(__name__)

_CSV = (".csv", ".tsv", ".txt")
_JSON_LINES = (".jsonl", ".ndjson")
# Python's own limit, 128 KiB, is less than some people's columns of subtitles.
_LARGEST_CELL = 2**24
_LONGEST_HEADER = 2**16


class Source:
    """An annotation file, read at most once.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = path.suffix.lower()
        self.odd: list[OddRow] = []
        """The rows that were left out, as far as the file was read."""
        if not path.is_file():
            raise ValueError(f"{path} is not a file; give an annotation file")

    def wrong(self, expected: str) -> ValueError:
        """Make the error that says what the file should have been."""
        return ValueError(f"{self.path}: expected {expected}")

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Note a row that turns out to be odd in this block, and go on with the next one."""
        try:
            yield
        except OddRow as error:
            self.odd.append(error)

    def beside(self, *names: str) -> Source | None:
        """Return the first of these files that stands in the same folder."""
        found = (self.path.with_name(name) for name in names)
        return next((Source(path) for path in found if path.is_file()), None)

    @cached_property
    def content(self) -> Any:
        """What a JSON or pickle file holds; of JSON lines, the list of lines."""
        if self.suffix in PICKLE:
            return load_pickle(self.path)
        if self.suffix not in _JSON_LINES:
            try:
                return self._parsed
            except RecursionError as error:
                raise self.wrong("JSON that is not nested thousands of times") from error
            except ValueError as error:
                first = self._json_text.lstrip().split("\n", 1)[0].strip()
                if not (first.startswith("{") and first.endswith("}")):
                    raise self.wrong(f"JSON ({error})") from error
        lines = [
            self._json_line(number, line)
            for number, line in enumerate(split_lines(self._json_text), 1)
            if line.strip()
        ]
        # A whole list in one line is JSON under another extension.
        return lines[0] if len(lines) == 1 and isinstance(lines[0], list) else lines

    def rows(self) -> Iterator[Row]:
        """Yield the records of a list of JSON objects, of a CSV with header, SQLite or Parquet.

        Raises:
            ValueError: If the file is not such a list.
        """
        if self.suffix in _CSV:
            yield from self._csv_rows()
            return
        if self.suffix in SQLITE:
            records: Any = load_sqlite(self.path)
        elif self.suffix == ".parquet":
            records = load_parquet(self.path)
        else:
            records = self.content
        if isinstance(records, dict) and len(records) == 1:  # {"data": [...]} or whatever it says
            (records,) = records.values()
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
            if not str(name).strip():
                self.odd.append(OddRow(f"{self.path}: expected an id, not a blank"))
                continue
            if not isinstance(record, dict):
                raise ValueError(
                    f"{self.path}, {name!r}: expected a record with named fields, "
                    f"not {type(record).__name__}"
                )
            yield str(name), Row(f"{self.path}, {name!r}", record)

    def table(self, delimiter: str, columns: int) -> Iterator[tuple[str, list[str]]]:
        """Yield (place, cells) of a table without header or quoting; blank lines are left out.

        A line with fewer cells is odd, see ``odd``.

        Args:
            delimiter: What stands between the cells.
            columns: Least number of cells.
        """
        for number, line in enumerate(split_lines(self._text), 1):
            if not line.strip():
                continue
            cells = [cell.strip() for cell in line.split(delimiter)]
            where = f"{self.path}, line {number}"
            if len(cells) >= columns:
                yield where, cells
                continue
            self.odd.append(
                OddRow(
                    f"{where}: expected at least {columns} columns separated by {delimiter!r}, "
                    f"found {len(cells)}"
                )
            )

    def lines(self) -> list[str]:
        """Return the lines without surrounding white space.

        Blank ones stay, as "", except at the end: a line's number may be what it stands for.
        """
        lines = [line.strip() for line in split_lines(self._text)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the first record's fields, or of the file's outermost two levels."""
        if self.suffix in PICKLE:
            return frozenset()
        if self.suffix in _CSV:
            return frozenset(self._header(self._csv()))
        if self.suffix in (*SQLITE, ".parquet"):
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
        refuse_other_kinds(self.path)
        return read_text(self.path)

    @cached_property
    def _json_text(self) -> str:
        text, halves = clean_json(self._text)
        if halves:
            _log.warning(
                "%s has half of a character (a surrogate without its peer) in %d places; each is "
                "read as U+FFFD", self.path, halves,
            )  # fmt: skip
        return text

    @cached_property
    def _parsed(self) -> Any:
        return _parse(self._json_text)

    def _json_line(self, number: int, line: str) -> Any:
        try:
            return _parse(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path}, line {number}: expected JSON ({error})") from error

    def _csv(self) -> Any:
        """Open the table; Excel may begin it with a line that names the delimiter."""
        csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))
        text = self._text
        head = next(iter(split_lines(text[:_LONGEST_HEADER])), "")
        named = re.fullmatch(r"sep=(.)\s*", head)
        if named:
            text, delimiter = text[len(head) :].lstrip("\r\n"), named[1]
        else:
            delimiter = next((mark for mark in "\t,; " if mark in head), ",")
        return csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
        )

    def _header(self, lines: Any) -> list[str]:
        try:
            return [name.strip() for name in next(lines, [])]
        except csv.Error as error:
            raise ValueError(f"{self.path}, line 1: {_told(error)}") from error

    def _csv_rows(self) -> Iterator[Row]:
        lines = self._csv()
        header = self._header(lines)
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise self.wrong(f"every column once; its header names {twice!r} again")
        try:
            for cells in lines:
                where = f"{self.path}, line {lines.line_num}"
                while len(cells) > len(header) and not cells[-1].strip():
                    cells.pop()  # commas at the end of a row, as spreadsheets leave them
                if len(cells) > len(header):
                    self.odd.append(
                        OddRow(
                            f"{where}: {len(cells)} columns, the header has {len(header)}; quote "
                            f"cells that hold {lines.dialect.delimiter!r}"
                        )
                    )
                elif any(cells):
                    yield Row(where, dict(zip(header, cells, strict=False)))
        except csv.Error as error:
            raise ValueError(f"{self.path}, line {lines.line_num}: {_told(error)}") from error


def _told(error: csv.Error) -> str:
    """Say what helps: of a quote that is never closed, csv tells where the file ends."""
    if str(error) == "unexpected end of data":
        return (
            "unexpected end of data in a cell that begins with a quotation mark; close it with "
            "another one (marks within a cell are doubled)"
        )
    return str(error)


def _parse(text: str) -> Any:
    """Parse JSON; NaN, which is none, says that a value is missing."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=lambda _: None)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary, unless a name would stand for two different values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise ValueError(f"the name {name!r} stands for two different values")
    return found
