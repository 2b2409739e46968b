"""What a shard sample is: the img2dataset / video2dataset convention, in one place.

A shard is a plain ``.tar``. All members with the same name up to the extension are one sample::

    000000012.mp4    the media: of VIDEO_FORMATS or IMAGE_FORMATS
    000000012.txt    the caption, UTF-8 (or UTF-16 with its mark)
    000000012.json   metadata; its captions are used where the .txt is absent, blank or no text
    000000012.cls    WebDataset's number, or name, of the class: the metadata's ``label``
    000000012.m4a    sound, passed over

video2dataset leaves failed downloads in the shard, as .txt and .json without media; the .json says
why. Clips of one video have keys such as ``000000012_00003``. The ``.parquet`` and ``_stats.json``
files beside a shard are not read. What systems leave in other people's folders, such as the twins
``._NAME`` of a Mac, is no part of any sample.

Standard library only: ``vmm.shards`` writes shards with this module and must not need torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from vmm.data.text_input import clean_json, decode_text

Media = Literal["video", "image"]

# What a video is: extension -> FFmpeg's name of what reads such files. Their content decides, not
# their name; nothing else is read: no playlists, and nothing that opens further files. Of several
# videos of one sample the first in this order counts.
VIDEO_FORMATS = {
    "mp4": "mov", "webm": "matroska", "mkv": "matroska", "avi": "avi", "mov": "mov", "gif": "gif",
    "m4v": "mov", "3gp": "mov", "3g2": "mov", "f4v": "mov", "mj2": "mov", "qt": "mov",
    "divx": "avi", "flv": "flv", "wmv": "asf", "asf": "asf", "ogv": "ogg", "ogm": "ogg",
    "mpg": "mpeg", "mpeg": "mpeg", "mpe": "mpeg", "vob": "mpeg", "m1v": "mpegvideo",
    "m2v": "mpegvideo", "ts": "mpegts", "mts": "mpegts", "m2ts": "mpegts", "m2t": "mpegts",
    "mxf": "mxf", "dv": "dv", "rm": "rm", "rmvb": "rm",
}  # fmt: skip
# The same of pictures, with Pillow's names.
IMAGE_FORMATS = {
    "jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "jpe": "JPEG", "jfif": "JPEG",
    "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF",
}  # fmt: skip
# What people have besides, and must convert.
UNREAD_EXTENSIONS: dict[Media, tuple[str, ...]] = {
    "video": (
        "264", "265", "amv", "h264", "h265", "hevc", "ivf", "m3u8", "mjpeg", "mjpg", "mpd", "nut",
        "obu", "swf", "wtv", "y4m",
    ),
    "image": ("avif", "cr2", "dng", "heic", "heif", "jp2", "jxl", "nef", "psd", "svg"),
}  # fmt: skip
_COMPRESSED_SHARDS = {
    ".tar.gz": "gunzip", ".tgz": "gunzip", ".tar.bz2": "bunzip2", ".tbz2": "bunzip2",
    ".tar.xz": "unxz", ".txz": "unxz", ".tar.zst": "unzstd", ".tar.lz4": "unlz4",
}  # fmt: skip
VIDEO_EXTENSIONS = tuple(VIDEO_FORMATS)
IMAGE_EXTENSIONS = tuple(IMAGE_FORMATS)
MEDIA_EXTENSIONS: dict[Media, tuple[str, ...]] = {
    "video": VIDEO_EXTENSIONS,
    "image": IMAGE_EXTENSIONS,
}
TEXT_EXTENSION = "txt"
JSON_EXTENSION = "json"
CLASS_EXTENSION = "cls"
"""WebDataset's member for the number, or the name, of a sample's class."""
KNOWN_EXTENSIONS = frozenset(
    (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS, TEXT_EXTENSION, JSON_EXTENSION, CLASS_EXTENSION)
)
AUDIO_EXTENSIONS = frozenset(("m4a", "mp3", "wav", "flac", "ogg", "opus", "aac"))

# What systems leave beside the files of people, and the folders that they keep for themselves.
_LEFT_FILES = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"))
_LEFT_FOLDERS = frozenset(
    ("__macosx", ".appledouble", ".trashes", "@eadir", "#recycle", "$recycle.bin")
)

# Metadata fields that vmm reads. REVERSED_CAPTION describes the same clip played backwards.
CAPTION = "caption"
# Where downloaders keep the caption's column under its own name, if nobody told them which it is.
OTHER_CAPTIONS = ("captions", "text", "TEXT", "sentence")
_INVISIBLE = "\0 \u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
CAPTION_COLUMN = re.compile(r"caption_(\d{1,6})")
REVERSED_CAPTION = "reversed_caption"
# What ``vmm shards make`` writes of each annotation: ``id`` and ``metadata``.
ITEMS = "items"
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


class Question(NamedTuple):
    """A question about a sample, and what people answered."""

    id: str
    text: str
    answers: list[str]
    """At least one, repeated as often as it was given."""
    kind: str
    """What it asks for, in the data set's words; "" if it does not say."""


