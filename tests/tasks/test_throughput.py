import csv

import pytest
import yaml

from vmm.tasks.throughput import Throughput
from vmm.trainer_cli import run


def fit(folder, shards, *options):
    words = ["fit", "-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml"]
    words += [*shards, *options, f"--trainer.logger.init_args.save_dir={folder}"]
    done = run([*words, "--trainer.logger.init_args.version=run"])
    with (folder / "stage2_vtt/run/metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return done, [row for row in rows if "speed/step_ms" in row]


def test_a_run_says_how_fast_it_is_and_what_it_used(root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    corpora = tmp_path / "corpora.yaml"
    shards = str(demo_shards.folder)
    two = {
        "a": {"shards": f"{shards}/train-*.tar", "weight": 2},
        "b": {"shards": f"{shards}/val-*.tar"},
    }
    corpora.write_text(yaml.safe_dump({"data": {"init_args": {"train_videos": two}}}))
    options = ["-c", str(corpora), *demo_shards.options()[1:], "--throughput.peak_tflops=0.5"]
    done, rows = fit(
        tmp_path, options, "--data.init_args.steps_per_epoch=6", "--trainer.log_every_n_steps=2"
    )
    assert [row["step"] for row in rows] == [1, 3, 5]
    taken = [(row["samples/video"], row["samples/image"]) for row in rows]
    assert [sum(pair) for pair in taken] == [8, 16, 24]
    assert all(
        row["samples/video"] == row["samples/video/a"] + row["samples/video/b"] for row in rows
    )
    assert rows[-1]["samples/video/a"] > 3 * rows[-1]["samples/video/b"]
    for row in rows:
        assert row["speed/clips_per_s"] == pytest.approx(4000 / row["speed/step_ms"])
        assert 4 < row["speed/tokens_per_s"] / row["speed/clips_per_s"] < 32  # words of a caption
        assert 0 < row["speed/waiting"] < 1 and 0.1 < row["memory/rss_gib"] < 30
        assert 0 < row["speed/utilisation"] < 1
    assert rows[0]["speed/eta_h"] > 0 == rows[-1]["speed/eta_h"]
    assert done.trainer.callback_metrics["train/grad_norm"] > 0


def test_operations_are_counted_once_for_each_kind_of_batch(
    root, demo_shards, tmp_path, monkeypatch
):
    monkeypatch.chdir(root)
    done, _ = fit(tmp_path, demo_shards.options(), "--throughput.peak_tflops=1",
                  "--data.init_args.steps_per_epoch=8")  # fmt: skip
    (callback,) = (c for c in done.trainer.callbacks if isinstance(c, Throughput))
    clips, stills = callback._flops["video"], callback._flops["image"]
    assert 1.5 * stills < clips < 4 * stills  # four frames against one, and the same captions


def test_a_peak_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"peak_tflops is 0\.0"):
        Throughput(0.0)
