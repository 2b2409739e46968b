"""Kinds of files by the end of their names; what writes one is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What is known of a kind of file before anything of it is loaded."""

    about: str
    where: str
    """Module and function."""
    extra: str = ""
    """Of vmm, which brings the library that the module needs."""

    def load(self, what: str) -> Callable[..., Any]:
        """Return the function.

        Args:
            what: What is asked for, for the error.

        Raises:
            ValueError: If the library is not installed.
        """
        module, _, function = self.where.partition(":")
        try:
            found: Callable[..., Any] = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            if not self.extra or str(error.name).startswith("vmm"):
                raise
            raise ValueError(
                f"{what} needs the package {error.name!r}; install the extra: "
                f'pip install "vmm-video[{self.extra}]"'
            ) from error
        return found


def kind_of(kinds: Mapping[str, Kind], out: str, option: str) -> Kind:
    """Tell a kind by a name.

    Args:
        kinds: By the end of the name, with its dot; "/" is a folder, whose name ends with it, or
            has no dot.
        out: The name.
        option: What gave it, for the error.

    Raises:
        ValueError: If no kind is called so.
    """
    suffix = Path(out).suffix.lower()
    if "/" in kinds and (out.endswith("/") or not suffix):
        return kinds["/"]
    if suffix not in kinds:
        known = ", ".join("a folder: NAME/" if end == "/" else end for end in kinds)
        raise ValueError(f"{option} {out} is of no known kind; known are {known}")
    return kinds[suffix]
