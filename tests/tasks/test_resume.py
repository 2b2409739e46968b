import csv
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from vmm.tasks.resume import (
    continue_curves,
    differences,
    lock,
    newest_run,
    newest_whole,
    steps_of,
    sweep,
)


@pytest.fixture
def checkpoints(tmp_path):
    """A folder of three checkpoints of growing age."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for age, name in enumerate(("last.ckpt", "b.ckpt", "a.ckpt")):
        path = folder / name
        torch.save({"global_step": 10 - age, "weights": torch.ones(1000)}, path)
        os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def damage(path, where):
    data = bytearray(path.read_bytes())
    data[where if where >= 0 else len(data) // 2] ^= 0x40
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))


def test_the_newest_whole_checkpoint_is_taken(checkpoints, caplog):
    assert newest_whole(checkpoints.parent) == checkpoints / "last.ckpt"
    assert steps_of(checkpoints / "last.ckpt") == 10
    damage(checkpoints / "last.ckpt", -1)  # one bit, in the middle of the weights
    (checkpoints / "b.ckpt").write_bytes(b"")
    assert newest_whole(checkpoints.parent) == checkpoints / "a.ckpt"
    assert "last.ckpt is damaged" in caplog.text and "b.ckpt is empty" in caplog.text
    (checkpoints / "a.ckpt").write_bytes(b"PK")
    assert newest_whole(checkpoints.parent) is None
    assert newest_whole(checkpoints / "nowhere") is None


@pytest.mark.parametrize("content", [{"weights": torch.ones(2)}, [1, 2], {"global_step": "x"}])
def test_a_file_that_is_no_checkpoint_of_a_run_is_passed_over(checkpoints, caplog, content):
    torch.save(content, checkpoints / "strange.ckpt")
    assert newest_whole(checkpoints.parent) == checkpoints / "last.ckpt"
    assert "strange.ckpt is no checkpoint of a run" in caplog.text


def test_a_file_that_would_run_code_is_passed_over(checkpoints, caplog, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"global_step": 99, "x": Evil()}, checkpoints / "evil.ckpt")
    assert newest_whole(checkpoints.parent) == checkpoints / "last.ckpt"
    assert "it would run code of" in caplog.text and not (tmp_path / "ran").exists()


def test_what_killed_writers_left_is_swept_unless_one_is_at_work(checkpoints):
    torn = checkpoints / ".last.ckpt.ab-1.partial"
    torn.touch()
    with lock(checkpoints.parent):
        sweep(checkpoints.parent)
        assert torn.exists()
    sweep(checkpoints.parent)
    assert not torn.exists() and (checkpoints / "last.ckpt").exists()


def test_a_drive_without_locks_trains_and_sweeps_nothing(checkpoints, monkeypatch, caplog):
    torn = checkpoints / ".last.ckpt.ab-1.partial"
    torn.touch()

    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(checkpoints.parent):
        assert "cannot be locked ([Errno 37] No locks available)" in caplog.text
    sweep(checkpoints.parent)  # somebody may write it
    assert torn.exists()


def test_nothing_is_swept_in_a_run_of_somebody_else(checkpoints):
    torn = checkpoints / ".last.ckpt.ab-1.partial"
    torn.touch()
    (checkpoints.parent / ".lock").mkdir()  # root may write into any file
    sweep(checkpoints.parent)
    assert torn.exists()


def test_files_are_locked_open_for_writing(checkpoints, monkeypatch):
    """NFS makes a lock of the whole file out of it, which a file open for reading cannot have."""

    def flock(file, _):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    torn = checkpoints / ".last.ckpt.ab-1.partial"
    torn.touch()
    with lock(checkpoints.parent):
        sweep(checkpoints.parent)
    assert not torn.exists()


def test_two_runs_do_not_share_a_folder(tmp_path):
    with lock(tmp_path / "run"), pytest.raises(ValueError, match="another process trains in"):
        lock(tmp_path / "run")
    lock(tmp_path / "run").close()


def test_the_youngest_run_of_a_name(tmp_path):
    assert newest_run(tmp_path) is None
    for name in ("version_0", "version_10", "version_9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "version_11").mkdir()  # what vmm predict leaves
    (tmp_path / "version_11/config.yaml").write_text("seed: 1\nreturn_predictions: null\n")
    assert newest_run(tmp_path) == tmp_path / "version_9"


def test_other_settings_are_named_one_by_one():
    before = {"model": {"lr": 1, "size": [1, 2]}, "seed": 3, "gone": None}
    now = {"model": {"lr": 2, "size": [1, 2], "new": "x"}, "seed": 3}
    assert list(differences(before, now)) == [
        "model.lr was 1 and is 2",
        "model.new was None and is 'x'",
    ]


def rows(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(logger, *steps):
    for step in steps:
        logger.log_metrics({"a": step / 10} | ({"b": 1.0} if step % 2 else {}), step)
    logger.save()


def test_curves_go_on_without_doubled_or_missing_steps(tmp_path):
    log(CSVLogger(tmp_path, "x", "run"), 0, 1, 2, 3)
    logger = CSVLogger(tmp_path, "x", "run")
    continue_curves(logger, 2)
    log(logger, 2, 3, 4)
    found = rows(tmp_path / "x/run/metrics.csv")
    assert [int(row["step"]) for row in found] == [0, 1, 2, 3, 4]
    assert found[1] == {"a": "0.1", "b": "1.0", "step": "1"} == found[3] | {"a": "0.1", "step": "1"}


def test_curves_that_a_kill_left_half_continued_are_not_lost(tmp_path):
    log(CSVLogger(tmp_path, "x", "run"), 0, 1, 2)
    folder = tmp_path / "x/run"
    (folder / "metrics.csv").rename(folder / "metrics-before.csv")
    (folder / "metrics.csv").write_text("step\n")  # what it had begun to write
    logger = CSVLogger(tmp_path, "x", "run")
    continue_curves(logger, 3)
    log(logger, 3)
    assert [int(row["step"]) for row in rows(folder / "metrics.csv")] == [0, 1, 2, 3]
    assert not (folder / "metrics-before.csv").exists()


def test_all_processes_of_a_run_that_goes_on_write_its_recipe_anew(tmp_path):
    from vmm.trainer_cli import SaveRecipe

    (tmp_path / "config.yaml").write_text("before: 1")
    trainer = SimpleNamespace(
        loggers=[1], sanity_checking=False, training=True, log_dir=str(tmp_path),
        strategy=SimpleNamespace(broadcast=lambda x: x), is_global_zero=False,
    )  # fmt: skip
    parser = SimpleNamespace(
        save=lambda config, path, **_: Path(path).write_text("now: 1"),
    )
    second, first = (SaveRecipe(parser, None) for _ in range(2))
    second.take(tmp_path, first=False)
    second._begin(trainer, None)  # neither refused, nor does it touch the file
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    first.take(tmp_path, first=True)
    with pytest.raises(ValueError, match="another process trains in"):
        lock(tmp_path)
    trainer.is_global_zero = True
    first._begin(trainer, None)
    assert (tmp_path / "config-0.yaml").read_text() == "before: 1"
    assert (tmp_path / "config.yaml").read_text() == "now: 1"
