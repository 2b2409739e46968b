import logging
from types import SimpleNamespace

import pytest
import torch

from tests.export.runs import write_run
from vmm import after_fit
from vmm.models.match_weight import FILE_NAME, read_match_weight
from vmm.tasks.video_text import LossWeights, VideoTextTask


@pytest.fixture
def ended(tmp_path, demo_shards):
    """A run that has just ended: its trainer and its data, with changes of either."""
    write_run(tmp_path / "run", seed=0)

    def end(vtm=1.0, shards=f"{demo_shards.folder}/val-*.tar", **changes):
        task = VideoTextTask.__new__(VideoTextTask)
        task.__dict__["loss_weights"] = LossWeights(vtm=vtm)
        trainer = SimpleNamespace(
            lightning_module=task,
            fast_dev_run=False,
            log_dir=str(tmp_path / "run"),
            limit_val_batches=1.0,
            is_global_zero=True,
            checkpoint_callback=object(),
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        vars(trainer).update(changes)
        data = SimpleNamespace(val_videos=shards, num_workers=0, batch_size=3)
        after_fit.choose_match_weight(trainer, data)
        return tmp_path / "run" / FILE_NAME

    return end


def test_a_run_that_trained_matching_gets_a_weight(ended, caplog):
    with caplog.at_level(logging.INFO, "vmm.after_fit"):
        file = ended(limit_val_batches=2)  # as few clips as validation looked at
    weight = read_match_weight(file.parent)
    assert f"the weight {weight:g}, chosen on 6 validation clips" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"vtm": 0.0},
        {"shards": None},
        {"limit_val_batches": 0},
        {"is_global_zero": False},
        {"checkpoint_callback": None},
        {"fast_dev_run": True},
        {"lightning_module": None},
    ],
)
def test_others_get_none(ended, changes):
    assert not ended(**changes).exists()


def test_what_goes_wrong_ends_no_run(ended, caplog):
    assert not ended(shards="gone-*.tar").exists()
    assert "no weight of the matching head was chosen: " in caplog.text and "gone-" in caplog.text


@pytest.fixture
def finished(tmp_path, caplog):
    """Say what there is of a run in a folder; give the messages."""
    caplog.set_level(logging.INFO, "vmm.after_fit")

    def finished(**changes):
        trainer = SimpleNamespace(
            fast_dev_run=False,
            loggers=[SimpleNamespace(log_dir=str(tmp_path / "run"))],
            is_global_zero=True,
            global_step=20,
            early_stopping_callback=None,
        )
        vars(trainer).update(changes)
        caplog.clear()
        after_fit.say_what_there_is(trainer)
        return [r.getMessage() for r in caplog.records if r.name == "vmm.after_fit"]

    return finished


def test_a_run_ends_with_its_page_and_what_can_be_done_now(tmp_path, finished):
    write_run(tmp_path / "run", seed=0)
    stopper = SimpleNamespace(wait_count=3, patience=3, monitor="val/loss")
    said = finished(early_stopping_callback=stopper)
    assert said[0] == "done:       after 20 steps: val/loss got no better (early_stopping)"
    assert said[1] == f"run:        {tmp_path / 'run'}"
    assert any(line.startswith("checkpoint: ") for line in said)
    assert f"report:     {tmp_path / 'run/report.html'}" in said
    assert any("vmm eval retrieval --run" in line for line in said)
    assert (tmp_path / "run/report.html").is_file()
    stopper.wait_count = 1
    assert finished(early_stopping_callback=stopper)[0] == "done:       after 20 steps"


def test_who_has_no_run_says_nothing(tmp_path, finished):
    assert finished() == []  # the folder has no recipe
    write_run(tmp_path / "run", seed=0)
    for changes in ({"is_global_zero": False}, {"fast_dev_run": True}, {"loggers": []}):
        assert finished(**changes) == []
    assert not (tmp_path / "run/report.html").exists()


def test_a_page_that_cannot_be_written_ends_no_run(tmp_path, finished, caplog):
    write_run(tmp_path / "run", seed=0)
    (tmp_path / "run/metrics.csv").write_text("step,train/loss\nx,1\n")
    said = finished()
    assert any("holds no number for train/loss" in line for line in said)
    after_fit.write_page(tmp_path / "run")
    assert "no report.html was written: " in caplog.messages[-1]
    (tmp_path / "run/config.yaml").write_text(": [")
    assert "what the run has cannot be said: " in finished()[-1]
    after_fit.write_page(None)
    after_fit.write_page(tmp_path)  # no run
