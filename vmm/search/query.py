"""Exact search in an index, and a closer look at the best by the matching head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmm.data.decode import DecodeError
from vmm.data.text_input import clean_text
from vmm.export.encoder import Floats, VideoTextEncoder
from vmm.export.frames import Video
from vmm.ops.products import products
from vmm.ops.similarity import RankBy
from vmm.search.approximate import read_lists
from vmm.search.encode import clip_of
from vmm.search.index import Index, read_settings
from vmm.search.parts import Spans, damaged
from vmm.search.sources import Source
from vmm.search.windows import load_moments


@dataclass(frozen=True)
class Hit:
    """A moment that was found.

    Attributes:
        source: The video.
        start: Seconds.
        end: Seconds.
        similarity: Cosine of the query's and the moment's vectors.
        match: Logit of the matching head; None if it was not asked, or cannot read the video now.
        score: What re-ranking orders by: the mixture of both, or ``match`` if that was wanted;
            None where ``match`` is.
    """

    source: Source
    start: float
    end: float
    similarity: float
    match: float | None = None
    score: float | None = None

    @property
    def when(self) -> str:
        """Start and end to be read by people."""
        return f"{timestamp(self.start)}-{timestamp(self.end)}"


def timestamp(seconds: float) -> str:
    """Write a time as ``1:02:03.4``, without hours if there are none."""
    tenths = round(seconds * 10)
    minutes, hours = tenths // 600 % 60, tenths // 36000
    rest = f"{minutes:02d}:{tenths % 600 / 10:04.1f}"
    return f"{hours}:{rest}" if hours else rest


class Searcher:
    """An index with the encoder that made it.

    Args:
        index: The index, as it is now: what is added later is not seen.
        encoder: The encoder.
        approximate: Search in the lists of ``vmm index --approximate``: quicker, and may miss some.

    Raises:
        ValueError: If the encoder is another one, or there are no such lists.
    """

    def __init__(
        self, index: Index, encoder: VideoTextEncoder, *, approximate: bool = False
    ) -> None:
        index.check_encoder(encoder.fingerprint, str(encoder.folder))
        self.index = index
        self.encoder = encoder
        self._moments = index.moments()
        self._lists = read_lists(index, self._moments) if approximate else None
        names = [(video.path.parts, video.member) for video in self._moments.videos]
        self._place = np.full(len(names) + 1, len(names))  # the last is of outdated moments, -1
        self._place[sorted(range(len(names)), key=names.__getitem__)] = range(len(names))

    @classmethod
    def open(
        cls,
        folder: str | Path,
        encoder: str | Path | None = None,
        *,
        approximate: bool = False,
    ) -> Self:
        """Open an index, with an encoder in place of the one that it names.

        Args:
            folder: The index.
            encoder: Folder of ``vmm export``, or OWNER/NAME on the hub.
            approximate: As for ``Searcher``.

        Raises:
            ValueError: If one of them is not there, damaged, or the encoder is another one.
        """
        name = encoder or read_settings(Path(folder)).encoder
        index = Index.open(Path(folder))  # first, for it is quick
        return cls(index, VideoTextEncoder.from_pretrained(name), approximate=approximate)

    @property
    def sources(self) -> list[Source]:
        """The videos that have moments."""
        return self._moments.videos

    @property
    def spans(self) -> Spans:
        """Start and end of every moment, seconds: (N, 2)."""
        return self._moments.spans

    @property
    def owner(self) -> npt.NDArray[np.int32]:
        """Which of ``sources`` each moment is of: (N,); -1 if it is outdated."""
        return self._moments.owner

    def seconds(self, source: Source) -> float:
        """Return the length of a video."""
        return self.index.videos[source].record.seconds

    def text_vector(self, text: str) -> Floats:
        """Encode a sentence: (E,)."""
        vector: Floats = self.encoder.encode_text([text])[0]
        return vector

    def unread(self, texts: Sequence[str]) -> str:
        """Say which words of sentences the encoder cannot read, or cuts; "" if it reads all."""
        clean = [clean_text(text) for text in texts]
        check = self.encoder.model.text_encoder.check_captions(clean)
        said = []
        if check is not None and (check.unknown or check.lettered_examples):
            words = ", ".join(map(repr, [*check.unknown_examples, *check.lettered_examples]))
            said.append(f"the encoder does not know {words}: what it finds for them is chance")
        if check is not None and check.cut:
            said.append(
                f"the encoder reads {check.max_words} tokens, and the longest sentence has "
                f"{check.longest}: its end is not looked for"
            )
        return "; ".join(said)

    def video_vector(self, video: Video) -> Floats:
        """Encode a video as one moment: (E,)."""
        frames = self.index.settings.num_frames
        vector: Floats = self.encoder.encode_video([video], num_frames=frames)[0]
        return vector

    def search(
        self, vector: Floats, top: int = 10, among: npt.NDArray[np.bool_] | None = None
    ) -> list[Hit]:
        """Find the moments nearest to a vector, by comparing it with all, or those of some lists.

        Of moments that overlap only the best is returned. Equal ones come in the order of their
        videos' names and of their times.

        Args:
            vector: (E,) of ``text_vector`` or ``video_vector``.
            top: How many.
            among: (N,) which moments may be found; None = all.

        Returns:
            The best first.
        """
        lists = self._lists
        if lists is not None and lists.probes < len(lists.centroids):
            rows, pieces = lists.near(vector)
            scores = cosines_of(pieces, vector)
            if not np.isfinite(scores).all():
                raise lists.damaged("a vector in it holds NaN or infinity")
            scores[rows < 0] = -np.inf
            best = self._best(scores, top, among, rows)
            if len(best) == top:  # else the lists hold few of those that may be found
                lists.check(rows[best], scores[best], vector, self._moments)
                return self._hits(rows[best], scores[best])
        scores = self.similarities(vector)
        best = self._best(scores, top, among, slice(None))
        return self._hits(best, scores[best])

    def _best(
        self,
        scores: Floats,
        top: int,
        among: npt.NDArray[np.bool_] | None,
        rows: npt.NDArray[np.int64] | slice,
    ) -> npt.NDArray[np.int64]:
        """Return the places of the best among some rows, which have (k,) scores."""
        if among is not None:
            scores[~among[rows]] = -np.inf
        chosen = distinct(scores, self.owner[rows], self.spans[rows], top, self._place)
        return np.array(chosen, np.int64)

    def _hits(self, rows: npt.NDArray[np.int64], scores: Floats) -> list[Hit]:
        """Name moments, which have (k,) scores."""
        times: list[tuple[float, float]] = self.spans[rows].tolist()
        return [
            Hit(self.sources[owner], start, end, score)
            for owner, (start, end), score in zip(
                self.owner[rows], times, scores.tolist(), strict=True
            )
        ]

    def rerank(self, text: str, hits: list[Hit], by: RankBy = "mixture") -> list[Hit]:
        """Let the matching head look at moments again.

        Args:
            text: The sentence that was searched.
            hits: Of ``search``.
            by: Order them by the mixture of similarity and matching, or by "matching" alone.

        Returns:
            The best first, then those that cannot be read now.
        """
        judged: list[Hit] = []
        mixture = self.encoder.model.mixture
        by_video = sorted(hits, key=lambda hit: (hit.source, hit.start))
        for source, group in groupby(by_video, key=lambda hit: hit.source):
            wanted = list(group)
            clips = list(self._clips(source, wanted))
            logits = self.encoder.score_all([text], clips, by="matching")[0].tolist()
            judged += [
                replace(h, match=m, score=mixture(h.similarity, m) if by == "mixture" else m)
                for h, m in zip(wanted, logits, strict=False)
            ]
            judged += wanted[len(logits) :]

        def place(hit: Hit) -> tuple[bool, float, float]:
            return hit.score is None, -(hit.score or 0.0), -hit.similarity

        return sorted(judged, key=place)

    def curve(self, vector: Floats, source: Source) -> tuple[Spans, Floats]:
        """Compare a vector with every moment of a video.

        Returns:
            (n, 2) start and end in seconds, in order, and (n,) cosines.
        """
        rows = np.flatnonzero(self._moments.owner == self.sources.index(source))
        rows = rows[np.argsort(self._moments.spans[rows, 0], kind="stable")]
        return self._moments.spans[rows], self.similarities(vector)[rows]

    def similarities(self, vector: Floats) -> Floats:
        """Compare a vector with every moment: (N,), minus infinity for outdated ones.

        Raises:
            ValueError: If the vector, or one of the index, holds something that is no number.
        """
        scores = cosines_of(self._moments.vectors, vector)
        if not np.isfinite(scores).all():
            sizes = [len(table) for table in self._moments.vectors]
            parts = np.repeat(np.arange(len(sizes)), sizes)
            first = parts[~np.isfinite(scores)][0]
            raise damaged(self.index.parts[first], "a vector in it holds NaN or infinity")
        scores[self.owner < 0] = -np.inf
        return scores

    def _clips(self, source: Source, hits: list[Hit]) -> Iterator[Tensor]:
        """Decode moments of a video; ends early where it cannot be read."""
        spans = [(hit.start, hit.end) for hit in hits]
        clip = clip_of(self.encoder, self.index.settings.num_frames)
        try:
            for _, frames in load_moments(source.content(), lambda times: spans, clip):
                yield frames
        except (DecodeError, OSError):
            return


def cosines_of(tables: Sequence[Floats], vector: Floats) -> Floats:
    """Compare a vector with many, on all threads.

    Args:
        tables: (k, E) each, n rows together.
        vector: (E,).

    Returns:
        (n,) products, each of which depends on its row and the vector alone.

    Raises:
        ValueError: If the vector holds something that is no number.
    """
    if not np.isfinite(vector).all():
        raise ValueError("the vector to search with holds NaN or infinity")
    asked = torch.from_numpy(np.array(vector, np.float32))
    found: Floats = products([torch.from_numpy(table) for table in tables], asked).numpy()
    return found


def distinct(
    scores: Floats,
    owner: npt.NDArray[np.int32],
    spans: Spans,
    top: int,
    place: npt.NDArray[np.int_],
) -> list[int]:
    """Return the best rows, without those that overlap a better one of the same video.

    Args:
        scores: (N,); minus infinity for rows that are not to be found.
        owner: (N,) number of the video.
        spans: (N, 2) seconds.
        top: How many rows.
        place: (M + 1,) of each video, by its number, among equal scores.
    """
    chosen: list[int] = []
    taken: dict[int, list[tuple[float, float]]] = {}

    def ties(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
        return rows, spans[rows, 0], place[owner[rows]]

    for row in _descending(scores, 16 * top, ties):
        if scores[row] == -np.inf or len(chosen) == top:
            break
        start, end = spans[row].tolist()
        others = taken.setdefault(int(owner[row]), [])
        if all(end <= s or start >= e for s, e in others):
            others.append((start, end))
            chosen.append(row)
    return chosen


def _descending(
    scores: Floats,
    some: int,
    ties: Callable[[npt.NDArray[np.int64]], tuple[npt.NDArray[Any], ...]],
) -> Iterator[int]:
    """Yield all rows, the highest score first, sorting no more of them than are asked for.

    Args:
        scores: (N,).
        some: How many are probably asked for.
        ties: Gives what orders some rows where their scores are equal, the last first.
    """
    done, count = 0, min(some, len(scores))
    while done < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        rows = np.flatnonzero(scores >= least)  # with all that are equal to the last one
        rows = rows[np.lexsort((*ties(rows), -scores[rows]))]
        yield from rows[done:].tolist()
        done = len(rows)
        count = min(4 * done, len(scores))
