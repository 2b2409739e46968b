"""Shard patterns to files: variables, braces, wildcards and folders."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Sequence

from braceexpand import braceexpand

from vmm.data.schema import remedy
from vmm.text_output import number_of

_log = logging.getLogger(__name__)

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_REMOTE = re.compile(r"pipe:|[A-Za-z][A-Za-z0-9+.-]*://")
SHARD_SUFFIX = ".tar"
_NAMED = 3
"""Shards of which a message gives the names."""


def as_list(patterns: str | Sequence[str]) -> list[str]:
    """Return one pattern or several as a list."""
    return [patterns] if isinstance(patterns, str) else list(patterns)


def is_remote(pattern: str) -> bool:
    """Tell whether a pattern is a ``pipe:`` command or a URL, which has no index."""
    return _REMOTE.match(os.path.expandvars(pattern)) is not None


def expand_shards(patterns: str | Sequence[str], *, quiet: bool = False) -> list[str]:
    """Expand shard patterns to the files that are there.

    Args:
        patterns: Paths with ``$VARIABLES``, braces as in ``{000000..000007}``, and ``*``, which
            finds ``.tar`` files only; a folder stands for the ``.tar`` files in it.
        quiet: Say nothing of what is named more than once: it is said elsewhere, or patterns of
            several settings are taken together.

    Returns:
        Paths, in the order of the patterns, each once.

    Raises:
        ValueError: If a variable is not set or a pattern matches no file.
    """
    found: dict[str, None] = {}
    again: dict[str, None] = {}
    for pattern in as_list(patterns):
        if is_remote(pattern):
            raise ValueError(
                f"{pattern!r} is no local shard; URLs and `pipe:` commands are for training only"
            )
        paths, _ = _expand_one(pattern)
        if packed := next(filter(None, map(remedy, paths or _packed(pattern))), None):
            raise ValueError(f"the shard pattern {pattern!r}: {packed}")
        if not paths:
            where = "relative paths start in the working directory"
            if os.path.isdir(pattern):
                where = "none is in this folder; `vmm shards make` makes some"
            raise ValueError(
                f"the shard pattern {pattern!r} matches no file; shards are local .tar files, "
                f"{where}"
            )
        for path in paths:
            (again if path in found else found)[path] = None
    if again and not quiet:
        _log.warning("named more than once and read once: %s", some_shards(list(again)))
    return list(found)


def some_shards(paths: Sequence[str]) -> str:
    """Name some shards, and say how many more there are."""
    more = len(paths) - _NAMED
    rest = f" and {number_of(more, 'other')}" if more > 0 else ""
    return ", ".join(paths[:_NAMED]) + rest


def missing_shards(patterns: str | Sequence[str]) -> list[str]:
    """Return the paths that the patterns spell out and that are not there.

    Raises:
        ValueError: If a variable is not set or braces are unbalanced.
    """
    return [path for pattern in as_list(patterns) for path in _expand_one(pattern)[1]]


def expand_urls(patterns: str | Sequence[str]) -> list[str]:
    """Expand the variables and braces of ``pipe:`` commands and URLs; local paths as ever.

    Raises:
        ValueError: If a variable is not set, braces are unbalanced, or a local pattern matches no
            file.
    """
    return [
        path
        for pattern in as_list(patterns)
        for path in (_candidates(pattern) if is_remote(pattern) else expand_shards(pattern))
    ]


def _candidates(pattern: str) -> list[str]:
    """Fill in variables and braces; a path that exists as it is written is itself."""
    if os.path.exists(pattern):
        return [pattern]
    for match in _VARIABLE.finditer(pattern):
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(
                f"the shard pattern {pattern!r} needs the environment variable {name}, which is "
                f"not set; set it, e.g. `export {name}=/path/to/data`"
            )
    try:
        return list(braceexpand(os.path.expanduser(os.path.expandvars(pattern))))
    except ValueError as error:
        raise ValueError(f"the shard pattern {pattern!r} has unbalanced braces") from error


def _expand_one(pattern: str) -> tuple[list[str], list[str]]:
    """Return (files, spelled-out paths that are missing) of a pattern."""
    paths: list[str] = []
    missing: list[str] = []
    for candidate in _candidates(pattern):
        if os.path.isfile(candidate):
            hits = [candidate]
        else:
            hits = [hit for hit in _found(candidate) if hit.endswith(SHARD_SUFFIX)]
        files = [hit for hit in hits if os.path.isfile(hit)]
        paths += files
        if not files:
            missing.append(candidate)
    return paths, missing


def _found(candidate: str) -> list[str]:
    """Return what is in a folder, or what a wildcard finds; none for a name without one."""
    folder = candidate
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    # What exists is meant as it is written, brackets included.
    pattern = glob.escape(folder) + candidate[len(folder) :]
    if folder == candidate:
        pattern = os.path.join(pattern, "*")
    return sorted(glob.glob(pattern)) if glob.has_magic(candidate[len(folder) :] or "*") else []


def _packed(pattern: str) -> list[str]:
    """Return compressed shards where a pattern looks for plain ones."""
    candidates = _candidates(pattern)
    found = [hit for candidate in candidates for hit in _found(candidate)]
    spelt = [candidate + ending for candidate in candidates for ending in (".gz", ".bz2", ".xz")]
    return [hit for hit in (*found, *spelt) if os.path.isfile(hit)]


def common_folder(paths: Iterable[str]) -> str:
    """Return the deepest folder that holds all files."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def short_names(paths: Iterable[str], folder: str) -> list[str]:
    """Name shards by their paths from a folder, without ``.tar``."""
    names = [os.path.relpath(os.path.abspath(path), folder) for path in paths]
    return [name.removesuffix(SHARD_SUFFIX) for name in names]
