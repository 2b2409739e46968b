"""Curves go to others beside metrics.csv. W&B and MLflow are stood in for; nothing is sent."""

import csv

import pytest
from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger

from vmm.tasks import loggers
from vmm.trainer_cli import run


class WandbLogger(CSVLogger):
    """Takes what W&B's takes, and keeps it."""

    def __init__(self, save_dir, **given):
        super().__init__(save_dir, "theirs", "0")
        self.given = given


class MLFlowLogger(WandbLogger):
    pass


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    kinds = {"WandbLogger": WandbLogger, "MLFlowLogger": MLFlowLogger}
    real = loggers._class_of
    monkeypatch.setattr(
        loggers, "_class_of", lambda n: kinds.get(n.class_path.split(".")[-1]) or real(n)
    )


def node(kind, **arguments):
    return Namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=Namespace(arguments))


def test_a_run_that_goes_on_has_the_same_name_there(stand_in, tmp_path):
    first, again = (
        loggers.make_logger(node("WandbLogger", project="vmm", id=None), tmp_path / "s2" / "v0")
        for _ in range(2)
    )
    other = loggers.make_logger(node("WandbLogger", project="vmm"), tmp_path / "s2" / "v1")
    assert first.given == again.given and first.given["id"] != other.given["id"]
    assert first.given["name"] == "s2/v0" and first.given["resume"] == "allow"
    named = loggers.make_logger(node("WandbLogger", id="mine", name="own"), tmp_path / "s2" / "v0")
    assert named.given == {"name": "own", "id": "mine", "resume": "allow"}
    flow = loggers.make_logger(node("MLFlowLogger", experiment_name="vmm"), tmp_path / "s2" / "v0")
    assert flow.given == {"run_name": "s2/v0", "experiment_name": "vmm"}


def fit(root, shards, folder, overlay, *options):
    words = ["fit", "-c", "recipes/stage2_vtt.yaml", "-c", f"recipes/overlays/{overlay}.yaml"]
    words += ["-c", "recipes/overlays/debug.yaml", *shards.options(), *options]
    logger = "--trainer.logger.init_args"
    return run([*words, f"{logger}.save_dir={folder}", f"{logger}.version=run"])


def losses(file):
    with file.open(newline="") as rows:
        return [(r["step"], r["train/loss"]) for r in csv.DictReader(rows) if r["train/loss"]]


@pytest.mark.parametrize("overlay", ["wandb", "mlflow"])
def test_others_get_the_curves_and_metrics_csv_stays(
    stand_in, overlay, root, demo_shards, tmp_path, monkeypatch
):
    monkeypatch.chdir(root)
    done = fit(root, demo_shards, tmp_path, overlay)
    folder = tmp_path / "stage2_vtt/run"
    assert len(losses(folder / "metrics.csv")) == 2
    assert losses(folder / "theirs/0/metrics.csv") == losses(folder / "metrics.csv")
    assert (folder / "config.yaml").is_file() and (folder / "checkpoints/last.ckpt").is_file()
    assert isinstance(done.trainer.loggers[1], WandbLogger)


def test_tensorboard_has_every_step_once_also_when_the_run_goes_on(
    root, demo_shards, tmp_path, monkeypatch
):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(root)
    fit(root, demo_shards, tmp_path, "tensorboard")
    fit(root, demo_shards, tmp_path, "tensorboard", "--resume", "--trainer.max_epochs=2")
    folder = tmp_path / "stage2_vtt/run"
    events = EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    assert [event.step for event in events] == [0, 1, 2, 3]
    found = [float(value) for _, value in losses(folder / "metrics.csv")]
    assert [event.value for event in events] == pytest.approx(found)