class Label(NamedTuple):
    """What a sample is said to show."""

    name: str | None
    """Name of the class."""
    number: float | None
    """Number of the class, or the number to predict."""


def is_leftover(name: str) -> bool:
    """Tell whether a file or folder was left by a system, not put there by a person.

    Macs write a twin ``._NAME`` of every file, with the same extension, where their attributes
    cannot be stored; network disks and Windows have folders and files of their own.

    Args:
        name: Of a file, folder or tar member, perhaps with folders.
    """
    *folders, base = name.replace("\\", "/").rstrip("/").lower().split("/")
    if base.startswith("._") or base in _LEFT_FILES:
        return True
    return not _LEFT_FOLDERS.isdisjoint((*folders, base))


def split_member(name: str) -> tuple[str, str] | None:
    """Split a member name into its sample key and its extension.

    The split is at the last dot, so ``clip_1.5s.mp4`` and ``clip_1.7s.mp4`` stay two samples;
    WebDataset splits at the first dot and merges them.

    Args:
        name: Name of a tar member, with folders.

    Returns:
        (key, extension in lower case), or None if the extension is not one a sample has, or a
        system has left the member there.
    """
    key, dot, extension = name.rpartition(".")
    extension = extension.lower()
    if not dot or not key or key.endswith("/") or extension not in KNOWN_EXTENSIONS:
        return None
    if is_leftover(name):
        return None
    return key, extension


def remedy(name: str, kind: Media = "video") -> str | None:
    """Say what to do with a file that is not read: media of a kind, or a compressed shard.

    Returns:
        A sentence; None for all other files.
    """
    for suffix, program in _COMPRESSED_SHARDS.items():
        if name.lower().endswith(suffix):
            return f"no sample can be found in {suffix}; unpack it to .tar: `{program} {name}`"
    base, _, extension = name.rpartition(".")
    if not base or extension.lower() not in UNREAD_EXTENSIONS[kind]:
        return None
    how = f", e.g. `ffmpeg -i {name} {base}.mp4`" if kind == "video" else " to PNG or JPEG"
    return f".{extension} is not read; convert it{how}"


def media_member(extensions: Container[str], media: Media) -> str | None:
    """Choose the extension of a sample's media, None if it has none of this type."""
    return next((name for name in MEDIA_EXTENSIONS[media] if name in extensions), None)


