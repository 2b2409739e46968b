"""How the page ends: nothing is left behind, whatever ends it and when. Nothing heavy is loaded."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from vmm.ctrl_c import LEFT_BEHIND


class _Terminated(Exception):  # it is no fault
    """SIGTERM came."""


@contextmanager
def own_folder() -> Iterator[Path]:
    """Give a folder for films and uploads, which goes away whatever a thread still writes into it.

    Gradio takes it for its own, if it is imported later.
    """
    folder = Path(tempfile.mkdtemp(prefix="vmm-app-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    LEFT_BEHIND.append(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        LEFT_BEHIND.remove(folder)


@contextmanager
def until_sigterm() -> Iterator[None]:
    """End the block without an error when SIGTERM comes."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        with suppress(_Terminated):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
