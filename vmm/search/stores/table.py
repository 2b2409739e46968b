"""The vectors of an index as a table that streams: what every store gets, and gives back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vmm.search.index import Index, Settings
from vmm.search.parts import Floats, Record, Spans, parsed_record
from vmm.text_output import visible

VERSION = 1
CHUNK = 16_384
"""Moments that are in memory at once."""


class Chunk(NamedTuple):
    """Some moments, one video after the other and in the order of time."""

    video: npt.NDArray[np.int32]
    """(n,) which of the table's records."""
    spans: Spans
    """(n, 2) start and end, seconds."""
    vectors: Floats
    """(n, E) of length 1."""


@dataclass(frozen=True)
class Table:
    """Vectors and what they are of.

    Attributes:
        settings: What made them.
        records: The videos that have moments.
        rows: Number of moments.
        chunks: All of them, which can be gone through once.
    """

    settings: Settings
    records: list[Record]
    rows: int
    chunks: Iterable[Chunk]

    @property
    def about(self) -> str:
        """All but the moments, as JSON, from which ``parsed_about`` reads it."""
        content = {
            "vmm_vectors": VERSION,
            "settings": asdict(self.settings),
            "videos": [asdict(record) for record in self.records],
        }
        return json.dumps(content)

    def check_encoder(self, fingerprint: str, name: str) -> None:
        """Refuse an encoder other than the one that made the vectors.

        Raises:
            ValueError: With the names of both.
        """
        made_by = self.settings
        if fingerprint != made_by.fingerprint:
            raise ValueError(
                f"the vectors were made with the encoder {made_by.encoder} (fingerprint "
                f"{made_by.fingerprint:.12}), not with {name} ({fingerprint:.12}); name that one"
            )


def table_of(index: Index) -> Table:
    """Return the moments of an index, mapped from its files."""
    moments = index.moments()
    starts = np.cumsum([0, *map(len, moments.vectors)])
    videos = [video for video in index.videos.values() if video.rows]

    def chunks() -> Iterator[Chunk]:
        waiting: list[Chunk] = []
        total = 0
        for number, video in enumerate(videos):
            for part, first, rows in video.rows:
                for begin in range(first, first + rows, CHUNK):
                    end = min(begin + CHUNK, first + rows)
                    spans = moments.spans[starts[part] + begin : starts[part] + end]
                    owner = np.full(end - begin, number, np.int32)
                    waiting.append(Chunk(owner, spans, moments.vectors[part][begin:end]))
                    total += end - begin
                    if total >= CHUNK:
                        yield _joined(waiting)
                        waiting, total = [], 0
        if waiting:
            yield _joined(waiting)

    return Table(index.settings, [v.record for v in videos], index.num_moments, chunks())


def _joined(chunks: list[Chunk]) -> Chunk:
    return Chunk(*(np.concatenate(arrays) for arrays in zip(*chunks, strict=True)))


def with_names(table: Table) -> Iterator[tuple[Chunk, dict[str, list[Any]]]]:
    """Yield chunks, and columns of what people look for moments by.

    These are ``id``, which counts the moments from 0, ``video`` (which of the table's records),
    ``file``, ``member`` (the video in the shard ``file`` begins with; empty for files), ``start``
    and ``end`` in seconds. What cannot be shown in a name is escaped.
    """
    files = [visible(str(record.source)) for record in table.records]
    members = [visible(record.member) for record in table.records]
    done = 0
    for chunk in table.chunks:
        videos = chunk.video.tolist()
        yield (
            chunk,
            {
                "id": list(range(done, done + len(videos))),
                "video": videos,
                "file": [files[number] for number in videos],
                "member": [members[number] for number in videos],
                "start": chunk.spans[:, 0].tolist(),
                "end": chunk.spans[:, 1].tolist(),
            },
        )
        done += len(videos)


def parsed_about(text: str | bytes) -> tuple[Settings, list[Record]]:
    """Read ``Table.about``, which comes from anywhere.

    Returns:
        What made the vectors, and the videos; what the settings say is checked by ``Index``.

    Raises:
        ValueError: If it is something else.
    """
    try:
        content = json.loads(text)
        if content["vmm_vectors"] != VERSION:
            raise ValueError("it is of another version of vmm")
        records = [parsed_record(values) for values in content["videos"]]
        settings = Settings(**content["settings"])
        if type(settings.embedding_dim) is not int or settings.embedding_dim < 1:
            raise ValueError("embedding_dim must be a whole number above 0")
        return settings, records
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"what it says of the vectors is damaged: {error}") from error


def counted(records: list[Record], videos: npt.NDArray[np.int32]) -> list[Record]:
    """Return records with the numbers of moments that a table really has of them.

    A video that lost some, or won some, has no digest: `vmm encode` then encodes it anew.

    Args:
        records: As they were written.
        videos: (N,) which of them each row is of.

    Raises:
        ValueError: If a row is of none of them.
    """
    if len(videos) and not 0 <= videos.min() <= videos.max() < len(records):
        raise ValueError(f"a moment is of none of its {len(records)} videos")
    counts = np.bincount(videos.astype(np.int64), minlength=len(records)).tolist()
    return [
        record if record.count == count else replace(record, count=count, digest="")
        for record, count in zip(records, counts, strict=True)
    ]
