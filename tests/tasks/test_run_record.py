import json
from types import SimpleNamespace

import pytest

from vmm.tasks import run_record
from vmm.tasks.number_guard import Diverged
from vmm.tasks.run_record import RunRecord


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(run_record, "run_folder", lambda trainer: tmp_path)
    return SimpleNamespace(
        is_global_zero=True, global_step=3, state=SimpleNamespace(fn="fit"),
        loggers=[SimpleNamespace(log_dir=str(tmp_path))],
    )  # fmt: skip


def said(folder):
    content = json.loads((folder / "run.json").read_text())
    return content["end"], content["status"]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyboardInterrupt(), ("stopped", 130)),
        (Diverged("x"), ("numbers not finite", 65)),
        (ValueError("x"), ("mistake", 2)),
        (TypeError("x"), ("defect", 1)),
    ],
)
def test_how_a_run_ended(trainer, tmp_path, error, end):
    record = RunRecord()
    record.on_train_start(trainer, None)
    record.on_train_batch_start(trainer, None, {}, 0)
    assert said(tmp_path) == ("running", None)
    record.on_exception(trainer, None, error)
    assert said(tmp_path) == end


def test_what_is_wrong_with_its_numbers_is_kept(trainer, tmp_path):
    for data, leaks in (
        (None, []),
        (SimpleNamespace(leaks=["the same shards"]), ["the same shards"]),
    ):
        trainer.datamodule = data
        record = RunRecord()
        record.on_train_start(trainer, None)
        record.on_train_batch_start(trainer, None, {}, 0)
        assert json.loads((tmp_path / "run.json").read_text())["leaks"] == leaks


def test_a_run_that_does_not_begin_again_stays_what_it_was(trainer, tmp_path):
    (tmp_path / "run.json").write_text('{"end": "done", "status": 0}')
    record = RunRecord()
    record.on_train_start(trainer, None)
    record.on_exception(trainer, None, ValueError("nothing to train"))
    assert said(tmp_path) == ("done", 0)


def test_what_a_lost_process_brings_about_is_not_why_the_run_ended(trainer, tmp_path):
    record = RunRecord()
    record.on_train_start(trainer, None)
    record.on_train_batch_start(trainer, None, {}, 0)
    record.write(trainer, 69, "process 1 is gone")
    record.on_exception(trainer, None, RuntimeError("connection closed"))
    assert said(tmp_path) == ("process lost", 69)
    record.on_train_start(trainer, None)  # the next run of this object
    record.on_train_batch_start(trainer, None, {}, 0)
    assert said(tmp_path) == ("running", None)


@pytest.mark.parametrize("other", [False, True])
def test_the_folder_of_a_recipe_goes_too_unless_it_holds_another_run(trainer, tmp_path, other):
    folder = tmp_path / "runs/own/version_1"
    folder.mkdir(parents=True)
    if other:
        (folder.parent / "version_0").mkdir()
    trainer.loggers[0].log_dir = str(folder)
    RunRecord().on_exception(trainer, None, ValueError("no such shards"))
    assert not folder.exists() and folder.parent.exists() == other
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize(("kept", "stays"), [("", False), ("quarantine.jsonl", True)])
def test_a_start_that_failed_leaves_no_folder_but_what_it_found(trainer, tmp_path, kept, stays):
    folder = tmp_path / "version_0"
    folder.mkdir()
    (folder / "metrics.csv").touch()
    if kept:
        (folder / kept).write_text("{}")
    trainer.loggers[0].log_dir = str(folder)
    record = RunRecord()
    record.on_exception(trainer, None, ValueError("no such shards"))
    assert folder.exists() == stays
    record.on_exception(trainer, None, ValueError("no such shards"))  # nothing is there
