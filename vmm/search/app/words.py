"""What the page says of moments."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from vmm.search.query import Hit
from vmm.text_output import lasting, number_of, visible


def named(hit: Hit) -> str:
    """Return the name of a moment's video without its folder."""
    return visible(Path(hit.source.member or hit.source.path).name)


def scores(hit: Hit) -> str:
    """Say what put a moment in its place, and the other scores."""
    if hit.score is None or hit.match is None:
        return f"similarity {hit.similarity:.3f}"
    if hit.score == hit.match:
        return f"match {hit.match:.2f}, similarity {hit.similarity:.3f}"
    return f"score {hit.score:.2f} of similarity {hit.similarity:.3f} and match {hit.match:.2f}"


def caption(rank: int, hit: Hit, looked_again: bool = False) -> str:
    """Return what stands under a film."""
    rest = ", not looked at again" if looked_again and hit.match is None else ""
    return f"{rank}. {named(hit)}\n{hit.when}\n{scores(hit)}{rest}"


def heading(about: dict[str, Any]) -> str:
    """Say in HTML what is searched.

    Args:
        about: Of ``Actions.about``.
    """
    length = lasting(about["hours"] * 3600)
    window, stride = about["window"], about["stride"]
    how = "cut at shots" if about["shots"] else f"one every {stride:g} s"
    how = f"at most {window:g} s, {how}"
    videos, moments = number_of(about["videos"], "video"), number_of(about["moments"], "moment")
    size = f"{videos}, {length}, {moments} of {how}"
    model = f"model {about['encoder']} ({about['fingerprint'][:12]})"
    title = escape(visible(f"Search in {about['index']}"))
    return f"<h1>{title}</h1><p>{escape(visible(f'{size}; {model}'))}</p>"


def status(text: str) -> str:
    """Return a sentence in HTML that screen readers speak when it changes."""
    return f'<p role="status" aria-live="polite">{escape(visible(text))}</p>'


def mistake(text: str) -> str:
    """Return what went wrong in HTML; screen readers speak it at once."""
    return f'<p role="alert">{escape(visible(text))}</p>'
