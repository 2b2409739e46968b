"""Hits as a timeline of OpenTimelineIO: one video track, one clip after the other, the best first.

Needs the extra ``otio``. Every clip is at its video's own frame rate and begins with the timecode
of the camera; the first one of a query has a marker. What vmm knows of a hit, a row of
``vmm.search.results``, is in the clip's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange

from vmm.search.outputs.cuts import Cut, cuts_of
from vmm.search.outputs.files import write_texts
from vmm.search.results import Result, row_of
from vmm.text_output import visible

_BEGIN_S = 3600


def write(results: Sequence[Result], out: Path) -> list[str]:
    """Write a timeline.

    Raises:
        ValueError: If no hit is in a file that can be read.
    """
    cuts, said = cuts_of(results)
    timeline = otio.schema.Timeline(name=visible(out.stem))
    base = cuts[0].media.base
    timeline.global_start_time = RationalTime(base.frame(_BEGIN_S), float(base.rate))
    track = otio.schema.Track(name="hits", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    begun: set[str] = set()
    for cut in cuts:
        clip = _clip(cut)
        if cut.result.id not in begun:
            begun.add(cut.result.id)
            start = clip.source_range.start_time
            marked = TimeRange(start, RationalTime(1, start.rate))
            name = visible(cut.result.about)
            clip.markers.append(otio.schema.Marker(name=name, marked_range=marked))
        track.append(clip)
    text = otio.adapters.write_to_string(timeline, "otio_json")
    return [*write_texts(out, {"": text + "\n"}), *said]


def _clip(cut: Cut) -> otio.schema.Clip:
    media, path = cut.media, cut.hit.source.path
    rate = float(media.base.rate)
    start, end = cut.frames(media.base)

    def span(first: int, frames: int) -> TimeRange:
        return TimeRange(RationalTime(media.first + first, rate), RationalTime(frames, rate))

    row = row_of(cut.result, cut.rank, cut.hit)
    row = {k: visible(v) if isinstance(v, str) else v for k, v in row.items()}
    known = None if media.frames is None else span(0, max(media.frames, end))
    file = otio.schema.ExternalReference(path.as_uri(), known)
    return otio.schema.Clip(
        name=visible(path.name),
        media_reference=file,
        source_range=span(start, end - start),
        metadata={"vmm": row},
    )
