import argparse
import pickle
import time
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from vmm.runs import find_checkpoint
from vmm.tasks.checkpoint_io import LastCheckpoint, SafeCheckpointIO
from vmm.tasks.resume import newest_whole, steps_of


def test_round_trip_leaves_one_file(tmp_path):
    path = tmp_path / "runs" / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["w"], torch.ones(3))
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_what_could_not_be_loaded_is_not_saved_and_the_old_file_stays(tmp_path):
    path = tmp_path / "last.ckpt"
    io = SafeCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises(pickle.UnpicklingError):
        io.save_checkpoint({"args": argparse.Namespace(a=1)}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    io = SafeCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def full_disk(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(ValueError, match=r"cannot be written \(No space"):
        io.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_some_failed_writes_may_be_gone_past_and_remove_nothing(tmp_path, monkeypatch, caplog):
    path = tmp_path / "old.ckpt"
    io = SafeCheckpointIO(max_failures=2)
    io.save_checkpoint({"step": 1}, path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: torch.zeros(1).view(2))
        with pytest.raises(RuntimeError, match="invalid for input"):  # a defect, no full disk
            io.save_checkpoint({"step": 2}, path)
    (tmp_path / "gone").write_text("a file where a folder should be")
    for left in (1, 0):
        io.save_checkpoint({"step": 2}, tmp_path / "gone" / "new.ckpt")
        assert f"{left} tries left" in caplog.text
        io.remove_checkpoint(path)
        assert path.is_file()
    with pytest.raises(ValueError, match="cannot be written"):
        io.save_checkpoint({"step": 3}, tmp_path / "gone" / "new.ckpt")
    io.save_checkpoint({"step": 4}, tmp_path / "new.ckpt")
    io.remove_checkpoint(path)
    assert not path.exists()


STATE = {"epoch": 1, "global_step": 3, "pytorch-lightning_version": "2.6.6"}


@pytest.mark.parametrize("wrapper", ["model.w", "_orig_mod.model.w", "model._orig_mod.w"])
def test_a_checkpoint_of_a_compiled_model_has_plain_names(tmp_path, wrapper):
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({**STATE, "state_dict": {wrapper: torch.ones(2)}}, path)
    loaded = SafeCheckpointIO().load_checkpoint(path)
    assert list(loaded["state_dict"]) == ["model.w"] and loaded["global_step"] == 3


def test_a_checkpoint_is_never_unpickled_whatever_lightning_asks_for(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({**STATE, "state_dict": {}, "args": argparse.Namespace(a=1)}, path)
    with pytest.raises(ValueError, match=r"run code of argparse\.Namespace"):
        SafeCheckpointIO().load_checkpoint(path, weights_only=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {"w": torch.ones(2)}}, "start one from its weights with --model"),
        ({"w": torch.ones(2)}, "holds weights and not the state of a run"),
        ([torch.ones(2)], "holds weights and not the state of a run"),
        (
            {**STATE, "state_dict": {"w": torch.ones(1), "_orig_mod.w": torch.ones(1)}},
            "holds weights twice",
        ),
    ],
)
def test_what_no_run_can_go_on_from_is_refused(tmp_path, content, said):
    path = tmp_path / "weights.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=said):
        SafeCheckpointIO().load_checkpoint(path)


