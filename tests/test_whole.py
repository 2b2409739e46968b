import errno
import os
from pathlib import Path

import pytest

from vmm.command_line import sentence
from vmm.whole import PARTIAL, whole_file, whole_folder


def write(path, text, **options):
    with whole_file(path, **options) as file:
        assert file.parent == path.parent and file.name.endswith(PARTIAL)
        file.write_text(text)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole(tmp_path, durable):
    path = tmp_path / "a.json"
    for text in ("old", "new"):
        write(path, text, durable=durable)
        assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_a_failure_the_old_file_is_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    write(path, "old")
    with pytest.raises(error), whole_file(path) as file:
        file.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_who_write_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / "a.json"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first, and last to end")
        second.write_text("second")
    assert path.read_text() == "first, and last to end" and list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_on_disk_before_it_has_its_name_and_then_its_name_is(
    tmp_path, monkeypatch
):
    done, fsync, replace = [], os.fsync, Path.replace

    def noted_fsync(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fsync(descriptor)

    def noted_replace(path, target):
        done.append("renamed")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write(tmp_path / "a.json", "x")
    assert done == [PARTIAL, "renamed", tmp_path.suffix]
    done.clear()
    write(tmp_path / "a.json", "x", durable=False)
    assert done == ["renamed"]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), whole_folder(out) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    out.mkdir()  # an empty folder may be there
    with whole_folder(out) as folder:
        (folder / "all").write_text("x")
    assert list(tmp_path.rglob("*")) == [out, out / "all"]


def test_what_a_folder_holds_is_replaced_only_if_asked_for(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("x")
    with pytest.raises(ValueError, match="is not an empty folder; name another"), whole_folder(out):
        pass
    with pytest.raises(RuntimeError), whole_folder(out, replace=True):
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [out, out / "old"]
    with whole_folder(out, replace=True) as folder:
        (folder / "new").write_text("x")
    assert list(tmp_path.rglob("*")) == [out, out / "new"]


def refused(path, **_):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_folder_that_cannot_be_written_to_is_named_and_nothing_hidden(
    tmp_path, monkeypatch, whole
):
    monkeypatch.setattr(Path, "touch", refused)  # root may write anywhere
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(PermissionError) as error, whole(tmp_path / "a"):
        raise AssertionError
    named = f"{tmp_path}: Permission denied; ask for the right to it, or name another place"
    assert sentence(error.value) == named


def test_a_folder_that_is_not_there_is_named_and_so_is_a_name_that_is_too_long(tmp_path):
    with pytest.raises(FileNotFoundError) as error, whole_file(tmp_path / "nowhere" / "a"):
        raise AssertionError
    assert sentence(error.value).startswith(f"{tmp_path / 'nowhere'}: ")
    long = tmp_path / ("a" * 250)
    with pytest.raises(OSError, match="too long") as error, whole_file(long):
        raise AssertionError
    assert sentence(error.value) == f"{long}: File name too long; give a shorter name"
