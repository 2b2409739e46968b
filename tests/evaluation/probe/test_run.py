import json
from collections import Counter

import pytest
import torch
import yaml

from eval import probe
from tests.evaluation.probe.conftest import film, samples
from tests.export.runs import write_run
from vmm.evaluation.probe.backbones import Backbone
from vmm.evaluation.probe.options import Options
from vmm.evaluation.probe.results import ProbeResult
from vmm.evaluation.probe.run import evaluate
from vmm.shards.tars import write_shard


@pytest.fixture
def run(films, tmp_path, capsys):
    """Probe a run with random weights; status, what was said, and the result."""

    def run(*arguments, train=films / "train.tar", test=films / "test.tar"):
        folder = tmp_path / "run"
        if not folder.exists():
            write_run(folder, seed=0)
        words = ["--run", folder, "--train-shards", train, "--shards", test, *arguments]
        out = tmp_path / "out"
        end = ["--out", out, "--num-workers", "0", "--device", "cpu"]
        status = probe.main([*map(str, (*words, *end))])
        file = out / "probe.json"
        return status, capsys.readouterr(), json.loads(file.read_text()) if status == 0 else None

    return run


def test_three_probes_beside_random_weights(run, tmp_path, look_at):
    status, said, result = run()
    assert status == 0, said.err
    probes = result["numbers"]["probes"]
    assert [*probes] == ["linear", "knn", "attentive"]
    for found in probes.values():
        assert found["random"] is not None and found["model"]["top_1"] > 60
    assert result["numbers"]["majority"]["value"] == pytest.approx(100 / 3)
    assert result["data"]["train"] == 24 and result["data"]["tested"] == 12
    assert result["classes"] == ["blue", "green", "red"]
    assert {len(row) for row in result["predictions"]} == {5}
    right = sum(row[1] == row[2] for row in result["predictions"])
    assert probes["linear"]["model"]["top_1"] == pytest.approx(100 * right / 12)
    assert result["settings"]["tokens"] == 4 * 4  # frames times regions of 2 x 2
    assert result["chosen"]["random"].keys() == probes.keys()
    assert "scikit-learn" in result["versions"] and "nearest neighbours" in said.out
    assert ProbeResult.read(tmp_path / "out").table() in said.out
    assert not (tmp_path / "out/features").exists()
    look_at(tmp_path / "out/probe.html")


def test_a_probing_that_was_stopped_encodes_no_clip_twice(run, monkeypatch):
    encode, calls = Backbone.encode_videos, []

    def dies(self, video):
        calls.append(len(video))
        if len(calls) == 5:  # in the test clips, after 24 to learn from
            raise KeyboardInterrupt
        return encode(self, video)

    monkeypatch.setattr(Backbone, "encode_videos", dies)
    assert run("--no-control", "--probe", "knn")[0] == 130
    assert run("--no-control", "--probe", "knn")[0] == 0
    assert calls == [8, 8, 8, 8, 4, 4]


def test_a_model_of_one_s_own_reads_colours(toys, films, tmp_path):
    options = Options(
        model=toys.Colours(), train_shards=f"{films}/train.tar", shards=f"{films}/test.tar",
        out=tmp_path,
    )  # fmt: skip
    result = evaluate(options)
    found = result.numbers["probes"]
    assert [*found] == ["linear", "knn"] and found["linear"]["model"]["top_1"] == 100
    assert found["linear"]["gain"] is None
    assert "no-control" in {finding.code for finding in result.findings}


def test_films_that_cannot_be_read_are_wrong_or_dropped(run, tmp_path):
    broken = samples(200, 1, data=b"no film")
    write_shard(tmp_path / "test.tar", [*samples(100, 2), *broken])
    write_shard(tmp_path / "train.tar", [*samples(0, 4), *broken])
    shards = {"train": tmp_path / "train.tar", "test": tmp_path / "test.tar"}
    status, said, strict = run("--probe", "knn", "--no-control", **shards)
    assert status == 0, said.err
    assert "3 of 9 clips cannot be read" in strict["findings"][0]["message"]
    assert strict["data"]["readable"] == 6 and strict["data"]["train_left_out"] == 3
    assert [row[2] is None for row in strict["predictions"]] == [False] * 6 + [True] * 3
    available = run("--probe", "knn", "--no-control", "--coverage", "available", **shards)[2]
    assert available["data"]["tested"] == 6
    top = [r["numbers"]["probes"]["knn"]["model"]["top_1"] for r in (strict, available)]
    assert top[0] == pytest.approx(top[1] * 6 / 9)


