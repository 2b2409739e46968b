"""What the evaluation commands share on their way in and out."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from vmm import __version__


def portable_command(module: str, arguments: Sequence[str]) -> str:
    """Write a command without paths of this machine: relative to here, or the last part only."""
    return shlex.join(["python", "-m", module, *map(_portable, arguments)])


def _portable(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if path.is_absolute():
        here = Path.cwd()
        value = str(path.relative_to(here)) if path.is_relative_to(here) else path.name
    return option + equals + value


def versions() -> dict[str, str]:
    """Name the versions that a number may depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "av", "numpy")}
    return {"python": platform.python_version(), **packages, "vmm": __version__}


def write_accuracy_page(path: Path, **content: Any) -> None:
    """Write a page of accuracies: one file that loads nothing from anywhere.

    Args:
        path: The HTML file.
        content: ``title``, ``summary``, ``table`` (rows of text, header first; the second column
            is drawn as a bar), ``note``, ``tables`` (title -> rows), ``findings``, ``pictures``
            (caption -> data URI) and ``card`` (pairs of a name and a value).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "report" / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("accuracy.html.j2").render(**content)
    path.write_text(page, encoding="utf-8")
