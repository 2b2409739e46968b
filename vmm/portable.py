"""What Windows does otherwise than Linux and macOS. Standard library only."""

from __future__ import annotations

import os
import signal
import threading
from importlib import import_module
from pathlib import Path
from typing import IO, Any

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""By which people and schedulers stop a run."""

_seeking = threading.Lock()


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read a part of a file, whatever other threads read of it.

    Args:
        descriptor: Of the file.
        size: Bytes; fewer are returned where the file ends.
        offset: Bytes before them.

    Raises:
        OSError: If the file cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def lock(file: IO[bytes]) -> None:
    """Lock an open file until it is closed.

    Args:
        file: Open for writing, or else a network drive (NFS) refuses.

    Raises:
        BlockingIOError: If another process has locked it.
        OSError: If the drive has no locks.
    """
    try:
        locks: Any = import_module("fcntl")
    except ImportError:
        locks = import_module("msvcrt")
        try:
            locks.locking(file.fileno(), locks.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
    else:
        locks.flock(file, locks.LOCK_EX | locks.LOCK_NB)


def to_disk(path: Path) -> None:
    """Wait until a file or a folder's list of files is on disk, so that no power failure undoes it.

    Windows knows no such thing for folders.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
