"""Samples to tar files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

Member = tuple[str, bytes | Path]
"""Name in the tar, and the content or the file that holds it."""


def write_shard(path: Path, samples: Iterable[list[Member]]) -> str:
    """Write samples as a tar whose bytes depend on nothing but them; returns its SHA-256."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (member for sample in samples for member in sample):
            header = tarfile.TarInfo(name)  # owner, time and mode are fixed by default
            if isinstance(content, Path):
                header.size = content.stat().st_size
                with content.open("rb") as file:
                    tar.addfile(header, file)
            else:
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
