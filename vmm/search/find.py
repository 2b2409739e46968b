"""What to find, and the one way to find it: of the page, its API and ``vmm search``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from vmm.export.frames import Video
from vmm.ops.similarity import RankBy
from vmm.search.parts import Floats
from vmm.search.query import Hit, Searcher

RERANKED = 30
"""Moments that the matching head looks at again where nobody says how many."""

_NO_DIRECTION = 1e-6
_NUMBERS = ("after", "before", "min_duration", "max_duration")


@dataclass(frozen=True)
class Query:
    """What to look for, and where.

    Attributes:
        text: A sentence.
        clip: A video: a file, its content, or its frames. With ``text`` it means both: moments
            nearest to the normalised mean of the two unit vectors.
        top: How many moments.
        rerank: How many of the best the matching head looks at again; needs ``text``, which is
            what it compares them with. 0 = none.
        rank_by: What orders these: the mixture of similarity and matching, or matching alone.
        folder: Only videos in this folder or shard, or this video: names between slashes as hits
            show them, of the whole path (``/films/2024``) or from anywhere in it (``2024/may``).
            ``*``, ``?`` and ``[...]`` stand for characters of a name (``/films/*/may``,
            ``*.mkv``). It is compared with names alone: nothing is opened.
        after: Only moments that show something after this time in their video, seconds.
        before: Only moments that show something before this time in their video, seconds.
        min_duration: Only videos of at least this length, seconds.
        max_duration: Only videos of at most this length, seconds.

    Raises:
        ValueError: If these say nothing, or contradict each other.
    """

    text: str | None = None
    clip: Video | None = None
    top: int = 10
    rerank: int = 0
    rank_by: RankBy = "mixture"
    folder: str | None = None
    after: float | None = None
    before: float | None = None
    min_duration: float | None = None
    max_duration: float | None = None

    def __post_init__(self) -> None:
        if self.text is not None and not (isinstance(self.text, str) and self.text.strip()):
            raise ValueError(f"text {self.text!r} says nothing; give a sentence, or leave it out")
        if self.text is None and self.clip is None:
            raise ValueError("say what to look for: a sentence, a clip, or both")
        for name, least in (("top", 1), ("rerank", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} {value!r} must be a whole number of {least} or more")
        self._check_rerank()
        self._check_filters()

    def _check_rerank(self) -> None:
        if self.rank_by not in get_args(RankBy):
            known = " or ".join(get_args(RankBy))
            raise ValueError(f"rank_by {self.rank_by!r} must be {known}")
        if self.rerank and self.text is None:
            raise ValueError(
                f"rerank {self.rerank} compares moments with a sentence; give text too, or rerank 0"
            )
        if self.rank_by != "mixture" and not self.rerank:
            raise ValueError(f"rank_by {self.rank_by} is for what rerank looks at; give both")

    def _check_filters(self) -> None:
        if self.folder is not None and not (isinstance(self.folder, str) and names_of(self.folder)):
            raise ValueError(f"folder {self.folder!r} names nothing; give a path or a part of one")
        if self.folder is not None and {"..", "**"} & set(names_of(self.folder)):
            raise ValueError(
                f"folder {self.folder!r} must not have .. or **: it is compared with the names of "
                "videos, and whatever lies deeper is found anyway"
            )
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is None:
                continue
            usable = isinstance(value, int | float) and not isinstance(value, bool)
            if not usable or not 0 <= value < math.inf:
                raise ValueError(f"{name} {value!r} must be a number of seconds, 0 or more")
        for low, high in (("after", "before"), ("min_duration", "max_duration")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low} {least:g} is above {high} {most:g}; exchange them")


def find(searcher: Searcher, query: Query, vector: Floats | None = None) -> list[Hit]:
    """Find moments.

    Equal scores come in the order of the names of their videos, then of their times. Of moments
    that overlap only the best is returned.

    Args:
        searcher: The index and its encoder.
        query: What to find.
        vector: (E,) of ``query_vector``, if it is there already.

    Returns:
        At most ``query.top``, the best first: those that were looked at again in the order of
        ``Hit.score``, then those that could not be or were not, in the order of
        ``Hit.similarity``. Both are kept.

    Raises:
        ValueError: If the clip cannot be read, the encoder cannot look again, or the index is
            damaged.
    """
    if query.rerank:
        searcher.encoder.model.text_encoder.fusing("search without re-ranking")
    vector = query_vector(searcher, query) if vector is None else vector
    hits = searcher.search(vector, max(query.top, query.rerank), wanted(searcher, query))
    if query.rerank and query.text is not None:
        first, rest = hits[: query.rerank], hits[query.rerank :]
        hits = searcher.rerank(query.text, first, query.rank_by) + rest
    return hits[: query.top]


def query_vector(searcher: Searcher, query: Query) -> Floats:
    """Encode what is looked for: (E,) of length 1.

    Raises:
        ValueError: If the clip cannot be read, or says the opposite of the sentence.
    """
    parts = [] if query.text is None else [searcher.text_vector(query.text)]
    parts += [] if query.clip is None else [searcher.video_vector(query.clip)]
    if len(parts) == 1:
        return parts[0]
    mean: Floats = np.asarray(np.mean(parts, axis=0), np.float32)
    length = float(np.linalg.norm(mean))
    if length < _NO_DIRECTION:
        raise ValueError("sentence and clip say the opposite; search by one of them")
    return np.asarray(mean / length, np.float32)


def wanted(searcher: Searcher, query: Query) -> npt.NDArray[np.bool_] | None:
    """Tell which moments the filters of a query let through: (N,), or None for all."""
    limits = (query.min_duration, query.max_duration)
    keep: npt.NDArray[np.bool_] | None = None
    if query.folder is not None or limits != (None, None):
        inside = places_in(query.folder or "/*")
        least, most = limits[0] or 0.0, math.inf if limits[1] is None else limits[1]
        chosen = [
            least <= searcher.seconds(source) <= most and bool(inside.search(str(source)))
            for source in searcher.sources
        ]
        keep = np.append(chosen, False)[searcher.owner]  # the last is of outdated moments, -1
    if query.after is not None:
        late = searcher.spans[:, 1] > query.after
        keep = late if keep is None else keep & late
    if query.before is not None:
        early = searcher.spans[:, 0] < query.before
        keep = early if keep is None else keep & early
    return keep


def names_of(path: str) -> list[str]:
    """Return the names in a path, without those that mean nothing."""
    return [name for name in path.split("/") if name not in ("", ".")]


def places_in(folder: str) -> re.Pattern[str]:
    """Return what finds the names of videos in a folder, see ``Query.folder``."""
    names = "/".join(f"(?:{re.escape(name)}|{_pattern(name)})" for name in names_of(folder))
    start = "^/" if folder.startswith("/") else "(?:^|/)"
    return re.compile(f"{start}{names}(?:/|$)", re.DOTALL)


def _pattern(name: str) -> str:
    """Translate a name with wildcards, none of which stands for a slash."""

    def translated(found: re.Match[str]) -> str:
        part = found[0]
        if part in ("*", "?"):
            return "[^/]*" if part == "*" else "[^/]"
        if len(part) == 1:
            return re.escape(part)
        start = 2 if part[1] == "!" else 1
        return f"(?!/)[{'^' * (start - 1)}{re.escape(part[start:-1]).replace(chr(92) + '-', '-')}]"

    pattern = re.sub(r"\[!?\]?[^\]]+\]|.", translated, name, flags=re.DOTALL)
    try:
        re.compile(pattern)
    except re.error:  # e.g. [z-a], which no letter lies in
        return re.escape(name)
    return pattern
