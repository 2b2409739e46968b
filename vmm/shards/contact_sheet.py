"""Pictures with their captions side by side, in one picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont, ImageOps

from vmm.fonts import characters, choose_fonts, drawable
from vmm.shards.shard_statistics import Thumbnail

_COLUMNS = 6
_CELL, _PICTURE, _LINE, _GAP = 210, 140, 17, 12  # pixels
_LINES, _SIZE, _MOST = 3, 11, 300
_MORE = "…"


def contact_sheet(thumbnails: Sequence[Thumbnail]) -> Image.Image | None:
    """Put pictures with their captions side by side; None if there is no picture."""
    if not thumbnails:
        return None
    columns = min(_COLUMNS, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    height = _PICTURE + _LINES * _LINE + _GAP
    sheet = Image.new(
        "RGB", (columns * (_CELL + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for number, thumbnail in enumerate(thumbnails):
        x = _GAP + number % columns * (_CELL + _GAP)
        y = _GAP + number // columns * (height + _GAP)
        picture = Image.open(io.BytesIO(thumbnail.jpeg))
        sheet.paste(ImageOps.pad(picture, (_CELL, _PICTURE), color=(235, 235, 235)), (x, y))
        for line in caption_lines(thumbnail.caption):
            y += _LINE
            at = float(x)
            for text, font in runs(line):
                draw.text((at, y + _PICTURE), text, "black", font, anchor="ls")
                at += font.getlength(text)
    return sheet


def caption_lines(caption: str) -> list[str]:
    """Cut a caption into few lines that are as wide as a picture, and can be drawn."""
    lines = [""]
    for word in drawable(" ".join(caption[:_MOST].split())).split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if _width(longer) <= _CELL:
            lines[-1] = longer
            continue
        lines += [""] * bool(lines[-1])
        for letter in word:  # Chinese has no spaces
            if _width(lines[-1] + letter) > _CELL:
                lines.append("")
            lines[-1] += letter
    if len(lines) > _LINES or len(caption) > _MOST:
        lines = lines[:_LINES]
        while _width(lines[-1] + _MORE) > _CELL:
            lines[-1] = lines[-1][:-1]
        lines[-1] += _MORE
    return lines


def runs(line: str) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """Split a line into parts of one font each, in their order."""
    paths = choose_fonts([line])
    places = [next((p for p in paths if ord(c) in characters(p)), paths[0]) for c in line]
    for path, part in groupby(zip(places, line, strict=True), key=lambda pair: pair[0]):
        yield "".join(letter for _, letter in part), _font(path)


def _width(line: str) -> float:
    return sum(font.getlength(text) for text, font in runs(line))


@lru_cache
def _font(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _SIZE)
