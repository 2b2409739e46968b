"""``vmm init``: the recipe that it writes is short, is of these shards alone, and trains."""

import json
from pathlib import Path

import pytest
import yaml

from tests.starting.conftest import SIZES
from vmm.cli import main
from vmm.starting.command import choose_length


@pytest.fixture
def init(own_shards, tmp_path, monkeypatch, capfd):
    """Call ``vmm init`` on the shards; gives the recipe and what was said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, status=0):
        given = ["init", str(own_shards), "-o", "own.yaml", *arguments]
        assert main(given) == status
        said = capfd.readouterr()
        if status:
            assert not (tmp_path / "own.yaml").exists()
            return None, said.err
        return yaml.safe_load((tmp_path / "own.yaml").read_text()), said.out

    return call


def test_the_recipe_is_of_these_shards_alone(init, own_shards):
    recipe, said = init("--from", "nothing", "--text", "words")
    data = recipe["data"]["init_args"]
    assert recipe["data"]["class_path"] == "vmm.data.datamodules.WebVideoData"
    for name, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert data[f"{name}_videos"] == str(own_shards / part)
    text = Path("own.yaml").read_text()
    assert "demo" not in text and "images" not in text and text.count("\n") < 60
    assert data["batch_size"] == 3  # of 7 clips; the eighth has no caption
    assert "train: 7 clips with captions, 1 more without caption" in said
    words = Path("own_words/vocab.txt").read_text().split("\n")
    assert {"clip", "colour", "quickly", "0", "##q"} <= set(words)
    assert "vmm fit -c own.yaml" in said and "--run runs/own/version_0" in said
    assert said.rstrip().endswith('vmm search runs/own/version_0/index "WHAT TO FIND"')


def test_what_it_writes_can_be_trained_measured_and_compared(
    init, small_clip, own_shards, capfd, caplog
):
    recipe, said = init("--from", small_clip, "--steps", "2")
    args = recipe["model"]["init_args"]
    assert args["freeze"] == ["video_encoder.visual", "text_encoder", "text_proj"]
    assert args["proj_dim"] == 24 and args["video_encoder"]["init_args"]["image_size"] == 32
    assert recipe["data"]["init_args"]["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert recipe["trainer"]["max_epochs"] * recipe["data"]["init_args"]["steps_per_epoch"] == 2
    assert "7 clips are few" in said
    before = next(line for line in said.splitlines() if "--name before" in line).split()[1:]
    assert main([*before, "--num-workers", "0"]) == 0
    assert main(["fit", "-c", "own.yaml", "--data.init_args.num_workers", "0"]) == 0
    told = [line for line in caplog.messages if line.startswith("next:")]
    printed = [line.strip() for line in said.splitlines() if line.startswith("  vmm")]
    own = [line for line in printed if "version_0" in line and "eval compare" not in line]
    assert [line.partition(": vmm ")[2] for line in told] == [x.removeprefix("vmm ") for x in own]
    after = next(line for line in said.splitlines() if "--name after" in line).split()[1:]
    assert main([*after, "--num-workers", "0"]) == 0
    assert main(["eval", "compare", "runs/own/before", "runs/own/version_0/after"]) == 0
    assert "before" in capfd.readouterr().out
    found = json.loads(Path("runs/own/version_0/after/retrieval.json").read_text())
    assert len(found["queries"]["video"]) == SIZES["test"]


def test_weights_that_are_not_here_are_told(init, small_clip, monkeypatch, tmp_path):
    import open_clip
    from huggingface_hub import constants

    asked = []

    def gone(*_):
        asked.append(constants.HF_HUB_OFFLINE)
        raise FileNotFoundError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for network, told in (
        (True, "which fetches them once"),
        (False, "there is no network: fetch them elsewhere, and put the file in the place of op"),
    ):
        monkeypatch.setattr("vmm.hub.has_network", lambda network=network: network)
        assert "needs them" not in init("--from", small_clip)[1]
        (tmp_path / "own.yaml").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(open_clip, "download_pretrained", gone)
            said = init("--from", small_clip)[1]
        (line,) = (line for line in said.splitlines() if "`vmm fit` needs them" in line)
        assert told in line and "ViT-B-32-quickgelu:openai are not here" in line
        (tmp_path / "own.yaml").unlink()
    assert asked == [True, True] and not constants.HF_HUB_OFFLINE  # nothing was fetched
    assert "needs them" not in init("--from", f"{small_clip[:-6]}{tmp_path}/clip.pt")[1]


def test_a_run_whose_words_are_others_gives_its_video_encoder_alone(init, demo_run):
    recipe, said = init("--from", str(demo_run), "--text", "words")
    args = recipe["model"]["init_args"]
    assert args["init_from"] == str(demo_run) and args["init_parts"] == "video_encoder"
    assert args["video_encoder"]["init_args"]["depth"] == 4
    assert args["text_encoder"]["init_args"]["name"] == "own_words"
    assert args["optimizer"]["init_args"]["lr"] == pytest.approx(0.2 * 0.003)
    clip = recipe["data"]["init_args"]
    assert clip["mean"] == [0.5, 0.5, 0.5] and clip["fit"] == "crop" and "num_frames" not in clip
    assert "of the words, so another one begins anew" in said
    assert f"--run {demo_run}" in said


def test_a_run_that_knows_the_words_keeps_its_text_encoder(demo_run, demo_shards, tmp_path, capfd):
    shards = {part: f"{demo_shards.folder}/{part}-*.tar" for part in ("train", "val")}
    out = tmp_path / "more.yaml"
    given = ["init", shards["train"], "--validation", shards["val"], "-o", str(out)]
    assert main([*given, "--from", str(demo_run)]) == 0, capfd.readouterr().err
    recipe = yaml.safe_load(out.read_text())
    args = recipe["model"]["init_args"]
    assert args["text_encoder"]["init_args"]["name"] == str(demo_run / "text_encoder")
    assert "init_parts" not in args and recipe["data"]["init_args"]["batch_size"] == 24
    assert "test_videos" not in recipe["data"]["init_args"]


def test_minilm_is_the_text_encoder_where_nothing_else_is_said(init, demo_run):
    recipe, said = init("--from", "nothing")
    text = recipe["model"]["init_args"]["text_encoder"]["init_args"]
    assert text["name"] == "sentence-transformers/all-MiniLM-L6-v2" and text["pretrained"]
    assert "without a network: --text words" in said
    assert recipe["model"]["init_args"]["text_lr_ratio"] == 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nobody"], "--from nobody is no folder; give a run of `vmm fit`"),
        (["--from", "open_clip:ViT-B-32"], "open_clip:ViT-B-32 names no weights; add a tag"),
        (["--from", "open_clip:ViT-B-32:x", "--text", "words"], "a CLIP has its own"),
        (["--from", "open_clip:ViT-B-32:x"], "'x' is neither a file nor a tag of ViT-B-32 (tags:"),
        (["--from", "open_clip:ViT-B-32:x.pt"], "there is no file x.pt; name another, or a tag"),
        (["--from", "."], "is not a run directory of `vmm fit`"),
        (["--from", "nothing", "--validation", "gone"], "'gone' matches no file"),
        (["--from", "nothing", "-o", "own.txt"], "let it end in .yaml"),
        (["--from", "nothing", "-o", "gone/own.yaml"], "there is no folder gone"),
    ],
)
def test_what_it_cannot_start_from_is_said_and_nothing_is_written(init, arguments, message):
    assert message in init(*arguments, status=2)[1]


def test_validation_on_what_is_trained_on_is_told(init, own_shards, caplog):
    init("--from", "nothing", "--validation", str(own_shards / "train"))
    (shard,) = (own_shards / "train").glob("*.tar")
    assert f"the training shards and --validation share 1 shard: {shard};" in caplog.text


def test_shards_that_will_not_do(init, own_shards, tmp_path, capfd):
    def told(*arguments):
        assert main(["init", *map(str, arguments), "-o", "own.yaml", "--from", "nothing"]) == 2
        return capfd.readouterr().err

    assert "there are no validation shards beside" in told(own_shards / "train")
    assert "matches no file" in told(own_shards / "nowhere")
    (tmp_path / "captions.csv").touch()
    assert "captions.csv is no shard; make some of it first" in told("captions.csv")
    (tmp_path / "empty").mkdir()
    assert "has neither shards nor a folder train" in told("empty")
    init("--from", "nothing")
    assert "own.yaml exists; remove it" in told(own_shards)


@pytest.mark.parametrize(
    ("clips", "batch", "steps"),
    [(2, 2, 104), (5, 2, 104), (24, 12, 104), (40, 20, 104), (200, 64, 104), (10_000, 64, 2000)],
)
def test_batches_and_steps_suit_the_number_of_clips(clips, batch, steps):
    length = choose_length(clips, 64)
    assert (length.batch_size, length.steps) == (batch, steps)
    assert length.batch_size <= clips


def test_a_large_set_is_seen_once_and_large_frames_make_small_batches():
    length = choose_length(1_000_000, 224)
    assert length.batch_size == 32 and abs(length.steps - 31250) < 8
    with pytest.raises(ValueError, match="there is 1 clip to train on"):
        choose_length(1, 64)
