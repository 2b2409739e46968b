"""Pages of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmm import pages
from vmm.text_output import write_text

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, own: Path = _TEMPLATES, **content: Any) -> str:
    """Fill in a template.

    Args:
        template: Its name.
        own: Folder of it; what it builds on may be in this package's.
        content: What it names.
    """
    return pages.render(template, own, _TEMPLATES, **content)


def write_accuracy_page(path: Path, **content: Any) -> None:
    """Write a page of accuracies.

    Args:
        path: The HTML file.
        content: ``title``, ``summary``, ``table`` (rows of text, header first; the second column
            is drawn as a bar), ``note``, ``tables`` (title -> rows), ``findings``, ``pictures``
            (caption -> data URI), perhaps ``about_pictures``, and ``card`` (pairs of a name and a
            value).
    """
    write_text(path, render("accuracy.html.j2", **content))
