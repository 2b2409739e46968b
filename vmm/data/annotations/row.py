"""One record of an annotation file: its fields, and where it stands."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class OddRow(ValueError):
    """What is wrong with one row of a file."""


class Row(NamedTuple):
    """A record of a file, and where it stands."""

    where: str
    values: dict[str, Any]

    def wrong(self, expected: str) -> OddRow:
        """Make the error that says what the row should have held."""
        shown = ", ".join(map(str, list(self.values)[:12])) or "nothing"
        return OddRow(f"{self.where}: expected {expected}; the record has: {shown[:300]}")

    def has(self, *names: str) -> bool:
        """Tell whether all fields are there and not null."""
        return all(self.values.get(name) is not None for name in names)

    def filled(self, *names: str) -> bool:
        """Tell whether all fields are there and not blank."""
        return all(self.values.get(name) not in (None, "") for name in names)

    def text(self, *names: str) -> str:
        """Return the first of these fields that is there, as text that is not blank."""
        for name in names:
            if text := _as_text(self.values.get(name)):
                return text
        raise self.wrong(f"text in the field {_either(names)}")

    def texts(self, *names: str) -> list[str]:
        """Return a field that is one text or a list of them.

        A blank one stays, as "": its place may be what an answer or an id list names.
        """
        for name in names:
            if self._is_meant(name, names):
                value = self.values[name]
                items = value if isinstance(value, list) else [value]
                if all(item is None or isinstance(item, str) for item in items):
                    return [(item or "").strip() for item in items]
        raise self.wrong(f"text or a list of texts in the field {_either(names)}")

    def number(self, name: str) -> float:
        """Return a finite number."""
        given = self.values.get(name)
        try:
            # Python reads True as 1 and "1_0" as 10.
            odd = isinstance(given, bool) or (isinstance(given, str) and "_" in given)
            value = math.nan if odd else float(given)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise self.wrong(f"a number in the field {name!r}, not {_shown(given)}")
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

    def _is_meant(self, name: str, names: tuple[str, ...]) -> bool:
        """Tell whether a field is there, and is not blank while another one of them is not."""

        def blank(field: str) -> bool:
            value = self.values.get(field)
            items = value if isinstance(value, list) else [value]
            return all(i is None or (isinstance(i, str) and not i.strip()) for i in items)

        return name in self.values and not (blank(name) and not all(map(blank, names)))

    def rest(self, *taken: str) -> dict[str, Any]:
        """Return the fields besides those taken, as metadata."""
        return {
            str(name): value
            for name, value in self.values.items()
            if name is not None and name not in taken and value not in (None, "")
            if not (isinstance(value, float) and not math.isfinite(value))
        }


def _as_text(value: Any) -> str:
    """Give a text or a whole number as text; "" for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables with gaps turn whole numbers into others
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        return str(value).strip()
    except ValueError:  # thousands of digits
        return ""


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**80 else "a huge number"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(repr(name) for name in names)
