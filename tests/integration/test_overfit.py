"""``trainer.overfit_batches``: the same pixels and captions again, until they are known."""

import os
import signal
from contextlib import nullcontext

import lightning as L
import pytest
import torch

from vmm.tasks.base import TrainingTask
from vmm.trainer_cli import run


class Watch(L.Callback):
    def __init__(self, stop=0):
        self.trained, self.validated, self.losses = [], [], []
        self.stop = stop

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append((batch["media"], batch["key"], batch["text"], batch["video"].clone()))
        self.losses.append(float(outputs["loss"]))
        if trainer.global_step == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self.validated.append(batch["key"])


@pytest.fixture
def fit(root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)

    def fit(*options, stop=0):
        watch = Watch(stop)
        monkeypatch.setattr(TrainingTask, "configure_callbacks", lambda task: [watch])
        words = ["fit", "-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml"]
        words += [*demo_shards.options(), f"--trainer.logger.init_args.save_dir={tmp_path}"]
        words += ["--data.init_args.crop_scale=[0.5,1.0]"]
        with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            run([*words, "--trainer.logger.init_args.version=run", *options])
        return watch

    return fit


def same(one, other):
    return one[:3] == other[:3] and torch.equal(one[3], other[3])


@pytest.mark.parametrize(("share", "steps", "validated"), [("2", 20, 2), ("0.5", 4, 1)])
def test_the_same_batches_come_in_every_epoch_also_after_a_resume(fit, share, steps, validated):
    options = [f"--trainer.overfit_batches={share}", f"--data.init_args.steps_per_epoch={steps}"]
    options += ["--data.init_args.batch_size=8", "--trainer.max_epochs=3"]
    first, rest = fit(*options, stop=3), fit(*options, "--resume")
    batches = first.trained + rest.trained
    assert len(first.trained) == 3 and len(batches) == 6
    assert all(same(batch, batches[i % 2]) for i, batch in enumerate(batches))
    assert not same(batches[0], batches[1])
    assert len(first.validated) == validated  # of its own batches as many


@pytest.mark.slow
def test_it_overfits(fit):
    watch = fit(
        "--trainer.overfit_batches=2", "--trainer.max_epochs=60",
        "--model.init_args.warmup_steps=5",
        "--trainer.check_val_every_n_epoch=60", "--trainer.enable_checkpointing=false",
    )  # fmt: skip
    assert sum(watch.losses[-6:]) < 0.3 * sum(watch.losses[:6])
