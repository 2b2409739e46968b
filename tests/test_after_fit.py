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
