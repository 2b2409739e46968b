import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vmm.portable import lock, read_at, to_disk


@pytest.fixture(params=["there", "not there"])
def pread(request, monkeypatch):
    if request.param == "not there":
        monkeypatch.delattr(os, "pread")


@pytest.mark.usefixtures("pread")
def test_a_part_of_a_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789\r\n\x1a89")
    with (tmp_path / "file").open("rb") as file:
        assert read_at(file.fileno(), 3, 4) == b"456"
        assert read_at(file.fileno(), 5, 10) == b"\r\n\x1a89"
        assert read_at(file.fileno(), 9, 13) == b"89"  # the file ends
        assert read_at(file.fileno(), 3, 99) == b""


def test_one_process_locks_a_file(tmp_path):
    (tmp_path / "file").touch()
    code = "import sys; from vmm.portable import lock; lock(open(sys.argv[1], 'rb'))"
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    with (tmp_path / "file").open("rb") as file:
        lock(file)
        other = subprocess.run(command, capture_output=True, text=True)
        assert "BlockingIOError" in other.stderr
    assert subprocess.run(command).returncode == 0


def test_locks_of_windows(tmp_path, monkeypatch):
    taken = []

    def locking(number, mode, size):
        assert (mode, size) == (2, 1)
        if taken:
            raise PermissionError(13, "Permission denied")
        taken.append(number)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    with (tmp_path / "file").open("wb") as file:
        lock(file)
        with pytest.raises(BlockingIOError):
            lock(file)


def test_folders_that_cannot_be_opened_are_no_error(tmp_path, monkeypatch):
    to_disk(tmp_path)
    (tmp_path / "file").touch()

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    to_disk(tmp_path)
    with pytest.raises(PermissionError):
        to_disk(tmp_path / "file")
