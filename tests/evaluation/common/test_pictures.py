import io

import pytest
from matplotlib.figure import Figure
from PIL import Image

from vmm.evaluation.common.pictures import png, shortened


def test_a_long_text_without_spaces_is_cut_between_letters():
    assert shortened("ä" * 50, 5) == "ääää…" and shortened(" a\n b ", 5) == "a b"


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1), dpi=100)
    axes = figure.subplots()
    axes.set(title="costs $5 and $6", yscale="log", ylim=(1, 1e9))
    return figure


def test_a_figure_is_a_png_that_says_nothing_of_its_machine(figure):
    picture = Image.open(io.BytesIO(png(figure)))
    assert picture.size == (200, 100) and "Software" not in picture.info


def test_only_the_numbers_of_axes_are_formulas(figure):
    png(figure)
    (axes,) = figure.axes
    assert not axes.title.get_parse_math()
    powers = [label for label in axes.get_yticklabels() if "mathdefault" in label.get_text()]
    assert powers and all(label.get_parse_math() for label in powers)
