"""What queries found, as rows: the one form of it for tables, JSON, CSV and files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vmm.search.query import Hit
from vmm.text_output import visible


@dataclass(frozen=True)
class Result:
    """What a query found.

    Attributes:
        id: Of the query: as its file has it, else its number from 1.
        text: The sentence; empty if there was none.
        video: The video to find moments like; empty if there was none.
        hits: The best first.
    """

    id: str
    text: str
    video: str
    hits: list[Hit]

    @property
    def about(self) -> str:
        """The query, to be read by people."""
        like = f"like {self.video}" if self.video else ""
        return ", ".join(filter(None, (self.text, like)))


COLUMNS = (
    *("query", "text", "video", "rank", "file", "member", "start", "end"),
    *("similarity", "match", "score"),
)
"""Of every row, in this order. ``file`` is the path of a video, or SHARD/``member`` for one in a
shard; ``member`` is empty for a file; ``start`` and ``end`` are seconds; ``match`` and ``score``
are None for what was not looked at again."""


def rows(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """Yield the hits, query by query and the best first, each with its query and rank from 1."""
    for result in results:
        for rank, hit in enumerate(result.hits, 1):
            yield row_of(result, rank, hit)


def row_of(result: Result, rank: int, hit: Hit) -> dict[str, Any]:
    """Return the row of a hit: a value for each of ``COLUMNS``."""
    where = (str(hit.source), hit.source.member, hit.start, hit.end)
    scores = (hit.similarity, hit.match, hit.score)
    values = (result.id, result.text, result.video, rank, *where, *scores)
    return dict(zip(COLUMNS, values, strict=True))


def as_json(results: Sequence[Result]) -> str:
    """Write the rows as a JSON list of objects; names that are no UTF-8 come back with it."""
    return json.dumps(list(rows(results)), indent=2) + "\n"


def as_csv(results: Sequence[Result]) -> str:
    """Write the rows as CSV with a header; what cannot be shown in a name is escaped."""
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows(results):
        table.writerow({k: visible(v) if isinstance(v, str) else v for k, v in row.items()})
    return buffer.getvalue()


def as_table(results: Sequence[Result]) -> str:
    """Write a table for people, with headers; a query above its hits where there are several."""
    again = any(hit.match is not None for result in results for hit in result.hits)
    scores = "similarity" + ("   match   score" if again else "")
    lines: list[str] = []
    for result in results:
        if len(results) > 1:
            lines += [*([""] if lines else []), visible(f"{result.id}: {result.about}")]
        if result.hits:
            lines.append(f"rank  {scores}  {'time':<17}  file")
        for rank, hit in enumerate(result.hits, 1):
            said = f"{rank:>4}  {hit.similarity:10.3f}"
            if again:
                both = (hit.match, hit.score)
                said += "".join(f"{'-':>8}" if x is None else f"{x:8.2f}" for x in both)
            lines.append(visible(f"{said}  {hit.when:<17}  {hit.source}"))
    return "\n".join(lines)
