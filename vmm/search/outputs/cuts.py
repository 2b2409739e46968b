"""Hits as editors see them: frames of files, with the timecode of the camera."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from vmm.data.containers import frame_rate, library_errors, open_video, rational
from vmm.data.decode import DecodeError
from vmm.search.outputs.files import FILMS_INSTEAD, some_of
from vmm.search.outputs.timecode import Timebase, drops
from vmm.search.query import Hit
from vmm.search.results import Result
from vmm.search.sources import Source
from vmm.text_output import number_of

_MICROSECOND = Fraction(1, 1_000_000)


class Media(NamedTuple):
    """What editors must know of a file.

    Attributes:
        base: How its frames are counted.
        timecode: Of its first frame; empty if the file does not say.
        frames: How many there are; None if that is not known without reading it all.
    """

    base: Timebase
    timecode: str
    frames: int | None

    @property
    def first(self) -> int:
        """Number of the first frame; 0 if the file does not say."""
        return self.base.number(self.timecode) or 0

    @property
    def is_plain(self) -> bool:
        """Whether a frame can have the file's timecode, if it has one."""
        return not self.timecode or self.base.number(self.timecode) is not None


class Cut(NamedTuple):
    """A hit in its file.

    Attributes:
        result: Of the query.
        rank: Among its hits, from 1.
        hit: The moment.
        media: The file.
    """

    result: Result
    rank: int
    hit: Hit
    media: Media

    def frames(self, base: Timebase) -> tuple[int, int]:
        """Return the first frame and the one after the last, counted from the video's start."""
        start = base.frame(self.hit.start)
        return start, max(base.frame(self.hit.end), start + 1)

    @property
    def about(self) -> str:
        """The query, the rank and the score that ordered it, to be read by people."""
        hit = self.hit
        score = f"similarity {hit.similarity:.3f}"
        if hit.match is not None:
            score += f", match {hit.match:.2f}, score {hit.score:.2f}"
        return f"{self.result.about}: rank {self.rank}, {score}"


def read_media(path: Path) -> Media:
    """Look into a video file.

    Raises:
        DecodeError: If it cannot be read as one.
        OSError: If it cannot be opened.
    """
    with open_video(path) as (container, stream), library_errors():
        rate = frame_rate(stream)
        holders = [stream, container, *container.streams]
        tags = [{k.lower(): v for k, v in holder.metadata.items()} for holder in holders]
        timecode = next((tag["timecode"] for tag in tags if tag.get("timecode")), "")
        frames = None
        if stream.duration:
            frames = round(stream.duration * rational(stream.time_base, _MICROSECOND) * rate)
        elif container.duration:
            frames = round(container.duration * _MICROSECOND * rate)
        return Media(Timebase(rate, drops(rate, timecode)), timecode, frames)


def cuts_of(results: Sequence[Result]) -> tuple[list[Cut], list[str]]:
    """Find out what editors must know of hits.

    Args:
        results: What was found.

    Returns:
        The hits that are in files of their own which can be read now, and a sentence for what is
        left out or odd.

    Raises:
        ValueError: If nothing is left of them.
    """
    known: dict[Source, Media | str] = {}
    cuts, shards, lost = [], 0, 0
    for result in results:
        for rank, hit in enumerate(result.hits, 1):
            if hit.source.member:
                shards += 1
                continue
            if hit.source not in known:
                known[hit.source] = _look_at(hit.source)
            media = known[hit.source]
            if isinstance(media, str):
                lost += 1
            else:
                cuts.append(Cut(result, rank, hit, media))
    said = []
    hits = number_of(len(cuts) + shards + lost, "hit")
    if shards:
        said.append(
            f"left out {shards} of {hits}: they are in shards, which editors do not open; "
            + FILMS_INSTEAD
        )
    if lost:
        why = [text for text in known.values() if isinstance(text, str)]
        said.append(f"left out {lost} of {hits}: {some_of(why)}")
    odd = [
        f"{source.path.name} ({media.timecode})"
        for source, media in known.items()
        if isinstance(media, Media) and not media.is_plain
    ]
    if odd:
        said.append(f"no frame can have the timecode of {some_of(odd)}; counted from 0")
    if not cuts:
        raise ValueError("; ".join(said) or "there are no hits to write; try other words")
    return cuts, said


def _look_at(source: Source) -> Media | str:
    """Return what there is to know of a file, or why it cannot be known."""
    try:
        source.content()  # refuses links
        return read_media(source.path)
    except (DecodeError, OSError) as error:
        return f"{source}: {error}"
