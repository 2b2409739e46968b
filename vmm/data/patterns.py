"""Shard patterns to files: variables, braces and wildcards."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Sequence

from braceexpand import braceexpand

_log = logging.getLogger(__name__)

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Expand shard patterns to the files that are there.

    Args:
        patterns: Paths with ``$VARIABLES``, braces as in ``{000000..000007}``, and ``*``.

    Returns:
        Paths, in the order of the patterns, each once.

    Raises:
        ValueError: If a variable is not set or a pattern matches no file.
    """
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        paths = _expand_one(pattern)
        repeated = [path for path in paths if path in found]
        if repeated:
            _log.warning("%s names %d shards a second time; ignored", pattern, len(repeated))
        found.update(dict.fromkeys(paths))
    return list(found)


def _expand_one(pattern: str) -> list[str]:
    for match in _VARIABLE.finditer(pattern):
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(
                f"the shard pattern {pattern!r} needs the environment variable {name}, which is "
                f"not set; set it, e.g. `export {name}=/path/to/data`"
            )
    expanded = os.path.expanduser(os.path.expandvars(pattern))
    try:
        candidates = list(braceexpand(expanded))
    except ValueError as error:
        raise ValueError(f"the shard pattern {pattern!r} has unbalanced braces") from error
    paths: list[str] = []
    missing: list[str] = []
    for candidate in candidates:
        hits = sorted(glob.glob(candidate)) if glob.has_magic(candidate) else [candidate]
        hits = [hit for hit in hits if os.path.isfile(hit)]
        paths += hits
        if not hits:
            missing.append(candidate)
    if not paths:
        raise ValueError(
            f"the shard pattern {pattern!r} matches no file; shards are local .tar files, "
            "relative paths start in the working directory"
        )
    if missing:
        _log.warning(
            "%s: %d of %d shards are missing, the first is %s",
            pattern,
            len(missing),
            len(candidates),
            missing[0],
        )
    return paths


def short_names(paths: list[str]) -> list[str]:
    """Shorten paths to what tells them apart: relative to their common folder, without .tar."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    names = [os.path.relpath(path, common) for path in absolute]
    return [name.removesuffix(".tar") for name in names]
