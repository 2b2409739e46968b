"""What happens when something on the page is pressed: in and out of Gradio's components."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio
import numpy as np
import pandas

from vmm.search.app.actions import Actions, Found
from vmm.search.app.api import answered, rows
from vmm.search.app.favourites import KINDS, Favourites, files_of, kept, lines
from vmm.search.app.words import caption, named, scores, status
from vmm.search.ask import Answer
from vmm.search.find import names_of
from vmm.search.parts import Floats, Spans
from vmm.search.query import Hit, timestamp
from vmm.text_output import number_of, visible

STEP = 12
"""Moments that are added when more are asked for."""
_LIKE = "like a clip"
_QUOTED = 80
"""Characters of what was entered that a sentence repeats."""

_Shown = list[tuple[str, str]]
"""Film and caption of each moment."""


class Page:
    """The page's functions.

    Args:
        actions: What they do.
    """

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def search(
        self,
        text: str | None = None,
        clip: str | None = None,
        top: float = STEP,
        again: str = "",
        folder: str | None = None,
        after: float | None = None,
        before: float | None = None,
        min_duration: float | None = None,
        max_duration: float | None = None,
    ) -> dict[str, Any]:
        """Find moments; returns what ``POST /api/search`` does."""
        limits = (folder, after, before, min_duration, max_duration)
        found = self._found(text, clip, top, again, *limits)
        return {"hits": [_sendable(row) for row in rows(found)]}

    def find(self, *given: Any) -> tuple[Any, ...]:
        """Find moments; takes what ``search`` does."""
        return self._show(self._found(*given))

    def more(self, found: Found) -> tuple[Any, ...]:
        """Find more moments: those that were shown stay where they are."""
        query = replace(found.query, top=found.query.top + STEP)
        return self._show(self.actions.find(query, found.vector))

    def may_go_on(self, found: Found | None) -> list[Any]:
        """Tell the buttons whether there is something to go on with: more, or some to keep."""
        some = bool(found and found.hits)
        more = bool(found and not found.all)
        return [gradio.update(interactive=can) for can in (some and more, some, some)]

    def inspect(self, found: Found, number: int) -> tuple[pandas.DataFrame | None, str]:
        """Show the curve of a moment's video, and what is known of the moment."""
        hit = found.hits[number]
        spans, cosines = self.actions.searcher.curve(found.vector, hit.source)
        seconds = self.actions.searcher.seconds(hit.source)
        lines = [
            f"file: {hit.source}",
            f"moment: {hit.when} of {timestamp(seconds)}",
            f"similarity: {hit.similarity:.3f}",
        ]
        if hit.match is not None and hit.score is not None:
            lines.append(f"match: {hit.match:.2f}, ordered by: {hit.score:.2f}")
        peak = spans[int(np.argmax(cosines))]
        best = f"most similar in this video: {timestamp(peak[0])}-{timestamp(peak[1])}"
        lines.append(best if len(spans) > 1 else "its video is one moment, which makes no curve")
        return _table(spans, cosines), "\n".join(map(visible, lines))

    def ask(
        self, video: str | None, text: str, window: float | None, top: float
    ) -> tuple[_Shown, pandas.DataFrame | None, str]:
        """Search an uploaded video."""
        answer = self._asked(video, text, window, top)
        films = self.actions.films(answer.hits, uploaded=True)
        shown = [
            (str(film), f"{rank}. {hit.when}\n{scores(hit)}")
            for rank, (hit, film) in enumerate(zip(answer.hits, films, strict=True), 1)
            if film is not None
        ]
        lengths = answer.spans[:, 1] - answer.spans[:, 0]
        moments = f"{number_of(len(lengths), 'moment')} of {lengths.max():.1f} s"
        best = answer.hits[0]
        said = f"{moments} compared; the best is at {best.when}"
        if len(lengths) == 1:
            said = f"{moments} in all, with a {scores(best)}: a shorter length makes a curve"
        said = "; ".join(filter(None, [said, answer.problem, self._unread(text)]))
        return shown, _table(answer.spans, answer.cosines), status(said)

    def ask_api(
        self, video: str | None, text: str, window: float | None = None, top: float = 3
    ) -> dict[str, Any]:
        """Search an uploaded video; returns what ``POST /api/ask`` does."""
        content = answered(self._asked(video, text, window, top), text)
        return {**content, "hits": [_sendable(row) for row in content["hits"]]}

    def keep_one(self, favourites: Favourites, found: Found, number: int) -> tuple[Any, ...]:
        """Keep the selected moment; returns what is said beside it, too."""
        return self._keep(kept(favourites, _about(found), [found.hits[number]]))

    def keep_all(self, favourites: Favourites, found: Found) -> tuple[Any, ...]:
        """Keep all moments that are shown; returns what is said beside them, too."""
        return self._keep(kept(favourites, _about(found), found.hits))

    def remove(self, favourites: Favourites, checked: list[int]) -> tuple[Any, ...]:
        """Remove moments from the favourites."""
        return self._kept([one for i, one in enumerate(favourites) if i not in checked])

    def _keep(self, favourites: Favourites) -> tuple[Any, ...]:
        said = f"Favourites: {number_of(len(favourites), 'moment')} kept"
        return *self._kept(favourites), status(said)

    def _kept(self, favourites: Favourites) -> tuple[Any, ...]:
        some = bool(favourites)
        files, left_out = files_of(favourites, self.actions.folder) if some else ({}, [])
        buttons = [
            gradio.update(value=files.get(kind), interactive=kind in files) for kind in KINDS
        ]
        listed = gradio.update(choices=lines(favourites), value=[])
        said = "; ".join([f"{number_of(len(favourites), 'moment')} kept", *left_out])
        return favourites, listed, status(said), gradio.update(interactive=some), *buttons

    def _found(
        self, text: str | None, clip: str | None, top: float, again: str, *limits: Any
    ) -> Found:
        names = ("folder", "after", "before", "min_duration", "max_duration")
        # Gradio shows a number that is not there as 0.
        said = {name: limit or None for name, limit in zip(names, limits, strict=True)}
        path = None if clip is None else Path(clip)
        query = self.actions.query(text, path, again=again, top=int(top), **said)
        return self.actions.find(query)

    def _asked(self, video: str | None, text: str, window: float | None, top: float) -> Answer:
        if video is None:
            raise ValueError("upload a video, then ask for something in it")
        return self.actions.ask(Path(video), text, window or None, int(top))

    def _show(self, found: Found) -> tuple[Any, ...]:
        """Return what is shown of a search; moments that have no film now are counted."""
        films = self.actions.films(found.hits)
        looked_again = found.query.rerank > 0
        ranked = enumerate(zip(found.hits, films, strict=True), 1)
        there = [(rank, hit, film) for rank, (hit, film) in ranked if film is not None]
        shown = [(str(film), caption(rank, hit, looked_again)) for rank, hit, film in there]
        lost = [hit for hit, film in zip(found.hits, films, strict=True) if film is None]
        found = replace(found, hits=[hit for _, hit, _ in there])
        curve, about = self.inspect(found, 0) if there else (None, "")
        said = [_outcome(found, len(films), lost), self._unread(found.query.text) if films else ""]
        return shown, found, 0, curve, about, status("; ".join(filter(None, said)))

    def _unread(self, text: str | None) -> str:
        return self.actions.searcher.unread([text] if text else [])


