"""Hits as edit decision lists, CMX 3600: one after the other, the best first.

A list has one frame rate, drop-frame or not, and at most 999 events: there are as many lists as it
takes. The source's timecode begins with that of the camera, the list's at one hour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from vmm.search.outputs.cuts import Cut, cuts_of
from vmm.search.outputs.files import FEWER, some_of, unique_name, write_texts
from vmm.search.outputs.timecode import Timebase, editors_rate
from vmm.search.results import Result
from vmm.search.sources import Source
from vmm.text_output import visible

_MOST_EVENTS = 999
_DAY_S = 86_400
_BEGIN_S = 3600
_REEL = 8  # characters


def write(results: Sequence[Result], out: Path) -> list[str]:
    """Write one list, or one for each frame rate.

    Raises:
        ValueError: If no hit is in a file that can be read.
    """
    cuts, said = cuts_of(results)
    by_base: dict[Timebase, list[Cut]] = {}
    for cut in cuts:
        by_base.setdefault(_base_of(cut), []).append(cut)
    lists: dict[str, str] = {}
    names: set[str] = set()
    for base, group in by_base.items():
        for first in range(0, len(group), _MOST_EVENTS):
            some = group[first : first + _MOST_EVENTS]
            lists[unique_name(base.label, names)] = _edl(out.stem, base, some)
    if len(by_base) > 1:
        rates = ", ".join(sorted(base.label for base in by_base))
        said.append(f"a list has one frame rate, and these are of {rates}: one list for each")
    said += _odd_rates(cuts)
    return [*write_texts(out, lists), *said]


def _base_of(cut: Cut) -> Timebase:
    rate = editors_rate(cut.media.base.rate)
    return Timebase(rate, cut.media.base.drop)


def _odd_rates(cuts: Sequence[Cut]) -> list[str]:
    odd = {}
    for cut in cuts:
        own, counted = cut.media.base.rate, _base_of(cut).rate
        if abs(own - counted) > counted / 1000:
            odd[cut.hit.source] = f"{cut.hit.source.path.name} ({float(own):.5g})"
    if not odd:
        return []
    names = some_of([*odd.values()])
    return [f"editors do not count the frame rate of {names}; their list has another"]


def _edl(title: str, base: Timebase, cuts: Sequence[Cut]) -> str:
    lines = [f"TITLE: {visible(title)}", f"FCM: {'DROP' if base.drop else 'NON-DROP'} FRAME", ""]
    reels = _reels([cut.hit.source for cut in cuts])
    at = base.frame(_BEGIN_S)
    for number, cut in enumerate(cuts, 1):
        first = _first_frame(cut, base)
        start, end = cut.frames(base)
        until = at + end - start
        if until > base.frame(_DAY_S):
            raise ValueError(
                f"the hits last longer than the 24 hours of a timecode from number {number} on; "
                f"{FEWER}"
            )
        times = (first + start, first + end, at, until)
        codes = " ".join(base.timecode(frame) for frame in times)
        source = cut.hit.source.path
        lines += [
            f"{number:03d}  {reels[cut.hit.source]:<{_REEL}} V     C        {codes}",
            f"* FROM CLIP NAME: {visible(source.name)}",
            f"* SOURCE FILE: {visible(str(source))}",
            f"* COMMENT: {visible(cut.about)}",
        ]
        at = until
    return "\n".join(lines) + "\n"


def _first_frame(cut: Cut, base: Timebase) -> int:
    """Return the number of the video's first frame, as the list counts."""
    own = cut.media.base
    if own.nominal == base.nominal:
        return cut.media.first
    return round(Fraction(cut.media.first, own.nominal) * base.nominal)


def _reels(sources: Sequence[Source]) -> dict[Source, str]:
    """Name every video in eight letters and digits that no other one has."""
    reels: dict[Source, str] = {}
    taken: set[str] = set()
    for source in dict.fromkeys(sources):
        name = re.sub(r"[^A-Z0-9]", "", source.path.stem.upper())[:_REEL] or "CLIP"
        number, reel = 1, name
        while reel in taken:
            number += 1
            reel = f"{name[: _REEL - len(str(number))]}{number}"
        taken.add(reel)
        reels[source] = reel
    return reels
