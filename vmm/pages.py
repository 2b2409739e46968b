"""Pages that are one file and load nothing from anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

_OPTION = re.compile(r"(?<!\S)--\w[\w.-]*")
_QUOTED = re.compile(r"`([^`]+)`")


def render(
    template: str,
    *folders: Path,
    filters: Mapping[str, Callable[..., str]] | None = None,
    **content: Any,
) -> str:
    """Fill in a template.

    Args:
        template: Its name.
        folders: Where it is, and what it builds on.
        filters: What it calls, besides Jinja's own.
        content: What it names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update({"command": command, "sentence": sentence, **(filters or {})})
    return environment.get_template(template).render(**content)


def command(text: str) -> Markup:
    """Write a command so that lines end between its words; style sheets have ``.option``.

    A browser would end a line within the ``--`` of an option.
    """
    return Markup(_OPTION.sub(r'<span class="option">\g<0></span>', str(escape(text))))


def sentence(text: str) -> Markup:
    """Write what is said in the terminal, where commands stand between backticks."""
    return Markup(_QUOTED.sub(r"<code>\1</code>", str(command(text))))


def data_uri(kind: str, data: bytes) -> str:
    """Write a file of a MIME type ``kind`` as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