def _about(found: Found) -> str:
    text = found.query.text or ""
    text = text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
    parts = [text, _LIKE if found.query.clip is not None else ""]
    return ", ".join(filter(None, parts))


def _outcome(found: Found, number: int, lost: list[Hit]) -> str:
    if not number:
        return (
            "Nothing was found: the index is empty, or the filters let nothing through. Open "
            "Filters and remove one" + _as_a_part(found.query.folder)
        )
    said = f"{number_of(number, 'moment')} for {_about(found)!r}, the best first"
    if found.all:
        said += "; there are no more"
    if lost:
        said += f"; {len(lost)} of them cannot be read now, e.g. {named(lost[0])}"
    return said


def _as_a_part(folder: str | None) -> str:
    """Say how a part of a name is found, if that is what was asked for."""
    names = names_of(folder or "")
    if len(names) != 1 or "*" in names[0]:
        return "."
    return f", or look for *{names[0][:_QUOTED]}* if that is a part of a name."


def _sendable(row: dict[str, Any]) -> dict[str, Any]:
    """Escape what Gradio cannot send: names of files need not be UTF-8."""
    return {key: visible(v) if isinstance(v, str) else v for key, v in row.items()}


def _table(spans: Spans, cosines: Floats) -> pandas.DataFrame | None:
    """Make a curve of the moments: at their middles, and level to the ends of the video.

    One moment makes none: a level line, at a height with six decimals.
    """
    if len(spans) < 2:
        return None
    middles = [float(spans[0, 0]), *spans.mean(1).tolist(), float(spans[-1, 1])]
    levels = np.concatenate([cosines[:1], cosines, cosines[-1:]]).astype(float)
    return pandas.DataFrame({"seconds": middles, "similarity": levels.round(3)})
