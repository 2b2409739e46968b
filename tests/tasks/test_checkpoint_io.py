import argparse
import pickle

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from vmm.tasks.checkpoint_io import LastCheckpoint, SafeCheckpointIO


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
