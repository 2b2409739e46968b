"""Whether the end of a video file is missing, as after a download that broke off.

FFmpeg shows what is there of such a file, and says nothing: half a film looks like a short one.
But MP4, Matroska and AVI say in front how long they are, and how large their pictures.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vmm.data.containers import DecodeError

_MOST_BOXES, _MOST_MOOV = 100_000, 1 << 28
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_HOLDERS = (b"trak", b"mdia", b"minf", b"stbl")


def refuse_part(video: bytes | Path) -> None:
    """Refuse a file of which only the beginning is there.

    Args:
        video: The content, or the file.

    Raises:
        DecodeError: If the file says that it is longer.
        OSError: If it cannot be read.
    """
    if is_cut_off(video):
        raise DecodeError("cut off", "the file says that it is longer than it is; get it again")


def is_cut_off(video: bytes | Path) -> bool:
    """Tell whether an MP4, Matroska or AVI file says that it is longer than it is.

    Args:
        video: The content, or the file.

    Returns:
        False too for other files, and for those that do not say it.

    Raises:
        OSError: If it cannot be read.
    """
    with io.BytesIO(video) if isinstance(video, bytes) else video.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] == _EBML:
            return _segment_end(file) > size
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return int.from_bytes(head[4:8], "little") > size  # without its first 8, as some count
        return head[4:8] == b"ftyp" and _mp4_is_cut_off(file, size)


def _mp4_is_cut_off(file: BinaryIO, size: int) -> bool:
    """Tell whether the last box ends after the file, and would hold what pictures lack."""
    # What else comes last may be anything.
    boxes = [box for box in _boxes(file, 0, size) if box[0] in (b"moov", b"moof", b"mdat")]
    if not boxes or boxes[-1][2] <= size:
        return False
    there = needed = 0
    for kind, start, stop in boxes:
        if kind == b"mdat":
            there += min(stop, size) - start
        if kind == b"moov" and stop <= size and stop - start <= _MOST_MOOV:
            file.seek(start)
            needed += _bytes_of_pictures(file.read(stop - start))
    return not 0 < needed <= there  # some recorders reserve more than they need


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes that begin in a part of a file: ISO/IEC 14496-12, section 4.2.

    Yields:
        Kind, where the content begins, and where it should end.
    """
    for _ in range(_MOST_BOXES):
        file.seek(start)
        head = file.read(16)
        length, header = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16], "big"), 16
        if start >= end or length < header:  # 0 = up to the end
            return
        yield head[4:8], start + header, start + length
        start += length


def _bytes_of_pictures(moov: bytes) -> int:
    """Return how many bytes all pictures and sounds have; 0 = it does not say."""
    total, seen, parts, file = 0, 0, [(0, len(moov))], io.BytesIO(moov)
    while parts:
        part = parts.pop()
        for kind, start, stop in _boxes(file, *part):
            seen += 1
            if seen > _MOST_BOXES:
                return 0
            if kind in _HOLDERS:  # none goes beyond its own holder, or all would be read many times
                parts.append((start, min(stop, part[1])))
            elif kind == b"stsz":
                each, count = np.frombuffer(moov[start + 4 : start + 12].ljust(8, b"\0"), ">u4")
                sizes = moov[start + 12 : start + 12 + 4 * int(count)]
                whole = np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4")
                total += int(each) * int(count) or int(whole.sum(dtype=np.int64))
    return total


def _segment_end(file: BinaryIO) -> int:
    """Return where the segment of a Matroska file ends, 0 if it does not say: RFC 8794, 9559."""
    file.seek(4)
    length = _number(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: BinaryIO) -> int | None:
    """Read a number that says its own length by its leading zeros; None = not known."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    bits = 7 * (more + 1)
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if len(rest) < more or value == (1 << bits) - 1 else value
