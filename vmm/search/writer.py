"""Moments of videos to vectors in an index, batch by batch and part by part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from vmm.export.encoder import Floats, VideoTextEncoder
from vmm.search.index import Index
from vmm.search.parts import Record, Spans
from vmm.search.sources import Source
from vmm.search.windows import Span

_MAX_MOMENTS = 4096


class MomentWriter:
    """Encodes moments in batches and writes them now and then.

    Args:
        index: Gets the parts.
        encoder: Makes the vectors.
        batch_size: Moments that are encoded at once.
        flush_seconds: Time from part to part.
    """

    def __init__(
        self, index: Index, encoder: VideoTextEncoder, batch_size: int, flush_seconds: float
    ) -> None:
        self._index, self._encoder = index, encoder
        self._batch_size, self._flush_seconds = batch_size, flush_seconds
        self._records: list[Record] = []  # ``count`` and ``first`` tell what is not written yet
        self._clips: list[Tensor] = []
        self._spans: list[Span] = []
        self._vectors: list[Floats] = []
        self._written = time.monotonic()

    def begin(self, record: Record) -> None:
        """Turn to a video; its moments follow."""
        self._records.append(record)

    def add(self, span: Span, clip: Tensor) -> None:
        """Take a moment of the current video."""
        record = self._records[-1]
        self._records[-1] = replace(record, count=record.count + 1)
        self._spans.append(span)
        self._clips.append(clip)
        if len(self._clips) >= self._batch_size:
            self._encode()
            self._flush_if_late()

    def take_over(self, spans: Spans, vectors: Floats) -> None:
        """Take moments of the current video that were encoded before."""
        self._encode()  # vectors are in the order of the moments
        record = self._records[-1]
        self._records[-1] = replace(record, count=record.count + len(spans))
        self._spans += [(start, end) for start, end in spans.tolist()]
        self._vectors += list(vectors)

    def finish(self, seconds: float, problem: str = "") -> None:
        """End the current video."""
        record = self._records[-1]
        self._records[-1] = replace(record, seconds=seconds, done=True, problem=problem)
        self._flush_if_late()

    def flush(self, removed: Sequence[Source] = ()) -> None:
        """Write all that there is."""
        self._encode()
        if self._records or removed:
            self._index.add(self._records, self._spans, self._vectors, removed)
        self._records = [
            replace(record, first=record.first + record.count, count=0)
            for record in self._records
            if not record.done
        ]
        self._spans, self._vectors = [], []
        self._written = time.monotonic()

    def _flush_if_late(self) -> None:
        late = time.monotonic() - self._written > self._flush_seconds
        if late or len(self._spans) >= _MAX_MOMENTS:
            self.flush()

    def _encode(self) -> None:
        if self._clips:
            try:
                rows = self._encoder.encode_video(self._clips, batch_size=len(self._clips))
            except ValueError as error:
                raise ValueError(f"in the moments up to {self._place()}: {error}") from error
            self._vectors += list(rows)
            self._clips = []

    def _place(self) -> str:
        """Say where the writer is."""
        return f"{self._spans[-1][1]:.1f} s of {self._records[-1].source}"
