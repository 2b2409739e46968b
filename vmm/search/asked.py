"""What people ask in one call of ``vmm search``: one query, or a file of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vmm.data.annotations.row import Row
from vmm.data.annotations.source import Source as Table
from vmm.search.find import Query

_IDS = ("id", "query_id")
_TEXTS = ("text", "query", "caption", "sentence")
_VIDEO = "video"


@dataclass(frozen=True)
class Asked:
    """A query by its name.

    Attributes:
        id: Of its file, or its number from 1; each is another one.
        text: A sentence, or None.
        video: A video to find moments like, or None.
    """

    id: str
    text: str | None = None
    video: Path | None = None

    def query(self, like: Query) -> Query:
        """Return what to find, with the filters and numbers of another query.

        Raises:
            ValueError: As ``Query``.
        """
        return replace(like, text=self.text, clip=self.video)


def read_queries(path: Path) -> tuple[list[Asked], list[str]]:
    """Read a file of queries.

    Args:
        path: A text file with a sentence in each line; or a table (CSV, TSV, JSON lines, JSON or
            Parquet) with the columns ``text``, ``video`` or both, and perhaps ``id``. ``query``,
            ``caption`` and ``sentence`` are other names of ``text``. Videos are looked for from
            the folder of the file. Blank lines are left out.

    Returns:
        The queries in their order, at least one, and what is wrong with each row left out.

    Raises:
        ValueError: If the file is none of these, holds no query, or an id comes twice.
    """
    table = Table(path)
    if table.suffix == ".txt":
        lines = enumerate(table.lines(), 1)
        asked = [Asked(str(number), text) for number, text in lines if text]
    else:
        asked = list(_from_table(table))
    if not asked:
        why = f": {table.odd[0]}" if table.odd else "; write a sentence in each line"
        raise ValueError(f"{path} holds no query{why}")
    seen: set[str] = set()
    for one in asked:
        if one.id in seen:
            raise ValueError(f"{path} has the id {one.id!r} twice; give every query its own")
        seen.add(one.id)
    return asked, [str(error) for error in table.odd]


def _from_table(table: Table) -> Iterator[Asked]:
    for number, row in enumerate(table.rows(), 1):
        with table.leaving_out():
            yield _asked(row, number, table.path.parent)


def _asked(row: Row, number: int, folder: Path) -> Asked:
    name = next((row.text(key) for key in _IDS if row.filled(key)), str(number))
    text = next((row.text(key) for key in _TEXTS if row.filled(key)), None)
    video = folder / row.text(_VIDEO) if row.filled(_VIDEO) else None
    if text is None and video is None:
        raise row.wrong(f"text in the field 'text' or a file in the field {_VIDEO!r}")
    return Asked(name, text, video)
