"""How commands read their options and how they end."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from vmm.command_line import (
    CommandParser,
    DefaultsFormatter,
    PatientCtrlC,
    finite,
    positive,
    run_to_status,
    whole,
)
from vmm.data.patterns import expand_shards


def test_help_names_the_defaults_that_say_something():
    parser = CommandParser(prog="vmm x", formatter_class=DefaultsFormatter)
    parser.add_argument("--fps", type=float, default=3.0, help="pictures per second")
    parser.add_argument("--split", help="percent")
    parser.add_argument("--ray", action="store_true", help="on a cluster")
    said = parser.format_help()
    assert "pictures per second (default: 3.0)" in said
    assert said.count("default") == 1, "None and False are noise"


def ours():
    expand_shards("no/such/file.tar")


def a_librarys():
    torch.utils.data.DataLoader([1], batch_size=0)


def wrapped():
    try:
        ours()
    except ValueError as error:
        raise ValueError("a page\nof what\nelse was tried") from error


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_of_a_file():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (ours, "the shard pattern 'no/such/file.tar' matches no file"),
        (wrapped, "the shard pattern 'no/such/file.tar' matches no file"),
        (
            lambda: Path("/no/such/folder/x").read_bytes(),
            "/no/such/folder/x: No such file or directory; check the name",
        ),
        (lambda: os.mkdir("/dev/null/x"), "/dev/null/x: Not a directory; a file stands where"),
        (lambda: os.mkdir("/dev/null"), "/dev/null: File exists; name another, or move it away"),
        (full_disk_of_a_file, "/x/y: No space left on device; free some, or name a place on"),
        (full_disk, "vmm: error: No space left on device; free some, or name a place on another"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(capsys, run, said):
    assert run_to_status("vmm", run) == 2
    message = capsys.readouterr().err
    assert message.startswith("vmm: error: ") and said in message
    assert message.count("\n") == 1 and "Traceback" not in message


def test_what_a_library_says_comes_with_the_place(capsys):
    assert run_to_status("vmm", a_librarys) == 2
    message = capsys.readouterr().err
    assert "batch_size=0" in message and "ValueError" in message
    assert "VMM_DEBUG=1 shows the whole trace" in message


def test_a_built_in_functions_error_in_our_own_code_has_the_place_too(capsys):
    names = {"__name__": "vmm.somewhere"}
    exec("def share(): return int('²')", names)
    assert run_to_status("vmm", names["share"]) == 2
    message = capsys.readouterr().err
    assert "invalid literal" in message and "(ValueError in vmm.somewhere, line 1;" in message


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyError, RuntimeError])
def test_a_defect_keeps_its_traceback(error):
    def defect():
        raise error("ours")

    with pytest.raises(error):
        run_to_status("vmm", defect)


def test_debugging_shows_the_trace_of_a_mistake(monkeypatch):
    monkeypatch.setenv("VMM_DEBUG", "1")
    with pytest.raises(ValueError, match="matches no file"):
        run_to_status("vmm", ours)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("lack"),
        torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_lack_of_memory_names_the_remedy(capsys, error):
    def run():
        raise error

    assert run_to_status("vmm", run) == 2
    message = capsys.readouterr().err
    assert "use a smaller batch" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("interrupt", "said"),
    [
        (KeyboardInterrupt(), "stopped by Ctrl-C; the index is kept"),
        (KeyboardInterrupt("3 steps are done"), "stopped by Ctrl-C; 3 steps are done"),
    ],
)
def test_an_interrupt_is_one_sentence_and_status_130(capsys, interrupt, said):
    def run():
        raise interrupt

    assert run_to_status("vmm", run, "the index is kept") == 130
    assert capsys.readouterr().err == f"\nvmm: {said}\n"


def test_a_reader_that_goes_away_is_no_error():
    code = (
        "import sys; from vmm.command_line import run_to_status\n"
        "def run():\n for i in range(100000): print(i)\n return 0\n"
        "sys.exit(run_to_status('vmm', run))"
    )
    command = f'{sys.executable} -c "{code}" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batchsize", "3"], "unrecognized arguments: --batchsize 3; did you mean --batch-size?"),
        (["--batch-size", "0"], "--batch-size: '0' is no whole number of 1 or more"),
        (["--batch-size", "1e3"], "--batch-size: '1e3' is no whole number of 1 or more"),
        (["--port", "99999"], "--port: '99999' is no whole number of 0 to 65535"),
        (["--seconds", "nan"], "--seconds: 'nan' is no finite number"),
        (["--seconds", "inf"], "--seconds: 'inf' is no finite number"),
        (["--seconds", "-0.5"], "--seconds: '-0.5' is not above 0"),
        (["--recall", "much"], "--recall: 'much' is no finite number"),
        (["--how", "fst"], "invalid choice: 'fst'"),
        (["--port", ""], "an argument is empty; is a variable of the shell not set?"),
        (["--port="], "an argument is empty; is a variable of the shell not set?"),
        (["--how", "fst"], "did you mean fast?"),
        (["--hel-me"], "unrecognized arguments: --hel-me; see vmm do -h"),
        (["--size", "x"], "--size: 'x' is no whole number; see"),
        (["--share", "x"], "--share: 'x' is no number; see"),
    ],
)
def test_a_mistake_in_the_options_is_one_sentence(capsys, words, said):
    parser = CommandParser(prog="vmm do")
    parser.add_argument("--batch-size", type=whole(1))
    parser.add_argument("--size", type=int)
    parser.add_argument("--share", type=float)
    parser.add_argument("--port", type=whole(0, 65535))
    parser.add_argument("--seconds", type=positive)
    parser.add_argument("--recall", type=finite)
    parser.add_argument("--how", choices=("fast", "well"))
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert message.startswith("vmm do: error: ") and said in message
    assert message.endswith("; see vmm do -h\n") and message.count("\n") == 1


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_patient_interrupt_comes_at_the_end_and_the_second_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt), PatientCtrlC():
        press()
        done.append("after the first")
    with pytest.raises(KeyboardInterrupt), PatientCtrlC(lambda: done.append("heard")):
        press()
        press()
        done.append("after the second")
    assert done == ["after the first", "heard"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_patient_interrupt_leaves_other_threads_and_handlers_alone():
    def other(*_):
        pass

    before = signal.signal(signal.SIGINT, other)
    try:
        with PatientCtrlC():
            assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, before)
    patient = PatientCtrlC()
    thread = threading.Thread(target=patient.begin)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--rum=x", "unrecognized arguments: --rum; did you mean --run?"),
        ("--rum x --k 3", "unrecognized arguments: --rum; did you mean --run?"),
        ("--k 3", "the following arguments are required: --run"),
        ("--k=3 --numb 4", "the following arguments are required: --run"),  # short for --number
        ("--run x --k a", "argument --k: 'a' is no whole number"),
        ("--run x --number a", "argument --number: 'a' is no number"),
        ("--run x --hulp", "unrecognized arguments: --hulp"),
    ],
)
def test_a_misspelt_option_is_named_before_what_is_missing(words, said, capsys):
    parser = CommandParser(prog="vmm x")
    parser.add_argument("--run", required=True)
    parser.add_argument("--k", type=int)
    parser.add_argument("--number", type=float)
    with pytest.raises(SystemExit):
        parser.parse_args(words.split())
    assert capsys.readouterr().err == f"vmm x: error: {said}; see vmm x -h\n"
