import io

import numpy as np
import pytest
from PIL import Image

from vmm.shards.contact_sheet import caption_lines, contact_sheet, runs
from vmm.shards.shard_statistics import Thumbnail


def thumbnail(colour, size, caption=""):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return Thumbnail("key", caption, buffer.getvalue())


def test_nothing_to_show_is_no_sheet():
    assert contact_sheet([]) is None


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (6, 6, 1), (8, 6, 2)])
def test_pictures_stand_in_rows_of_six(count, columns, rows):
    sheet = contact_sheet([thumbnail((20 * i, 0, 200), (30, 20)) for i in range(count)])
    assert sheet.size == (columns * 222 + 12, rows * 215 + 12)
    pixels = np.asarray(sheet).astype(int)
    for i in range(count):  # the middle of each cell
        found = pixels[12 + i // 6 * 215 + 70, 12 + i % 6 * 222 + 105]
        assert np.abs(found - (20 * i, 0, 200)).max() < 6


def test_a_picture_keeps_its_shape_in_a_grey_cell():
    pixels = np.asarray(contact_sheet([thumbnail("red", (20, 40))]))
    cell = pixels[12:152, 12:222].astype(int)
    red = np.abs(cell - (254, 0, 0)).max(-1) < 12
    assert abs(red.any(0).sum() - 70) <= 2 and red.any(1).all()
    assert (cell[:, 0] == 235).all() and (cell[:, -1] == 235).all()


def test_a_short_caption_is_whole_and_a_long_one_ends_in_three_dots():
    assert caption_lines("  a dog\n runs ") == ["a dog runs"]
    words = ("a dog runs over a green field and " * 8).split()
    long = caption_lines(" ".join(words))
    assert len(long) == 3 and long[-1].endswith("…")
    shown = " ".join(long[:2]).split()
    assert shown == words[: len(shown)] and len(shown) > 6
    for line in long:
        assert sum(font.getlength(text) for text, font in runs(line)) <= 210


def test_a_word_that_is_wider_than_a_picture_is_cut_between_letters():
    lines = caption_lines("w" * 60)
    assert len(lines) > 1 and "".join(lines).rstrip("…") == "w" * len("".join(lines).rstrip("…"))


def test_the_caption_is_drawn_below_its_picture():
    plain, told = (
        np.asarray(contact_sheet([thumbnail("white", (210, 140), caption)]))
        for caption in ("", "a dog")
    )
    assert np.array_equal(plain[:152], told[:152])
    assert (plain[152:] == 255).all() and (told[152:180] < 128).any()
