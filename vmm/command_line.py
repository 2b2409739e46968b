"""How every command reads its options, and how it ends.

A user's mistake costs one sentence and status 2; what could be done only in part one sentence and
status 1; Ctrl-C one sentence and status 130; a defect of ours keeps its traceback and Python's
status 1. Nothing heavy is loaded here.
"""

from __future__ import annotations

import argparse
import dis
import errno
import math
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import NoReturn

from vmm.ctrl_c import STOPPED, Raised, raises
from vmm.text_output import complain

DEBUG = "VMM_DEBUG"
"""Environment variable; set to anything, the traceback of a mistake is shown."""

PARTLY, MISTAKE, BAD_NUMBERS, LOST, PREEMPTED, NO_READER = 1, 2, 65, 69, 75, 141

_OURS = ("vmm", "eval", "data_prep")
_LONGEST = 400  # characters of a library's message
_REMEDIES = {
    errno.ENOENT: "check the name",
    errno.EEXIST: "name another, or move it away",
    errno.ENOTDIR: "a file stands where a folder is wanted; name another place",
    errno.EISDIR: "name a file",
    errno.EACCES: "ask for the right to it, or name another place",
    errno.EROFS: "name another place",
    errno.ENOSPC: "free some, or name a place on another disk",
    errno.EDQUOT: "free some, or name a place on another disk",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""What helps where the system refused a file, by its ``errno``."""
_BAR_EVERY_S = "60"
"""How often bars are written where no terminal draws them in one place."""


class CommandParser(argparse.ArgumentParser):
    """Options whose mistakes cost one sentence, which names the nearest option or choice."""

    _words: Sequence[str] = ()

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse options; an empty one would otherwise be the working folder, or its own default."""
        words = self._words = sys.argv[1:] if args is None else list(args)
        if any(re.fullmatch(r"(--[\w-]+=)?", word) for word in words):
            self.error("an argument is empty; is a variable of the shell not set?")
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and what was probably meant, then exit with status 2."""
        strange = self._strange()
        if strange and "required" in message:  # perhaps that is what was meant
            message = f"unrecognized arguments: {strange}"
        message = re.sub(r"invalid int value: (.*)", r"\1 is no whole number", message)
        message = re.sub(r"invalid float value: (.*)", r"\1 is no number", message)
        complain(f"{self.prog}: error: {message}{self._nearest(message)}; see {self.prog} -h")
        raise SystemExit(MISTAKE)

    def _strange(self) -> str:
        """Find an option that there is not; empty if there is none."""
        words = (word.partition("=")[0] for word in self._words)
        known = tuple(self._option_string_actions)
        return next(
            (w for w in words if w.startswith("--") and not any(k.startswith(w) for k in known)), ""
        )

    def _nearest(self, message: str) -> str:
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        option = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        if choice:
            near = get_close_matches(choice[1], re.findall(r"[^\s',]+", choice[2]), n=1)
        elif option:
            known = [name for name in self._option_string_actions if name != "--help"]
            near = get_close_matches(option[1], known, n=1)
        else:
            near = []
        return f"; did you mean {near[0]}?" if near else ""


class DefaultsFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that ends with the default of an option, if that says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Give the ``type=`` of an option that is a whole number in a range."""
    wanted = f"{least} or more" if most is None else f"{least} to {most}"

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {wanted}")
        return value

    return number


def positive(text: str) -> float:
    """Be the ``type=`` of an option that is a number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def percent(text: str) -> float:
    """Be the ``type=`` of an option that is a share in percent."""
    value = finite(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 100")
    return value


def finite(text: str) -> float:
    """Be the ``type=`` of an option that is a number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return value


def run_to_status(name: str, run: Callable[[], int], kept: str = "") -> int:
    """Run a command and give its exit status.

    Args:
        name: Begins the sentence of an error.
        run: The command; gives its status. A mistake is a ``ValueError`` with the value and the
            remedy, or an ``OSError``. ``KeyboardInterrupt`` may carry what was kept.
        kept: What an interrupted run leaves, as the end of a sentence.

    Returns:
        The command's status; 2 for a mistake, 130 for Ctrl-C, 141 if nobody reads the output. An
        exception that has a ``status`` of its own gives that one.
    """
    if sys.stderr is None or not sys.stderr.isatty():  # read when tqdm is imported
        for option in ("TQDM_MININTERVAL", "TQDM_DELAY"):
            os.environ.setdefault(option, _BAR_EVERY_S)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are not the user's mistake
    # Read when torch is imported: threads that spin while they wait for each other made training
    # twice as slow wherever another process was busy, and no faster elsewhere.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with Raised(name, kept):
            status = run()
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as interrupt:
        said = str(interrupt) or kept
        by = getattr(interrupt, "by", "Ctrl-C")
        complain(f"\n{name}: stopped by {by}{said and '; '}{said}")
        return int(getattr(interrupt, "status", STOPPED))
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return NO_READER
        if os.environ.get(DEBUG):
            raise
        complain(f"{name}: error: {sentence(error)}")
        return int(getattr(error, "status", MISTAKE))
    except (MemoryError, RuntimeError) as error:
        if os.environ.get(DEBUG) or not _out_of_memory(error):
            raise
        said = str(error).partition("\n")[0][:_LONGEST]
        complain(f"{name}: error: not enough memory ({said}); use a smaller batch")
        return MISTAKE


def done_in_part(name: str, lacking: str) -> int:
    """Say that a command did what it could, and no more, and give the exit status of that.

    Args:
        name: Of the command.
        lacking: What could not be done; all else is done, and written.
    """
    complain(f"{name}: done in part: {lacking}")
    return PARTLY


class PatientCtrlC:
    """Ctrl-C that is noted when it first comes, and stops at once when it comes again.

    For work that must not be cut, or that calls a library which swallows exceptions. As a context
    it stops at its end. It does nothing outside of the main thread, or where Ctrl-C already means
    something else.

    Args:
        heard: Called when it first comes.
    """

    def __init__(self, heard: Callable[[], None] | None = None) -> None:
        self.pressed = False
        self._heard = heard

    def begin(self) -> None:
        """Wait from here on."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and raises():
            self._before = signal.signal(signal.SIGINT, self._hear)

    def end(self) -> None:
        """Stop at once again."""
        if signal.getsignal(signal.SIGINT) == self._hear:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        if self._heard is not None:
            self._heard()

    def __enter__(self) -> PatientCtrlC:
        self.begin()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.end()
        if self.pressed and error is None:
            raise KeyboardInterrupt


def sentence(error: ValueError | OSError) -> str:
    """Say what a mistake was.

    A message that a ``raise`` of this project wrote is complete. One of a library or of a
    built-in function gets the place where it came from.
    """
    for link in _causes(error):
        named = isinstance(link, OSError) and link.filename is not None
        if isinstance(link, ValueError | OSError) and not named and _said_by_us(link):
            return str(link)
    if isinstance(error, OSError) and error.filename is not None:
        remedy = _REMEDIES.get(error.errno or 0)
        what = f"{error.filename2 or error.filename}: {error.strerror}"
        return f"{what}; {remedy}" if remedy else what
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; {_REMEDIES[error.errno]}"  # writing into a file tells no name
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
    where = next((f" in {name}, line {line}" for name, line in _our_places(error)), "")
    return f"{text} ({type(error).__name__}{where}; {DEBUG}=1 shows the whole trace)"


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _traces(error: BaseException) -> list[TracebackType]:
    """Give the traceback's entries, the innermost first."""
    entries = []
    trace = error.__traceback__
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    return entries[::-1]


def _module(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", ""))


def _is_ours(trace: TracebackType) -> bool:
    package = trace.tb_frame.f_globals.get("__package__") or _module(trace)
    return str(package).partition(".")[0] in _OURS


def _our_places(error: BaseException) -> Iterator[tuple[str, int]]:
    """Give module and line of this project's frames, the innermost first."""
    for trace in _traces(error):
        if _is_ours(trace):
            yield _module(trace), trace.tb_lineno


def _said_by_us(error: BaseException) -> bool:
    """Tell a ``raise`` statement of this project from an error that a call gave it."""
    traces = _traces(error)
    if not traces or not _is_ours(traces[0]):
        return False
    code = traces[0].tb_frame.f_code.co_code
    return code[traces[0].tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _out_of_memory(error: BaseException) -> bool:
    """Tell it from other errors; torch has a class of its own for GPUs, and none for CPUs."""
    words = "OutOfMemory" in type(error).__name__ or "can't allocate memory" in str(error)
    return words or isinstance(error, MemoryError)


def _nobody_reads() -> bool:
    """Tell whether standard output is closed, as by ``| head``, and then drop what is left."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not poll.poll(0):  # an open one has nothing to tell
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
