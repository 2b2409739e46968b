"""Ctrl-C outside of a command's work: before it, while it loads, and after it."""

import os
import subprocess
import sys
import tomllib

import pytest

_PRESS = """
import atexit, importlib, os, signal, sys

def press():
    os.kill(os.getpid(), signal.SIGINT)

class Finder:
    "Presses when a module is looked for, and swallows what that raises, as imports may do."

    def find_spec(self, name, *rest):
        if name == moment:
            try:
                press()
            except KeyboardInterrupt:
                if name == "vmm.ctrl_c":  # from there on nothing is raised
                    raise

moment, entry, *arguments = sys.argv[1:]
sys.meta_path.insert(0, Finder())
if moment == "the end":
    atexit.register(press)
"""
_ENTRY = """
sys.argv = ["vmm", *arguments]
module, _, function = entry.partition(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""
_STOPPED = "vmm: stopped by Ctrl-C"


def run(code, *arguments, **environment):
    """Run code after that of the press; give its status and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", _PRESS + code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr.strip()


@pytest.fixture
def entry(root):
    """What the installed command calls."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]["vmm"]


@pytest.mark.smoke
@pytest.mark.parametrize("moment", ["vmm.ctrl_c", "vmm.cli", "argparse", "yaml", "the end"])
def test_it_is_one_sentence_before_and_after_a_command(entry, moment):
    status, _, said = run(_ENTRY, moment, entry, "--help")
    assert (status, said) == (130, _STOPPED)


@pytest.mark.parametrize("moment", ["vmm.search.filling", "vmm.export.encoder", "numpy"])
def test_it_ends_what_loads_and_says_what_is_kept(entry, moment, tmp_path):
    command = ["encode", str(tmp_path), "-o", str(tmp_path / "index"), "--encoder", "some/where"]
    status, _, said = run(_ENTRY, moment, entry, *command)
    kept = "the index keeps what was encoded, the same command does the rest"
    assert (status, said) == (130, f"{_STOPPED}; {kept}")


def test_it_is_raised_in_what_a_command_does():
    code = """
from vmm.command_line import PatientCtrlC, run_to_status
from vmm.ctrl_c import end_at_once

def work():
    with PatientCtrlC() as patient:
        press()
        assert patient.pressed
        patient.pressed = False
    try:
        press()
    except KeyboardInterrupt:
        print("kept")
        raise

end_at_once()
sys.exit(run_to_status("it", work, "some"))
"""
    assert run(code, "never", "") == (130, "kept\n", "it: stopped by Ctrl-C; some")


def test_an_import_that_it_ends_leaves_no_folder(tmp_path):
    code = """
from vmm.command_line import run_to_status
from vmm.ctrl_c import end_at_once
from vmm.search.app.ending import own_folder

def work():
    with own_folder() as folder:
        print(folder.is_dir(), flush=True)
        import colorsys

end_at_once()
sys.exit(run_to_status("it", work))
"""
    ended = run(code, "colorsys", "", TMPDIR=str(tmp_path))
    assert ended == (130, "True\n", "it: stopped by Ctrl-C")
    assert list(tmp_path.iterdir()) == []


def test_children_are_not_left_alone():
    code = """
import multiprocessing
from vmm.command_line import run_to_status
from vmm.ctrl_c import end_at_once

def work():
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    try:
        import colorsys
        press()
    finally:
        child.kill()
        child.join()
        print(child.exitcode)

end_at_once()
sys.exit(run_to_status("it", work))
"""
    assert run(code, "colorsys", "") == (130, "-9\n", "it: stopped by Ctrl-C")


_STOPPED_COMMAND = """
import atexit, ctypes, os, sys, threading, time
import vmm.cli
from vmm.__main__ import main

@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
def crash(status, nothing):  # as what C++ does at the end of a process, if threads are at work
    os.abort()

def finish():
    time.sleep(0.3)
    print("a thread has finished")

def stopped():
    ctypes.CDLL(None).on_exit(crash, None)
    atexit.register(print, "what was registered was done")
    threading.Thread(target=finish).start()
    return int(sys.argv[1])

vmm.cli.main = stopped
sys.exit(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only its C library has on_exit")
@pytest.mark.parametrize("status", [130, 2])
def test_after_ctrl_c_libraries_clear_nothing_up_but_python_does(status):
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_COMMAND, str(status)], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["a thread has finished", "what was registered was done"]
    # Other ends of a process are as they always were.
    assert done.returncode == 130 if status == 130 else done.returncode < 0
