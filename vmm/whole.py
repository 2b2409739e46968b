"""Files and folders that are there whole or not at all: written beside their place, then renamed.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vmm.portable import to_disk

PARTIAL = ".partial"
"""How the names of unfinished files end, which only a killed process leaves."""


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a file to write, which becomes ``path`` if the block ends without an error.

    Args:
        path: File to create or to replace, in a folder that is there.
        durable: Whether it is on disk when the block has ended, so that a power failure leaves
            the old file or the new one; what can be made again need not wait for that.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}-{os.getpid()}{PARTIAL}")
    try:
        partial.touch()  # else what cannot be written to would be said in a library's words
        yield partial
        if durable:
            to_disk(partial)
        partial.replace(path)
        if durable:
            to_disk(path.parent)
    except BaseException as error:  # Ctrl-C, too, leaves nothing
        with suppress(OSError):
            partial.unlink()
        _name_no_hidden(error, partial, path)
        raise


@contextmanager
def whole_folder(out: Path, replace: bool = False) -> Iterator[Path]:
    """Give a folder to write to, which becomes ``out`` if the block ends without an error.

    Args:
        out: Folder to create; it may exist if it is empty.
        replace: It may also hold something, which is removed when the block has ended.

    Raises:
        ValueError: If ``out`` is a file or holds something.
    """
    if out.exists() and not replace and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; name another")
    unfinished = out.absolute().parent / f".{out.name}.partial-{os.getpid()}"
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        _name_no_hidden(error, unfinished, out)
        raise
    try:
        yield unfinished
        if out.exists():
            shutil.rmtree(out)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _name_no_hidden(error: BaseException, hidden: Path, path: Path) -> None:
    """Let an error name the folder that cannot be written to, and no hidden file of ours in it."""
    if isinstance(error, OSError) and str(error.filename) == str(hidden):
        too_long = error.errno == errno.ENAMETOOLONG
        error.filename = str(path if too_long else path.absolute().parent)