class Worsening(L.LightningModule):
    """A model whose validation metric gets worse from the second validation on."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return self.layer(batch).sum()

    def validation_step(self, batch, index):
        self.log("val/score", float(-self.global_step))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, max_epochs, **options):
    best = ModelCheckpoint(dirpath=folder, monitor="val/score", mode="max")
    trainer = L.Trainer(
        default_root_dir=folder.parent,
        accelerator="cpu",
        max_epochs=max_epochs,
        val_check_interval=3,
        callbacks=[best, LastCheckpoint()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Worsening(), DataLoader(torch.ones(7, 1)), DataLoader(torch.ones(1, 1)), **options)
    return trainer


def test_the_last_checkpoint_is_the_newest_also_when_the_best_is_old(tmp_path):
    folder = tmp_path / "checkpoints"
    fit(folder, 1)
    files = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.ckpt")}
    assert files.pop("last.ckpt")["global_step"] == 7
    ((name, best),) = files.items()
    assert name == "epoch=0-step=3.ckpt" and best["global_step"] == 3
    fit(folder, 2, ckpt_path=str(folder / "last.ckpt"))
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 14
    assert (folder / "epoch=0-step=3.ckpt").is_file()


def states(folder):
    return {path.name: steps_of(path) for path in folder.glob("last*.ckpt")}


def save_at(saver, folder, steps, clock=None):
    """Save at each of some steps, after so many hours by the clock."""
    saved = []
    folder.mkdir()
    for step, hours in steps:
        trainer = SimpleNamespace(
            global_step=step,
            sanity_checking=False,
            is_global_zero=True,
            fast_dev_run=False,
            log_dir=str(folder.parent),
            loggers=[],
            save_checkpoint=lambda path, weights_only, step=step: (
                SafeCheckpointIO().save_checkpoint({"global_step": step}, path)
            ),
        )
        if clock is not None:
            clock.append(hours * 3600)
        saver._save(trainer)
        saved.append(states(folder))
        time.sleep(0.01)  # between the times of two files
    return saved


def test_older_states_are_kept_by_number(tmp_path):
    saved = save_at(LastCheckpoint(keep=2), tmp_path / "checkpoints", [(3, 0), (5, 0), (9, 0)])
    assert saved == [
        {"last.ckpt": 3},
        {"last.ckpt": 5, "last-step=3.ckpt": 3},
        {"last.ckpt": 9, "last-step=5.ckpt": 5},
    ]
    run = tmp_path
    assert newest_whole(run).name == find_checkpoint(run, "last").name == "last.ckpt"
    damage(run / "checkpoints/last.ckpt")
    assert newest_whole(run).name == "last-step=5.ckpt"


def test_a_disk_without_links_is_said(tmp_path, monkeypatch, caplog):
    def link(old, new):
        raise OSError("Operation not supported")

    monkeypatch.setattr("os.link", link)
    saved = save_at(LastCheckpoint(keep=2), tmp_path / "checkpoints", [(3, 0), (5, 0)])
    assert saved[-1] == {"last.ckpt": 5}
    assert "the state before is not kept: Operation not supported" in caplog.text


def test_a_state_of_each_few_hours_is_kept_for_ever(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    saver = LastCheckpoint(keep_every_hours=2)
    steps = [(1, 1.0), (2, 1.9), (3, 2.1), (4, 3.0), (5, 4.2)]
    saved = save_at(saver, tmp_path / "checkpoints", steps, clock)
    assert saved[1] == {"last.ckpt": 2}
    assert saved[-1] == {"last.ckpt": 5, "last-kept-step=3.ckpt": 3}


def test_minutes_make_a_save_due(tmp_path, monkeypatch):
    saver = LastCheckpoint(every_minutes=5)
    saved = []
    monkeypatch.setattr(saver, "_save", lambda trainer: saved.append(trainer.global_step))
    start = time.monotonic()
    for step, minutes in ((1, 1), (2, 4.9), (3, 5.1)):
        trainer = SimpleNamespace(global_step=step, max_steps=-1, should_stop=False)
        monkeypatch.setattr(time, "monotonic", lambda now=start + 60 * minutes: now)
        saver.on_train_batch_end(trainer, None)
    assert saved == [3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 0}, "last_checkpoint.keep is 0; set it to 1 or more$"),
        ({"every_minutes": -1}, "every_minutes is -1; set it to more than 0, or to null"),
        ({"keep_every_hours": 0}, "keep_every_hours is 0; set it to more than 0, or to null"),
        ({"every_n_train_steps": 0}, "every_n_train_steps is 0; set it to 1 or more, or to null"),
    ],
)
def test_settings_that_keep_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LastCheckpoint(**options)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[: len(content) * 2 // 3])
