import csv
import io
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from vmm.text_output import lasting, number_of, say, visible, write_text

LATIN = os.fsdecode(b"caf\xe9.mp4")


def test_short_times_are_not_nought_hours():
    times = (0, 13.92, 59.9, 60, 3599, 3600, 7_200_000)
    assert [lasting(seconds) for seconds in times] == [
        *("0.0 seconds", "13.9 seconds", "59.9 seconds", "1.0 minutes", "60.0 minutes"),
        *("1.0 hours", "2,000.0 hours"),
    ]


def test_one_is_no_plural():
    assert [number_of(n, "clip") for n in (0, 1, 2500)] == ["0 clips", "1 clip", "2,500 clips"]
    assert number_of(1, "class has", "classes have") == "1 class has"
    assert number_of(3, "class has", "classes have") == "3 classes have"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ä — 猫 😀 e\u0301 שלום \u200f", "ä — 猫 😀 e\u0301 שלום \u200f"),
        (LATIN, r"caf\xe9.mp4"),
        ("half \ud83d", r"half \ud83d"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\u202efdp.exe", r"a\u202efdp.exe"),
        ("a\u2028b\x85c\x00", r"a\u2028b\x85c\x00"),
        ("a\ufffeb", r"a\ufffeb"),
    ],
)
def test_what_cannot_be_shown_is_escaped(text, shown):
    assert visible(text) == visible(text, lines=True) == shown
    ET.fromstring(f"<p>{visible(text)}</p>")


def test_ends_of_lines_are_kept_only_where_there_are_several():
    assert visible("a\n\tb\r") == r"a\x0a\x09b\x0d"
    assert visible("a\n\tb\r", lines=True) == "a\n\tb" + r"\x0d"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_everything_can_be_printed_wherever_it_goes(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr("sys.stdout", stream)
    say(f"ä 猫 {LATIN}")
    stream.flush()
    written = stream.buffer.getvalue()
    assert rb"caf\xe9.mp4" in written
    assert "ä 猫".encode(encoding, "backslashreplace") in written


def test_a_file_without_an_encoding_is_printed_to(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    say("ä")
    assert sys.stdout.getvalue() == "ä\n"


def test_files_hold_the_escapes_and_every_reader_takes_them(tmp_path):
    path = tmp_path / "a.csv"
    write_text(path, f"id,answer\n{LATIN},1\n")
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["id", "answer"], [r"caf\xe9.mp4", "1"]]


def test_the_module_loads_nothing_heavy(root):
    code = "import sys, vmm.text_output; print(sorted({'torch', 'numpy'} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"
