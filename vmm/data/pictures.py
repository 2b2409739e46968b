"""Pictures from anywhere: one exact path to upright RGB of 8 bits (Pillow).

Of an animation the first picture counts. What is transparent shows white paper, as browsers and
img2dataset have it. Grey of 16 bits keeps its range; numbers of no agreed range are refused.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vmm.data.containers import MAX_PIXELS, DecodeError, check_size
from vmm.data.schema import IMAGE_FORMATS

_FORMATS = (*sorted(set(IMAGE_FORMATS.values())), "GIF")
_REFUSED = f"none of the formats {', '.join(_FORMATS)}; convert it to PNG or JPEG"
# Seen from Pillow on 75,000 damaged files. The first is of `Image.open`, which has arguments, the
# others of reading the pixels, which takes none: there even a TypeError is one of the bytes.
_NOT_OPENED = (OSError, ValueError, OverflowError)
_NOT_READ = (
    *_NOT_OPENED,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    SyntaxError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a picture as a clip of one frame.

    Args:
        data: The file, of ``IMAGE_FORMATS`` or a GIF; its name does not matter.
        max_pixels: Refuse larger pictures.

    Returns:
        (1, H, W, 3) uint8 RGB, upright (the EXIF orientation is applied).

    Raises:
        DecodeError: If the picture cannot be decoded or exceeds the limit.
    """
    if not data:
        raise DecodeError("empty", "0 bytes")
    return np.array(read_picture(io.BytesIO(data), max_pixels)[1])[None]


def read_picture(file: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> tuple[str, Image.Image]:
    """Read a picture; see ``decode_image``.

    Returns:
        Its format in Pillow's words, and the picture: upright RGB.

    Raises:
        DecodeError: As ``decode_image``.
    """
    try:
        opened = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise DecodeError("unreadable", _REFUSED) from error
    except Image.DecompressionBombError as error:
        raise DecodeError("too large", str(error)) from error
    except _NOT_OPENED as error:
        raise _unreadable(error) from error
    with opened:
        check_size(opened.width, opened.height, max_pixels)
        try:
            picture = ImageOps.exif_transpose(opened)  # this is also where the pixels are read
        except _NOT_READ as error:
            raise _unreadable(error) from error
        return str(opened.format), _to_rgb(picture)


def _unreadable(error: BaseException) -> DecodeError:
    raw = f"{type(error).__name__}: {error}"
    return DecodeError("unreadable", f"damaged, cut off or no picture; can it be shown? ({raw})")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise DecodeError("unreadable", "numbers with fractions; convert it to 8 or 16 bits")
    if picture.mode.startswith("I"):
        return _from_wide_grey(np.asarray(picture).astype(np.int64))
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _from_wide_grey(values: np.ndarray) -> Image.Image:
    """Bring grey values of 16 bits to 8; Pillow would cut off all that is above 255."""
    if values.min() < 0 or values.max() > 0xFFFF:
        raise DecodeError("unreadable", "grey values beyond 16 bits; convert it to 8 or 16 bits")
    return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8)).convert("RGB")
