"""What the page and its API do, apart from how they look."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vmm.data.cut_off import refuse_part
from vmm.data.decode import ChooseParts, DecodeError
from vmm.data.isolation import IsolatedDecoder
from vmm.data.times import end_of
from vmm.search.ask import Answer, look_through
from vmm.search.cut import cut_moment
from vmm.search.encode import clip_of
from vmm.search.find import RERANKED, Query, find, query_vector
from vmm.search.parts import Floats
from vmm.search.query import Hit, Searcher
from vmm.search.windows import DecodeParts, load_moments
from vmm.text_output import visible

_log = logging.getLogger(__name__)

MOST = 500
"""Moments that can be asked for at once."""
_TIMEOUT_S = 30.0
_KEPT_FILMS = 2000
_PATIENCE_S = 30.0
_ENDS = "the page ends; start it again"


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes:
        query: What was searched.
        vector: (E,) of it.
        hits: The best first.
        all: Whether there are no more.
    """

    query: Query
    vector: Floats
    hits: list[Hit]
    all: bool = False


class Actions:
    """Searches, and makes films of what was found; many requests at once are served in turn.

    Args:
        searcher: Searches.
        folder: For the films.
    """

    def __init__(self, searcher: Searcher, folder: Path) -> None:
        self.searcher = searcher
        self.folder = folder
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def end(self) -> None:
        """Begin no more work, and wait for what is under way.

        A process that ends while one of its threads computes is aborted by torch.
        """
        self._ended.set()
        self._turn.acquire(timeout=_PATIENCE_S)

    @property
    def looks_again(self) -> bool:
        """Whether the encoder has a matching head."""
        try:
            self.searcher.encoder.model.text_encoder.fusing("")
        except ValueError:
            return False
        return True

    def about(self) -> dict[str, Any]:
        """Tell what is searched: name, size and model of the index."""
        settings, index = self.searcher.index.settings, self.searcher.index
        records = [video.record for video in index.videos.values() if video.record.count]
        return {
            "index": _place(index.folder.resolve()),
            "videos": len(records),
            "moments": index.num_moments,
            "hours": sum(record.seconds for record in records) / 3600,
            "window": settings.window,
            "stride": settings.stride,
            "shots": settings.shots,
            "encoder": _place(Path(settings.encoder)),
            "fingerprint": settings.fingerprint,
            "looks_again": self.looks_again,
        }

    def query(self, text: str | None, clip: Path | None, *, again: str = "", **rest: Any) -> Query:
        """Make a query of what people enter.

        Args:
            text: A sentence; blank = none.
            clip: An uploaded video.
            again: What orders moments that are looked at again; blank = none are.
            rest: Of ``Query``; None and blank = left out.

        Raises:
            ValueError: If these say nothing, or the clip cannot be read.
        """
        said = {name: value for name, value in rest.items() if value not in (None, "")}
        if again:
            said = {"rerank": RERANKED, "rank_by": again, **said}
        words = None if isinstance(text, str) and not text.strip() else text
        # What is wrong with the rest is told before a clip is decoded.
        query = Query(words, None if clip is None else b"", **said)
        for name in ("top", "rerank"):
            if (number := getattr(query, name)) > MOST:
                raise ValueError(f"{name} {number} is above {MOST}; ask for fewer, or use a filter")
        return query if clip is None else replace(query, clip=self._frames(clip))

    def find(self, query: Query, vector: Floats | None = None) -> Found:
        """Search.

        Raises:
            ValueError: See ``vmm.search.find.find``.
        """
        with self._working():
            vector = query_vector(self.searcher, query) if vector is None else vector
            hits = find(self.searcher, query, vector)
            return Found(query, vector, hits, all=len(hits) < query.top)

    def ask(self, video: Path, text: str, window: float | None, top: int) -> Answer:
        """Search an uploaded video.

        Raises:
            ValueError: If the sentence is missing, or the video cannot be read.
        """
        if not text or not text.strip():
            raise ValueError("type what to look for in the video")
        if window is not None and not 0 < window < np.inf:
            raise ValueError(f"window {window!r} must be a number of seconds above 0")
        if not 1 <= top <= MOST:
            raise ValueError(f"top {top} must be from 1 to {MOST}")
        with self._working(), closing(IsolatedDecoder(_TIMEOUT_S)) as decoder:
            vector = self.searcher.text_vector(text)
            return look_through(
                self.searcher,
                vector,
                video,
                window=window,
                top=top,
                decode=self._until_end(decoder),
            )

    def films(self, hits: list[Hit], uploaded: bool = False) -> list[Path | None]:
        """Cut films of moments; None where that cannot be done now.

        Args:
            hits: The moments.
            uploaded: Whether they are of a file that nobody has decoded before.
        """
        made: list[Path | None] = []
        with closing(IsolatedDecoder(_TIMEOUT_S)) as decoder:
            for hit in hits:
                # Of everything that says which film it is: names in two shards may be equal.
                moment = repr((str(hit.source.path), hit.source.member, hit.start, hit.end))
                film = self.folder / f"{hashlib.sha256(moment.encode()).hexdigest()[:32]}.mp4"
                try:
                    if not film.exists():
                        how = {"decode": decoder.parts} if uploaded else {}
                        with self._working():
                            content = cut_moment(hit.source.content(), hit.start, hit.end, **how)
                            film.write_bytes(content)
                    os.utime(film)
                    made.append(film)
                except (DecodeError, OSError) as error:
                    _log.info("cannot show %s: %s", visible(str(hit.source)), visible(str(error)))
                    made.append(None)
        self._forget_films()
        return made

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Wait for one's turn.

        Raises:
            ValueError: If the page has ended meanwhile.
        """
        with self._turn:
            if self._ended.is_set():
                raise ValueError(_ENDS)
            yield

    def _until_end(self, decoder: IsolatedDecoder) -> DecodeParts:
        """Decode a film, which may be long, only as long as the page is there."""

        def parts(video: bytes | Path, choose: ChooseParts) -> Iterator[np.ndarray]:
            for part in decoder.parts(video, choose):
                if self._ended.is_set():
                    raise ValueError(_ENDS)
                yield part

        return parts

    def _frames(self, clip: Path) -> Tensor:
        """Decode an upload as one moment, in a process that it may crash.

        Raises:
            ValueError: If it cannot be read.
        """
        frames = clip_of(self.searcher.encoder, self.searcher.index.settings.num_frames)
        with closing(IsolatedDecoder(_TIMEOUT_S)) as decoder:
            try:
                whole = load_moments(
                    clip, lambda times: [(float(times[0]), end_of(times))], frames, decoder.parts
                )
                _, tensor = next(whole)
                refuse_part(clip)
            except (DecodeError, OSError) as error:
                raise ValueError(f"this clip cannot be read: {error}; try another file") from error
        return tensor

    def _forget_films(self) -> None:
        films = sorted(self.folder.glob("*.mp4"), key=lambda film: film.stat().st_mtime)
        for film in films[:-_KEPT_FILMS]:
            film.unlink(missing_ok=True)


def _place(folder: Path) -> str:
    """Name a folder by its last two names: most indexes are called "index"."""
    return str(Path(*folder.parts[-2:]))
