import inspect
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vmm.data import datamodules
from vmm.data.demo import WebVideoData


def test_missing_demo_shards_are_made_once(tmp_path, monkeypatch):
    calls = []

    def run(command, env, check):
        from vmm.shards.demo.synthesize import main

        calls.append((command, env))
        sizes = {"train": 4, "val": 2, "test": 2, "images": 2, "frames": 4, "workers": 1}
        return SimpleNamespace(
            returncode=main([*command[5:], *(f"--{k}={v}" for k, v in sizes.items())])
        )

    monkeypatch.setattr(subprocess, "run", run)
    folder = tmp_path / "demo"
    datamodule = WebVideoData(
        train_videos=f"{folder}/train-*.tar",
        train_images=f"{folder}/images-*.tar",
        val_videos=[f"{folder}/val-*.tar"],
        test_videos=f"{folder}/test-*.tar",
        make_demo=True,
    )
    datamodule.prepare_data()
    datamodule.prepare_data()
    ((command, env),) = calls
    assert command == [sys.executable, "-m", "vmm", "shards", "demo", "--out", str(folder)]
    assert env["PYTHONPATH"]
    assert (folder / "train-000000.tar.index.json").is_file()


def test_the_demo_says_what_it_lacks(tmp_path, monkeypatch):
    datamodule = WebVideoData(train_videos=f"{tmp_path}/demo/train-*.tar", make_demo=True)
    failed = SimpleNamespace(returncode=3)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(ValueError, match="failed with exit code 3"):
        datamodule.prepare_data()
    scattered = WebVideoData(train_videos="a/0.tar", val_videos="b/0.tar", make_demo=True)
    with pytest.raises(ValueError, match=r"in one folder, not in a and b;"):
        scattered.prepare_data()


def test_a_run_goes_on_from_the_data_of_either_class():
    """Lightning keeps the position in the data under the class's name."""
    assert WebVideoData.__qualname__ == datamodules.WebVideoData.__qualname__
    assert type(pickle.loads(pickle.dumps(WebVideoData(batch_size=3)))) is WebVideoData
    assert "make_demo" not in inspect.signature(datamodules.WebVideoData).parameters
