"""Figures as PNG, drawn without pyplot: nothing is global and no display is needed."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.text import Text

from vmm.fonts import choose_fonts, drawable

WIDE, DPI = 4.4, 160
"""Inches and dots of an inch of a figure whose letters can be read on a telephone, too."""


def shortened(text: str, letters: int) -> str:
    """Return the beginning of a text, in one line that can be drawn."""
    words = " ".join(text.split())
    return drawable(words if len(words) <= letters else f"{words[: letters - 1]}…")


def png(figure: Figure) -> bytes:
    """Render a figure as PNG, with fonts that have what is written, and none of it as a formula.

    Texts of others must have gone through ``drawable``.
    """
    numbers = {
        text
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for text in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True), axis.offsetText)
    }  # these may be formulas: powers of ten
    texts = figure.findobj(Text)
    families = []
    for path in choose_fonts(text.get_text() for text in texts):
        fontManager.addfont(path)
        families.append(FontProperties(fname=path).get_name())
    for text in texts:
        text.set_fontfamily(families)
        if text not in numbers:
            text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