def parse_metadata(data: bytes | None) -> dict[str, Any]:
    """Read a sample's JSON; whatever is not a JSON object counts as no metadata.

    Halves of surrogate pairs, which JSON may hold, are U+FFFD in the texts that it gives.
    """
    if not data:
        return {}
    try:
        parsed = json.loads(clean_json(decode_text(data))[0])
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def metadata_of(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Read a sample's JSON; a class member becomes its ``label``, if it names none.

    Args:
        members: Extension -> content.
    """
    metadata = parse_metadata(members.get(JSON_EXTENSION))
    written = members.get(CLASS_EXTENSION)
    if written and "label" not in metadata and not text_fault(written):
        label = _stripped(decode_text(written))
        metadata["label"] = int(label) if label.isascii() and label.isdecimal() else label
    return metadata


def captions_of(text: bytes | None, metadata: dict[str, Any]) -> list[str]:
    """Find the captions of a sample.

    A text file that is not blank wins, unless the metadata has several captions and it is one of
    them; else the metadata's ``caption``, one string or a list, and ``caption_0``, ``caption_1``
    ...; where all of these are blank, the first of ``OTHER_CAPTIONS`` that is not.

    Args:
        text: Content of the ``.txt`` member; what ``text_fault`` speaks of is no caption.
        metadata: The parsed ``.json`` member.

    Returns:
        Captions without surrounding white space; empty if there is none.
    """
    several = _captions_in(metadata.get(CAPTION))
    matches = ((CAPTION_COLUMN.fullmatch(name), item) for name, item in metadata.items())
    columns = sorted(((int(m[1]), item) for m, item in matches if m), key=lambda pair: pair[0])
    if numbered := _texts(item for _, item in columns):
        several = [text for text in several if text not in numbered] + numbered
    if not several:
        others = (_captions_in(metadata.get(name)) for name in OTHER_CAPTIONS)
        several = next(filter(None, others), [])
    caption = "" if text_fault(text) else _stripped(decode_text(text or b""))
    return several if not caption or (len(several) > 1 and caption in several) else [caption]


def text_fault(*members: bytes | None) -> str:
    """Say why the content of a ``.txt`` or ``.json`` member is no text, "" if it is.

    Args:
        members: The contents; None or empty is no fault.
    """
    for content in members:
        try:
            decode_text(content or b"")
        except ValueError as error:
            return str(error)
    return ""


def no_caption(fault: str) -> str:
    """Name the reason for which a sample with media has no caption.

    Args:
        fault: From ``text_fault``.
    """
    return "bad caption" if fault else "no caption"


def questions_of(metadata: dict[str, Any]) -> list[Question]:
    """Find the open questions of a sample whose answers are known.

    Args:
        metadata: The parsed ``.json`` member: ``items``, each with an ``id`` and its ``metadata``
            of ``question``, ``answer`` (text, or a list of texts) and perhaps ``question_type``.

    Returns:
        In the order of the file; empty if there is none.
    """
    items = metadata.get(ITEMS)
    found = []
    for item in items if isinstance(items, list) else []:
        inner = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(inner, dict):
            continue
        text, answer, kind = (inner.get(n) for n in ("question", "answer", "question_type"))
        answers = _texts(answer if isinstance(answer, list) else [answer])
        if isinstance(text, str) and text.strip() and answers:
            kind = kind if isinstance(kind, str) else ""
            found.append(Question(str(item.get("id", "")), text.strip(), answers, kind))
    return found


def labels_of(
    metadata: dict[str, Any], captions: Sequence[str], field: str | None = None
) -> list[Label]:
    """Find what a sample is labelled with; several labels if it has several.

    Args:
        metadata: The parsed ``.json`` member.
        captions: Of the sample; the name of a class is the caption in shards that
            ``vmm shards make`` made of a data set of classes.
        field: Where in the metadata the label is: a text, a number, or a list of them; a dot leads
            into an object. None = where ``vmm shards make`` writes it: in each of ``items``
            the ``metadata`` with ``label`` or ``target`` (numbers), ``class`` or ``template``; of
            other shards the field ``label``.

    Returns:
        In the order of the file; empty if there is none.
    """
    items = metadata.get(ITEMS)
    if field is not None or not isinstance(items, list):
        found: Any = metadata
        for part in (field or "label").split("."):
            found = found.get(part) if isinstance(found, dict) else None
        values = found if isinstance(found, list) else [found]
        return [
            Label(v, None) if isinstance(v, str) else Label(None, v) for v in values if _says(v)
        ]
    labels = []
    for item in items:
        inner = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(inner, dict) or "question" in inner:
            continue
        numbers = (v for v in (inner.get("target"), inner.get("label")) if _says(v))
        texts = (inner.get(name) for name in ("class", "template", "label"))
        names = [text for text in texts if isinstance(text, str) and text.strip()]
        names += captions if len(items) == 1 else []
        number = next((v for v in numbers if not isinstance(v, str)), None)
        name = next((text for text in names if text != str(number)), None)
        if name is not None or number is not None:
            labels.append(Label(name, number))
    return labels


def _says(value: object) -> bool:
    """Tell a text or a number from anything else."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63  # neither NaN nor infinity, nor what no float could hold


def _captions_in(value: object) -> list[str]:
    return _texts(value if isinstance(value, list) else [value])


def _texts(values: Iterable[object]) -> list[str]:
    return [text for item in values if isinstance(item, str) and (text := _stripped(item))]


def _stripped(text: str) -> str:
    """Take white space off the ends; text of invisible characters only is blank too."""
    text = text.strip()
    return text if text.strip(_INVISIBLE) else ""


def failure_of(metadata: dict[str, Any]) -> str:
    """Say why a downloader could not get the media: its status and error, "" if it names none."""
    parts = (metadata.get("status"), metadata.get("error_message"))
    said = [part[:200] for part in parts if isinstance(part, str) and part]
    return "" if said == ["success"] else ": ".join(said)
