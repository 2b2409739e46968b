"""Hits as rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmm.search.outputs.files import write_texts
from vmm.search.results import Result, as_csv, as_json


def write_json(results: Sequence[Result], out: Path) -> list[str]:
    """Write the rows as JSON."""
    return write_texts(out, {"": as_json(results)})


def write_csv(results: Sequence[Result], out: Path) -> list[str]:
    """Write the rows as CSV."""
    return write_texts(out, {"": as_csv(results)})
