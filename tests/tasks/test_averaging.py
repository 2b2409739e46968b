"""An average of weights: what it is, where it is used, and that it survives a stop."""

import os
import signal

import lightning as L
import pytest
import torch

from vmm.cli import main
from vmm.models.weight_files import read_state_dict
from vmm.runs import load_run
from vmm.tasks.base import TrainingTask

pytestmark = pytest.mark.slow

DECAY = 0.75


def copied(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


class Watch(L.Callback):
    """Average by hand, look at what validation sees, and stop at a moment."""

    def __init__(self, stop=()):
        self.stop, self.average, self.validated = stop, None, []

    def on_train_batch_end(self, trainer, pl_module, *_):
        now = copied(pl_module)
        old = self.average or now
        self.average = {n: DECAY * old[n] + (1 - DECAY) * now[n] for n in now}
        if self.stop == ("training", trainer.global_step):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_start(self, trainer, pl_module, *_):
        if not trainer.sanity_checking:
            self.validated.append(copied(pl_module))
            if self.stop == ("validation", trainer.global_step):
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)

    def run(version, watch, *options, command="fit", recipe="stage2_vtt", status=0):
        monkeypatch.setattr(TrainingTask, "configure_callbacks", lambda task: [watch])
        words = [command, "-c", f"recipes/{recipe}.yaml", "-c", "recipes/overlays/debug.yaml"]
        words += demo_shards.options(images=False)
        if recipe == "stage2_vtt":
            words.append("--data.init_args.train_images=null")
        words += ["--data.init_args.steps_per_epoch=4", "--trainer.val_check_interval=2"]
        words += [f"--trainer.logger.init_args.save_dir={tmp_path}"]
        words += [f"--trainer.logger.init_args.version={version}", *options]
        assert main(words) == status
        return tmp_path / recipe / version

    return run


EMA = ("-c", "recipes/overlays/ema.yaml", f"--ema.decay={DECAY}")


def content(run):
    file = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return file["state_dict"], file["current_model_state"]


def near(found, wanted):
    return all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_validation_checkpoint_evaluation_and_export_have_the_average(run):
    watch = Watch()
    folder = run("whole", watch, *EMA)
    average, trained = content(folder)
    assert near(average, watch.average) and not near(trained, watch.average)
    assert len(watch.validated) == 2 and near(watch.validated[1], watch.average)
    path = folder / "checkpoints/last.ckpt"
    assert same(read_state_dict(path), average)
    taken = {f"model.{n}": v for n, v in load_run(folder, "last").model.state_dict().items()}
    raw = load_run(folder, "last:raw")
    assert near(taken, {n: v for n, v in average.items() if n in taken})
    assert near({f"model.{n}": v for n, v in raw.model.state_dict().items()}, trained)
    assert raw.sha256 == load_run(folder, "last").sha256 + ":raw"
    for command in ("validate", "predict"):
        evaluated = Watch()
        evaluated.on_predict_batch_start = evaluated.on_validation_batch_start
        run(command, evaluated, f"--ckpt_path={path}", *EMA, command=command)
        assert near(evaluated.validated[0], watch.average)


@pytest.mark.parametrize("stop", [("training", 3), ("validation", 2)])
def test_a_run_that_was_stopped_ends_with_the_same_weights_and_average(run, stop):
    whole, goes_on = run("whole", Watch(), *EMA), Watch()
    run("stopped", Watch(stop), *EMA, status=75)
    stopped = run("stopped", goes_on, *EMA, "--resume")
    for found, wanted in zip(content(stopped), content(whole), strict=True):
        assert same(found, wanted)
    assert near(goes_on.validated[-1], content(whole)[0])


def test_an_average_begins_and_ends_when_a_run_goes_on(run):
    plain = run("plain", Watch(), "--trainer.max_steps=2")
    with_average = run("with", Watch(), "--trainer.max_steps=2", *EMA)
    _, trained = content(with_average)
    steps = ("--trainer.max_steps=4",)
    begun = run("begun", Watch(), *steps, *EMA, f"--ckpt_path={plain}")
    ended = run("ended", Watch(), *steps, f"--ckpt_path={with_average}")
    never = run("never", Watch(), *steps, f"--ckpt_path={plain}")
    of = {r.name: read_state_dict(r / "checkpoints/last.ckpt") for r in (ended, never, plain)}
    assert same(of["plain"], trained)  # an average changes nothing in training
    assert same(of["ended"], of["never"]) and same(content(begun)[1], of["never"])
    with pytest.raises(ValueError, match="without :raw"):
        load_run(never, "last:raw")


def test_the_frozen_teacher_is_not_saved(run):
    average, trained = content(run("first", Watch(), *EMA, recipe="stage1_mvp"))
    assert average.keys() == trained.keys()
    assert not any(name.startswith("teacher") for name in trained)
    run("first", Watch(), *EMA, "--resume", "--trainer.max_epochs=2", recipe="stage1_mvp")
