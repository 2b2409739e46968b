import io
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

import vmm.fonts as module
from vmm.evaluation.classification.page import confusion_map
from vmm.evaluation.common.pictures import png
from vmm.evaluation.retrieval.pictures import Query, Strip, retrieval_picture
from vmm.fonts import characters, choose_fonts, drawable
from vmm.shards.contact_sheet import caption_lines, contact_sheet, runs
from vmm.shards.shard_statistics import Thumbnail

ODD = [
    "ä — œuvre “Привет” ✓", "一只猫 on a sofa", "emoji \U0001f600 \U0001f469\u200d\U0001f469\ufe0f",
    "$5 and \\frac{$6", "_private", "half \ud83d", "\x1b[31mred\u2028", "שלום", "ไทย e\u0301",
    "", " ", "\ufeffmark \U000e0100", "\ue000 private", "100 % #1 {x}^2 &", "x" * 3000,
]  # fmt: skip


def write_font(path, letters):
    """A font of squares."""
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    pen = TTGlyphPen(None)
    for place in ((0, 0), (0, 900), (900, 900), (900, 0)):
        (pen.lineTo if place[0] or place[1] else pen.moveTo)(place)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):x}" for c in letters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture(params=["no other font", "a font with some Chinese"])
def installed(request, tmp_path, monkeypatch):
    """What the machine has beside matplotlib's own font."""
    found = []
    if request.param != "no other font":
        (tmp_path / "broken.ttf").write_bytes(b"no font")
        found = [str(tmp_path / "broken.ttf"), write_font(tmp_path / "Squares.ttf", "一只猫")]
    monkeypatch.setattr(module, "_installed", lambda: found)
    return found


def test_letters_of_europe_are_always_there(installed):
    text = "äöüß — œuvre, “naïve”; Привет, Ελλάδα ✓ ½"
    assert drawable(text) == text and len(choose_fonts([text])) == 1


def test_other_letters_come_from_installed_fonts_or_are_escaped(installed):
    assert drawable("猫 狗") == (r"猫 \u72d7" if installed else r"\u732b \u72d7")
    assert choose_fonts(["a", "猫"])[1:] == installed[1:]
    assert drawable("\U0001f9ff\u200b\U000e0100\ufffe") == r"\U0001f9ff" + "\u200b" + r"\ufffe"


def test_a_font_of_boxes_is_none(tmp_path, monkeypatch):
    found = [write_font(tmp_path / "LastResort.ttf", "猫"), str(tmp_path / "gone.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: found)
    module._installed.cache_clear()
    assert drawable("猫") == r"\u732b" and characters(found[1]) == frozenset()
    module._installed.cache_clear()


@pytest.mark.parametrize("text", ODD)
def test_the_contact_sheet_draws_no_box(installed, text, monkeypatch):
    lines = caption_lines(text)
    assert len(lines) <= 3
    drawn = []
    draw = ImageDraw.ImageDraw.text

    def text_drawn(self, at, part, fill, font, **options):
        drawn.append(part)
        assert {ord(letter) for letter in part} <= characters(font.path)
        assert at[0] + font.getlength(part) <= 12 + 210 + 1
        draw(self, at, part, fill, font, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text_drawn)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG")
    sheet = contact_sheet([Thumbnail("key", text, buffer.getvalue())])
    assert "".join(drawn) == "".join(lines)
    assert bool(drawn) == bool(text.strip()) == (np.asarray(sheet)[154:] != 255).any()


def test_a_line_of_several_fonts_is_drawn_in_parts(installed):
    parts = [(text, font.getname()[0]) for text, font in runs("a 猫b")]
    expected = [("a ", "DejaVu Sans"), ("猫", "Squares"), ("b", "DejaVu Sans")]
    assert parts == (expected if installed else [("a 猫b", "DejaVu Sans")])


def figures(text):
    strip = Strip(np.zeros((2, 8, 8, 3), np.uint8), text, True)
    yield retrieval_picture([Query(text, text, [strip])], text)
    yield confusion_map(SimpleNamespace(classes=[text, "b"], predictions=[["k", 0, 1]]))


@pytest.mark.parametrize("text", ODD)
def test_figures_draw_no_box_and_no_formula(installed, text):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"Glyph|.*font")
        for figure in figures(text[:200]):
            assert Image.open(io.BytesIO(png(figure))).size > (0, 0)
