"""Pages that are one file and load nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


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
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**content)


def data_uri(kind: str, data: bytes) -> str:
    """Write a file of a MIME type ``kind`` as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
