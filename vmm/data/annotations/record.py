"""What every annotation file becomes: one record per clip, or per question about a clip."""

from __future__ import annotations

from typing import Any, NamedTuple

from vmm.data.schema import Media


class Annotation(NamedTuple):
    """One item of an annotation file."""

    key: str
    """The item's id, unique in the file."""
    media: str
    """The video or image as the file names it: an id, a file name or a relative path."""
    captions: list[str]
    """What is said about it, without surrounding white space; in question sets, the question."""
    kind: Media = "video"
    start: float | None = None
    """Seconds into the media file where the described part starts; None = at its start."""
    end: float | None = None
    """Seconds into the media file where the described part ends; None = at its end."""
    metadata: dict[str, Any] = {}  # noqa: RUF012  # never changed
    """Everything else the file says. ``split``, ``duration`` (seconds), ``label`` (class number);
    of a question: ``question``, ``options``, ``answer`` (position in the options, text where there
    are none, None where it is not public) and ``question_type``."""
    aliases: tuple[str, ...] = ()
    """Other names under which people keep the same media."""
