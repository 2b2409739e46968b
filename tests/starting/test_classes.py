"""``vmm init --task classification``: the recipe trains a classifier of these classes."""

import json
import re
from pathlib import Path

import pytest
import yaml

from vmm.cli import main


@pytest.fixture
def init(class_shards, tmp_path, monkeypatch, capfd):
    """Call ``vmm init`` on the shards; gives the recipe and what was said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, status=0):
        given = ["init", str(class_shards), "-o", "own.yaml", "--task", "classification"]
        assert main([*given, *arguments]) == status
        said = capfd.readouterr()
        assert status == 0 or not list(tmp_path.glob("own*"))
        return said.err if status else (yaml.safe_load(Path("own.yaml").read_text()), said.out)

    return call


def test_what_it_writes_is_trained_measured_and_shows_file_names(init, class_shards, capfd):
    recipe, said = init("--from", "nothing", "--steps", "2")
    args, data = (recipe[part]["init_args"] for part in ("model", "data"))
    assert args["num_classes"] == 3 and args["classes"] == "own_classes.txt"
    assert Path("own_classes.txt").read_text() == "class a\nclass b\nclass c\n"
    assert data["content"] == "labels" and "positives" not in data
    assert data["train_videos"] == str(class_shards / "train")
    text = Path("own.yaml").read_text()
    assert "demo/" not in text and "make_demo" not in text and text.count("\n") < 60
    assert "train: 4 clips with a class" in said and "3 classes, their names in own_cl" in said
    assert "training has no clip of class c: what it never sees" in said
    fit, measure, export = (line.split()[1:] for line in said.splitlines() if "  vmm" in line)
    assert main([*fit, "--data.init_args.num_workers", "0"]) == 0
    assert main([*measure, "--num-workers", "0"]) == 0
    page = Path("runs/own/version_0/after/classification.html").read_text()
    wrong = re.findall(r"<td>([abc]/\d+\.mp4)</td>", page)
    result = json.loads(Path("runs/own/version_0/after/classification.json").read_text())
    assert len(wrong) == sum(label != chosen for _, label, chosen in result["predictions"]) >= 1
    assert main(export) == 0
    capfd.readouterr()


def test_a_run_gives_its_video_encoder_and_its_frames(init, demo_run):
    recipe, _ = init("--from", str(demo_run))
    args, data = (recipe[part]["init_args"] for part in ("model", "data"))
    assert args["init_from"] == str(demo_run) and "text_encoder" not in args
    assert args["video_encoder"]["init_args"]["depth"] == 4
    assert data["mean"] == [0.5, 0.5, 0.5] and data["fit"] == "crop"
    assert args["optimizer"]["init_args"]["lr"] == pytest.approx(0.0006)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nobody"], "--from nobody is no folder; a classifier starts from a run"),
        (["--from", "open_clip:ViT-B-32:openai"], "a classifier starts from a run"),
        (["--from", "nothing", "--text", "words"], "a classifier has none; leave it out"),
        (["--from", "nothing", "--class-field", "gone"], "has a text or a number in 'gone'"),
        (["--from", "nothing", "--class-field", "status"], "the clips are of 1 class, and a"),
    ],
)
def test_what_it_cannot_do_is_said_and_nothing_is_written(init, arguments, message):
    assert message in init(*arguments, status=2)


def test_captions_that_are_classes_are_pointed_out(class_shards, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    given = ["init", str(class_shards), "-o", "own.yaml", "--from", "nothing", "--text", "words"]
    assert main(given) == 0
    assert "if they are classes, add --task classification" in capfd.readouterr().out
    assert main([*given[:3], "b.yaml", *given[4:], "--class-field", "x"]) == 2
    assert "--class-field is for classes" in capfd.readouterr().err
