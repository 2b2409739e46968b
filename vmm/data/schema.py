"""What a shard sample is: the img2dataset / video2dataset convention, in one place.

A shard is a plain ``.tar``. All members with the same name up to the extension are one sample::

    000000012.mp4    the media: one of VIDEO_EXTENSIONS or IMAGE_EXTENSIONS
    000000012.txt    the caption, UTF-8
    000000012.json   metadata; its "caption" is used where the .txt is absent or blank

Standard library only: ``data_prep`` writes shards with this module and must not need torch.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any, Literal, NamedTuple

Media = Literal["video", "image"]

VIDEO_EXTENSIONS = ("mp4", "webm", "mkv", "avi", "mov", "gif")
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MEDIA_EXTENSIONS: dict[Media, tuple[str, ...]] = {
    "video": VIDEO_EXTENSIONS,
    "image": IMAGE_EXTENSIONS,
}
TEXT_EXTENSION = "txt"
JSON_EXTENSION = "json"
KNOWN_EXTENSIONS = frozenset((*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS, TEXT_EXTENSION, JSON_EXTENSION))

# Metadata fields that vmm reads. REVERSED_CAPTION describes the same clip played backwards.
CAPTION = "caption"
REVERSED_CAPTION = "reversed_caption"
# Seconds: the part of the video that the sample is about.
START = "start"
END = "end"


class RawSample(NamedTuple):
    """One sample as it is stored."""

    key: str
    """``shard/key``, unique in the set."""
    number: int
    """Position in the set, in shard order."""
    extension: str
    data: bytes
    """The video or image file."""
    captions: list[str]
    metadata: dict[str, Any]


def split_member(name: str) -> tuple[str, str] | None:
    """Split a member name into its sample key and its extension.

    The split is at the last dot, so ``clip_1.5s.mp4`` and ``clip_1.7s.mp4`` stay two samples;
    WebDataset splits at the first dot and merges them.

    Args:
        name: Name of a tar member, with folders.

    Returns:
        (key, extension in lower case), or None if the extension is not one a sample has.
    """
    key, dot, extension = name.rpartition(".")
    extension = extension.lower()
    if not dot or not key or key.endswith("/") or extension not in KNOWN_EXTENSIONS:
        return None
    return key, extension


def media_member(extensions: Container[str], media: Media) -> str | None:
    """Choose the extension of a sample's media, None if it has none of this type."""
    return next((name for name in MEDIA_EXTENSIONS[media] if name in extensions), None)


def parse_metadata(data: bytes | None) -> dict[str, Any]:
    """Read a sample's JSON; whatever is not a JSON object counts as no metadata."""
    if not data:
        return {}
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def captions_of(text: bytes | None, metadata: dict[str, Any]) -> list[str]:
    """Find the captions of a sample.

    A non-blank text file wins; else the metadata's ``caption``, one string or a list of them.

    Args:
        text: Content of the ``.txt`` member; bytes that are not UTF-8 are replaced.
        metadata: The parsed ``.json`` member.

    Returns:
        Captions without surrounding white space; empty if there is none.
    """
    caption = (text or b"").decode("utf-8", errors="replace").strip()
    if caption:
        return [caption]
    value = metadata.get(CAPTION)
    values = value if isinstance(value, list) else [value]
    return [item.strip() for item in values if isinstance(item, str) and item.strip()]
