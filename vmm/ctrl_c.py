"""Ctrl-C before a command has begun, while it loads, and after it has ended: one sentence.

An exception would show a traceback of whatever is being imported then; the import system swallows
some, and C++ of libraries makes a crash of others. Nothing is to be kept at such times, so the
process ends there and then, with status 130.

Little of the standard library only: this is the first thing that ``vmm`` loads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys

TYPE_CHECKING = False  # as in vmm/__init__.py
if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType
    from typing import NoReturn

STOPPED = 130
"""Exit status."""
LEFT_BEHIND: list[Path] = []
"""Folders that would stay where no ``finally`` is reached; they are removed."""


def end_at_once() -> None:
    """Let Ctrl-C end the process from here on; not where it means something else, or nothing."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raises() -> bool:
    """Tell whether Ctrl-C raises ``KeyboardInterrupt``, and nothing else has been made of it."""
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or isinstance(
        getattr(handler, "__self__", None), Raised
    )


class Raised:
    """Within it, Ctrl-C raises ``KeyboardInterrupt`` but in an import, if it would end the process.

    Args:
        name: Begins the sentence.
        kept: Ends it.
    """

    def __init__(self, name: str, kept: str) -> None:
        self._said = f"{name}: stopped by Ctrl-C{kept and '; '}{kept}"

    def __enter__(self) -> None:
        self._was = signal.getsignal(signal.SIGINT)
        if self._was is _end:
            signal.signal(signal.SIGINT, self._hear)

    def __exit__(self, *error: object) -> None:
        if self._was is _end:
            signal.signal(signal.SIGINT, _end)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if _imports(frame) and not _has_children():
            _end(number, frame, self._said)
        raise KeyboardInterrupt


def _end(number: int, frame: object, said: str = "vmm: stopped by Ctrl-C") -> None:
    os.write(2, f"\n{said}\n".encode())
    for folder in LEFT_BEHIND:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    os._exit(STOPPED)


def leave(status: int) -> NoReturn:
    """End the process after a command that was stopped, as Python does it, and not as C++ does.

    Threads of libraries may be at work still, e.g. those of a model that was loading: what C++
    clears up in the end makes a crash of that.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # waits for threads that have something to finish
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _has_children() -> bool:
    """Tell whether there are processes that would be left alone."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is not None and bool(multiprocessing.active_children())
