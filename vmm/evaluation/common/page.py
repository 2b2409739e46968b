"""Pages of results: one file that loads nothing from anywhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

from vmm.text_output import write_text

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, own: Path = _TEMPLATES, **content: Any) -> str:
    """Fill in a template.

    Args:
        template: Its name.
        own: Folder of it; what it builds on may be in this package's.
        content: What it names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([own, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(**content)


def data_uri(kind: str, data: bytes) -> str:
    """Write a file of a MIME type ``kind`` as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def write_accuracy_page(path: Path, **content: Any) -> None:
    """Write a page of accuracies.

    Args:
        path: The HTML file.
        content: ``title``, ``summary``, ``table`` (rows of text, header first; the second column
            is drawn as a bar), ``note``, ``tables`` (title -> rows), ``findings``, ``pictures``
            (caption -> data URI) and ``card`` (pairs of a name and a value).
    """
    write_text(path, render("accuracy.html.j2", **content))