def test_clips_that_cannot_be_read_teach_nothing(run, tmp_path):
    broken = samples(0, 1, data=b"no film")
    write_shard(tmp_path / "train.tar", [*samples(10, 2)[1:], *broken])  # one red that can be read
    status, said, _ = run("--probe", "knn", "--no-control", train=tmp_path / "train.tar")
    assert status == 2 and "1 of 3 classes have fewer than two training clips" in said.err
    assert "'red'" in said.err


def test_videos_that_are_in_both_sets_are_named(run, tmp_path):
    write_shard(
        tmp_path / "test.tar", [*samples(100, 1), *samples(0, 8, media="train/{n}.mp4")[:1]]
    )
    _, said, result = run("--probe", "knn", "--no-control", test=tmp_path / "test.tar")
    codes = Counter(finding["code"] for finding in result["findings"])
    assert codes["same-video"] == codes["same-features"] == 1
    assert "1 of 4 test clips" in said.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s[:1] + s[4:], "1 of 3 classes have fewer than two training clips"),
        (lambda s: s[4:], "has no training clip, e.g. 'red'"),
        (lambda s: [[m for m in one if ".mp4" in m[0]] for one in s], "with --class-field"),
    ],
)
def test_training_clips_that_teach_nothing_are_one_sentence(run, tmp_path, change, said):
    write_shard(tmp_path / "train.tar", change(samples(0, 4, data=b"never decoded")))
    status, told, _ = run(train=tmp_path / "train.tar")
    assert status == 2 and said in told.err and "Traceback" not in told.err


def test_features_that_are_no_numbers_are_one_sentence(run, monkeypatch):
    encode = Backbone.encode_videos

    def broken(self, video):
        found = encode(self, video)
        found.projected[0] = torch.nan
        return found

    monkeypatch.setattr(Backbone, "encode_videos", broken)
    status, told, _ = run()
    assert status == 2 and "3 of 24 training clips hold NaN or infinity" in told.err


def test_a_run_of_stage_1_is_probed_and_said_to_be_one(films, tmp_path):
    folder = tmp_path / "run"
    write_run(folder, seed=0)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    task = config["model"]
    task["class_path"] = "vmm.tasks.masked_pretrain.MaskedPretrainTask"
    task["init_args"] = {"video_encoder": task["init_args"]["video_encoder"], "teacher": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = folder / "checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)
    kept = {k: v for k, v in state["state_dict"].items() if k.startswith("model.video_encoder.")}
    torch.save({"state_dict": kept | {"model.align_head.x": torch.ones(1)}}, path)
    options = Options(
        run=folder, train_shards=f"{films}/train.tar", shards=f"{films}/test.tar",
        probes=["knn"], control=False,
    )  # fmt: skip
    result = evaluate(options)
    assert "stage-1" in {finding.code for finding in result.findings}
    assert (folder / "probe_label/probe.html").is_file()


def test_the_place_of_the_classes_is_that_of_the_run(tmp_path, films):
    folder = tmp_path / "run"
    write_run(folder, seed=0, label_field="kind.colour")
    for name, start in (("train", 0), ("test", 100)):
        shard = [
            [(f"{start + i}.mp4", film("red", start + i)),
             (f"{start + i}.json", json.dumps({"kind": {"colour": i % 2}}).encode())]
            for i in range(8)
        ]  # fmt: skip
        write_shard(tmp_path / f"{name}.tar", shard)
    options = Options(
        run=folder, train_shards=f"{tmp_path}/train.tar", shards=f"{tmp_path}/test.tar",
        probes=["knn"], control=False,
    )  # fmt: skip
    assert evaluate(options).classes == ["class 0", "class 1"]
    assert (folder / "probe_colour/probe.json").is_file()
