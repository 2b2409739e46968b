import json

import pytest
import yaml

from tests.export.runs import write_run
from vmm.cli import main
from vmm.summary import summarize

STAGE1 = ("-c", "recipes/stage1_mvp.yaml")
STAGE2 = ("-c", "recipes/stage2_vtt.yaml")
AWAY = "--data.init_args.train_videos=nowhere-*.tar"


@pytest.fixture
def in_root(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.mark.slow
def test_the_published_stage_1(in_root):
    """VideoMamba-M against CLIP-ViT-B/16: neither weights nor data are here."""
    found = summarize([*STAGE1, "-c", "recipes/overlays/videomamba_m_k400.yaml", AWAY])
    assert found["task"] == "MaskedPretrainTask"
    parameters = found["parameters"]
    assert parameters["total"] - parameters["parts"]["video_encoder.pool_norm"] == 73_941_504
    assert parameters["teacher"] == 86_192_640
    mixer, norms = 2_283_840, 576 + 2 * 576  # nothing reads what comes after the tap
    assert parameters["trained"] == parameters["total"] - mixer - norms
    parts = parameters["parts"]
    assert parts["video_encoder"] + parts["align_head"] == parameters["total"]
    inside = [size for name, size in parts.items() if name.startswith("video_encoder.")]
    assert sum(inside) == parts["video_encoder"]
    video, image = found["tokens"]["video"], found["tokens"]["image"]
    assert (video["all"], video["visible"]) == (1569, 321)
    assert (image["all"], image["visible"]) == (197, 99)
    costs = found["multiply_adds_per_view"]
    assert costs["video_encoder"]["as_published"] == pytest.approx(100.8e9, rel=0.005)
    assert costs["video_encoder"]["all"] == pytest.approx(129.9e9, rel=0.005)
    # 12 layers of 12 W^2 for each of 197 tokens, their attention, patches, the projection
    frame = 12 * (12 * 768**2 * 197 + 2 * 768 * 197**2) + 196 * 768 * 768 + 197 * 768 * 512
    keys = 197 * 768**2 + 768**2 + 197 * 768  # the attention that masks ask for, computed beside
    assert costs["teacher"]["all"] == 8 * (frame + keys)
    assert found["epoch"]["samples_per_step"] == {"video": 64}
    assert "nowhere-*.tar" in found["epoch"]["unknown"]


def test_steps_are_those_of_training(in_root, demo_shards):
    options = [f"--data.init_args.{name}" for name in ("batch_size=8", "image_batch_size=4")]
    options += ["--data.init_args.steps_per_epoch=null", "--trainer.devices=2"]
    # the GPUs of the recipe need not be here
    options += ["--trainer.accumulate_grad_batches=2", "--trainer.accelerator=gpu"]
    options += ["--data.init_args.aug_repeats=2"]
    found = summarize([*STAGE2, *demo_shards.options(), *options])
    assert found["activations"]["samples_at_once"] == 2 * 8  # one process sees each twice
    epoch = found["epoch"]
    assert epoch["samples_per_step"] == {"video": 16, "image": 8}
    assert (epoch["batches"], epoch["steps"]) == (48 // 16 + 16 // 8, 3)
    assert epoch["samples"] == {"video": 48, "image": 16}


def test_activations_grow_with_what_is_at_once(in_root):
    def kept(*options):
        return summarize([*STAGE2, AWAY, *options])["activations"]

    plain = kept("--data.init_args.batch_size=32")
    assert plain["bytes_per_sample"].keys() == {"video_encoder", "text_encoder"}
    each = sum(plain["bytes_per_sample"].values())
    assert plain["bytes"] == plain["bytes_of_any_batch"] + 32 * each
    mask = "--model.init_args.video_mask"
    changed = ["--model.init_args.micro_batch=4", "--trainer.precision=bf16-mixed"]
    less = kept(*changed, f"{mask}.kind=tube", f"{mask}.ratio=0.75")
    assert less["samples_at_once"] == 4
    share = less["bytes_per_sample"]["video_encoder"] / plain["bytes_per_sample"]["video_encoder"]
    assert 0.5 * 17 / 65 < share < 0.8 * 17 / 65  # a quarter is visible, much of it in 16 bits


@pytest.mark.parametrize(
    ("recipe", "part", "head"),
    [
        ("stage1_mvp", "video_encoder", "alignment_head.AlignmentHead"),
        ("answer_qa", "text_encoder", "answer.AnswerDecoder"),
    ],
)
def test_what_heads_keep_is_counted(in_root, monkeypatch, recipe, part, head):
    def kept():
        words = ["-c", f"recipes/{recipe}.yaml", AWAY]
        return summarize(words)["activations"]["bytes_per_sample"][part]

    whole = kept()
    monkeypatch.setattr(f"vmm.models.{head}.forward", lambda self, states, *others: states)
    assert 0 < kept() < 0.99 * whole


def test_other_tasks_and_encoders(in_root):
    answers = summarize(["-c", "recipes/answer_qa.yaml", AWAY])
    assert answers["parameters"]["parts"]["answer_decoder"] > 0
    guided = summarize(["-c", "recipes/self_distillation.yaml", AWAY])
    assert guided["parameters"]["parts"]["distill_head"] == 128 + 64 * 129
    small = guided["multiply_adds_per_view"]["teacher"]["all"]
    assert 0 < small < guided["multiply_adds_per_view"]["video_encoder"]["all"]
    assert 0 < guided["parameters"]["teacher"] < guided["parameters"]["total"]
    frames = summarize(["-c", "recipes/demo/frame_only.yaml", AWAY])
    costs = frames["multiply_adds_per_view"]["video_encoder"]
    assert costs["as_published"] is None and costs["all"] > 0


def test_a_run_and_an_import_are_described(tmp_path, in_root, capsys):
    model = write_run(tmp_path / "run", seed=0)
    assert main(["summary", str(tmp_path / "run"), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("the model is described, which takes a while")
    found = json.loads(said.out)
    size = sum(p.numel() for p in model.parameters())
    assert found["parameters"]["total"] == size and found["encoder"]["embed_dim"] == 32
    imported = tmp_path / "imported"
    imported.mkdir()
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (imported / "config.yaml").write_text(yaml.safe_dump(config))
    (imported / "model.safetensors").touch()  # which is not read
    assert summarize([str(imported)])["parameters"]["total"] == size
    config["model"] = {
        "class_path": "vmm.tasks.masked_pretrain.MaskedPretrainTask",
        "init_args": {"video_encoder": config["model"]["init_args"]["video_encoder"]},
    }
    (imported / "config.yaml").write_text(yaml.safe_dump(config))
    assert summarize([str(imported)])["encoder"] == found["encoder"]


@pytest.mark.parametrize("where", ["model", "callback"])
def test_a_stranger_s_run_imports_nothing(where, tmp_path, in_root, monkeypatch, capsys):
    write_run(tmp_path / "run", seed=0)
    module = tmp_path / "stranger.py"
    module.write_text("raise SystemExit('code of the run was run')")
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    if where == "model":
        config["model"]["class_path"] = "stranger.Task"
    else:
        config["trainer"] = {"callbacks": [{"class_path": "stranger.Callback"}]}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["summary", str(tmp_path / "run")]) == 2
    assert "names 'stranger." in capsys.readouterr().err


def test_it_is_said_in_lines(in_root, monkeypatch, capsys, tmp_path):
    def nothing(*args, **kwargs):
        raise AssertionError("weights were looked for")

    monkeypatch.setattr("vmm.models.clip_tower.read_state_dict", nothing)
    monkeypatch.setattr("vmm.models.clip_vit.ClipTeacher.load", nothing)
    options = ["--model.init_args.init_from=nowhere", "--model.init_args.teacher.init_args"]
    options[1] += ".pretrained=nowhere.pt"
    save = f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}"
    assert main(["summary", *STAGE1, AWAY, *options, save]) == 0
    said = capsys.readouterr().out
    assert "MaskedPretrainTask: VideoMamba of width 128, 4 frames of 64 pixels" in said
    assert "tokens of a clip: 65, 17 visible in training" in said
    assert "as published" in said and "activations of a step, 64 at once" in said
    assert not (tmp_path / "runs").exists()
