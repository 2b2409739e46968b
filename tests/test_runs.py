import inspect
import json
import os
import pickle
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from vmm.data.transforms import ClipSettings
from vmm.models.answer import AnswerModel
from vmm.models.classifier import VideoClassifier
from vmm.models.masked_student import MaskedStudent
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.models.weight_files import read_state_dict
from vmm.runs import (
    TASKS,
    find_checkpoint,
    load_model,
    load_run,
    read_config,
    trains,
)
from vmm.tasks.base import TrainingTask

ROOT = Path(__file__).parent.parent
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle", "moves"]
BERT = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "hidden_act": "gelu",
}
VIDEO = {"embed_dim": 32, "depth": 1, "num_frames": 4, "image_size": 32, "patch_size": 16}


@pytest.fixture
def run(tmp_path):
    """A run directory as `vmm fit` leaves it, and the model whose weights it holds."""
    text = tmp_path / "bert"
    text.mkdir()
    (text / "config.json").write_text(json.dumps(BERT))
    (text / "vocab.txt").write_text("\n".join(WORDS))
    text_args = {"name": str(text), "fusion_layer": 1, "pretrained": False, "max_words": 8}
    torch.manual_seed(0)
    model = VideoTextModel(VideoMamba(**VIDEO), BertTextEncoder(32, **text_args), 8, 0.1)
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "vmm.tasks.video_text.VideoTextTask",
            "init_args": {
                "video_encoder": {
                    "class_path": "vmm.models.videomamba.VideoMamba",
                    "init_args": dict(VIDEO),
                },
                "text_encoder": {
                    "class_path": "vmm.models.text_encoder.BertTextEncoder",
                    "init_args": text_args,
                },
                "proj_dim": 8,
                "temperature": 0.1,
                "warmup_steps": 3,
            },
        },
        "data": {
            "class_path": "vmm.data.datamodules.WebVideoData",
            "init_args": {"num_frames": None},
        },
    }
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    write_config(folder, config)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state |= {"model.align_head.weight": torch.zeros(2), "teacher.visual.proj": torch.zeros(2)}
    state["model.logit_bias"] = torch.tensor([-9.0])
    torch.save({"state_dict": state, "callbacks": {}}, folder / "checkpoints" / "last.ckpt")
    return folder, config, model.eval()


def write_config(folder, config):
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_rebuilds_the_model_bit_for_bit(run):
    folder, config, model = run
    loaded = load_run(folder, "last")
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        want, got = model.encode_video(video), loaded.model.encode_video(video)
    assert torch.equal(got.pooled, want.pooled)
    assert loaded.model.temperature == model.temperature
    assert not loaded.model.training
    assert loaded.clip == ClipSettings(num_frames=4, image_size=32)
    assert loaded.config == config
    assert len(loaded.sha256) == 64


def test_the_video_encoder_of_any_run_is_loaded_alone(run):
    folder, config, model = run
    task = config["model"]
    task["class_path"] = "vmm.tasks.masked_pretrain.MaskedPretrainTask"  # whose model is not built
    task["init_args"] = {"video_encoder": task["init_args"]["video_encoder"], "teacher": {}}
    write_config(folder, config)
    loaded = load_model(folder, VideoEncoder, "last")
    assert isinstance(loaded.model, VideoMamba) and not loaded.model.training
    for key, value in model.video_encoder.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value)
    assert loaded.clip == ClipSettings(num_frames=4, image_size=32)
    del task["init_args"]["video_encoder"]
    write_config(folder, config)
    with pytest.raises(ValueError, match=r"config.yaml: .* no class_path for its VideoEncoder"):
        load_model(folder, VideoEncoder, "last")


def test_the_data_settings_of_the_run_win_over_the_encoder(run):
    folder, config, _ = run
    config["data"]["init_args"] |= {"num_frames": 8, "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]}
    write_config(folder, config)
    assert load_run(folder, "last").clip == ClipSettings(8, 32, (0.5, 0.5, 0.5), (1, 1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.pop("video_encoder"),
            r"no model\.init_args\.video_encoder; only",
        ),
        (lambda m: m["video_encoder"].pop("class_path"), "no class_path"),
        (lambda m: m["video_encoder"].update(class_path="os.system"), "no VideoEncoder of vmm"),
        (
            lambda m: m["video_encoder"].update(class_path="vmm.models.layers.PatchEmbed"),
            "no Video",
        ),
        (lambda m: m["video_encoder"].update(class_path="vmm.models.gone.Gone"), "does not have"),
        (
            lambda m: m["video_encoder"].update(class_path="vmm.models.video_encoder.VideoEncoder"),
            "no VideoEncoder of vmm",
        ),
        (
            lambda m: m["text_encoder"].update(
                class_path="vmm.models.text_interface.FusionEncoder"
            ),
            "no TextEncoder of vmm",
        ),
        (lambda m: m["video_encoder"]["init_args"].update(dept=2), "'dept'"),
        (lambda m: m["video_encoder"]["init_args"].update(depth=2), "does not fit"),
        (lambda m: m.update(proj_dim=9), "does not fit"),
    ],
)
def test_a_wrong_recipe_is_refused(run, change, message):
    folder, config, _ = run
    change(config["model"]["init_args"])
    write_config(folder, config)
    with pytest.raises(ValueError, match=message):
        load_run(folder, "last")


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("video_encoder", "embed_dim", "32", "embed_dim of VideoMamba is '32', it must be int"),
        ("video_encoder", "depth", 10**20, "depth of VideoMamba is 1000"),
        ("video_encoder", "depth", 10**6, "depth 1000000 must be 0 to 1000 blocks"),
        ("video_encoder", "d_conv", 0, "d_conv 0 must be at least 1"),
        ("video_encoder", "patch_size", -16, "patch_size -16 must be at least 1"),
        ("video_encoder", "drop_path_rate", [0.1], r"drop_path_rate of VideoMamba is \[0.1\]"),
        ("text_encoder", "max_words", True, "max_words of BertTextEncoder is True"),
        ("text_encoder", "max_words", 2, "max_words 2 leaves no room"),
        ("text_encoder", "architecture", {"hidden_size": None}, "hidden_size of BertArch"),
        ("text_encoder", "architecture", {"num_hidden_layers": 10**6}, "must be 1 to 1000"),
        (None, "proj_dim", -8, "VideoTextModel cannot be made with these settings"),
        (None, "temperature", "warm", "temperature of VideoTextModel is 'warm'"),
        ("data", "num_frames", 0, "num_frames 0 and image_size 32 must be positive"),
        ("data", "image_size", 0, "num_frames 4 and image_size 0 must be positive"),
        ("data", "mean", [0.5, 0.5], r"mean of ClipSettings is \(0.5, 0.5\)"),
        ("data", "std", [0.5, 0.5, "x"], "std of ClipSettings"),
        ("data", "fit", "stretch", "fit of ClipSettings is 'stretch'"),
    ],
)
def test_settings_of_another_type_or_size_are_named_with_their_file(
    run, part, name, value, message
):
    folder, config, _ = run
    node = config["model"]["init_args"]
    node = {None: {"init_args": node}, "data": config["data"], **node}[part]
    node["init_args"][name] = value
    write_config(folder, config)
    with pytest.raises(ValueError, match=message) as caught:
        load_run(folder, "last")
    assert str(folder / "config.yaml") in str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(run, value):
    folder, _, _ = run
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path)
    content["state_dict"]["model.vision_proj.weight"][2, 3] = value
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"last\.ckpt .*vision_proj\.weight holds 1 NaN or infinite numbers of 256"
    ):
        load_run(folder, "last")


def test_weights_of_whole_numbers_are_refused_by_name(run):
    folder, _, _ = run
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path)
    content["state_dict"]["model.vision_proj.bias"] = torch.ones(8, dtype=torch.int64)
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"vision_proj\.bias is of type torch\.int64, wanted"):
        load_run(folder, "last")


def test_a_class_path_imports_nothing_outside_vmm(run, tmp_path, monkeypatch):
    folder, config, _ = run
    (tmp_path / "intruder.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("intruder.Encoder", "vmm.models..intruder.Encoder", "intruder"):
        config["model"]["init_args"]["video_encoder"]["class_path"] = name
        write_config(folder, config)
        with pytest.raises(ValueError, match="recipe names"):
            load_run(folder, "last")


def test_a_missing_or_surplus_weight_is_named(run):
    folder, _, _ = run
    path = folder / "checkpoints" / "last.ckpt"
    state = read_state_dict(path)
    torch.save({"state_dict": {k: v for k, v in state.items() if "itm_head" not in k}}, path)
    with pytest.raises(ValueError, match=r"itm_head\.\w+ is missing"):
        load_run(folder, "last")
    torch.save({"state_dict": state | {"model.surprise": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match="surprise is not known"):
        load_run(folder, "last")


def test_code_in_a_checkpoint_is_not_run(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    folder, _, _ = run
    path = folder / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": {"model.x": Evil()}}, path)
    with pytest.raises(ValueError, match=r"run code of .*mkdir"):
        load_run(folder, "last")
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"run code of .*mkdir"):
        load_run(folder, "last")
    assert not (tmp_path / "owned").exists()


def test_damaged_files_are_named(run):
    folder, _, _ = run
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        load_run(folder, "last")
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_run(folder, "last")
    (folder / "config.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_run(folder, "last")
    (folder / "config.yaml").write_text("a: &a {b: *a}")
    with pytest.raises(ValueError, match=r"config\.yaml is a part of itself"):
        load_run(folder, "last")
    with pytest.raises(ValueError, match=r"name one of .*/run$"):
        load_run(folder.parent, "last")


def checkpoint(folder, name, age, **content):
    path = folder / "checkpoints" / name
    torch.save({"state_dict": {}} | content, path)
    os.utime(path, (1000 - age, 1000 - age))
    return path


def test_best_and_last(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="no checkpoint in"):
        find_checkpoint(tmp_path)
    for twin in ("._last.ckpt", "._epoch=1-step=20.ckpt", "._a.ckpt"):  # copied by a Mac
        (tmp_path / "checkpoints" / twin).write_bytes(b"\0\5\x16\7Mac")
    with pytest.raises(ValueError, match="no checkpoint in"):
        find_checkpoint(tmp_path)
    last = checkpoint(tmp_path, "last.ckpt", age=5)
    assert find_checkpoint(tmp_path) == last
    assert "has no best checkpoint" in caplog.text
    best = checkpoint(tmp_path, "epoch=1-step=20.ckpt", age=9)
    assert find_checkpoint(tmp_path) == best
    assert find_checkpoint(tmp_path, "last") == last
    newer = checkpoint(tmp_path, "last-v1.ckpt", age=1)
    assert find_checkpoint(tmp_path, "last") == newer
    assert find_checkpoint(tmp_path, best.name) == best
    assert find_checkpoint(tmp_path, str(best)) == best
    with pytest.raises(ValueError, match=r"no checkpoint file x\.ckpt"):
        find_checkpoint(tmp_path, "x.ckpt")


def test_the_best_of_several_is_what_the_callback_says(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    checkpoint(tmp_path, "epoch=1.ckpt", age=9)
    best = checkpoint(tmp_path, "epoch=2.ckpt", age=8)
    checkpoint(tmp_path, "last.ckpt", age=1, callbacks={})
    with pytest.raises(ValueError, match="cannot tell which"):
        find_checkpoint(tmp_path)
    state = {"monitor": "val/t2v_recall_1", "best_model_path": "/elsewhere/epoch=2.ckpt"}
    checkpoint(tmp_path, "last.ckpt", age=1, callbacks={"ModelCheckpoint{}": state, "Lr": {}})
    assert find_checkpoint(tmp_path) == best


@pytest.mark.parametrize(
    ("inside", "remedy"),
    [
        ("zero_to_fp32.py", "zero_to_fp32.py"),
        ("checkpoint/mp_rank_00_model_states.pt", "is empty"),
        (".metadata", "missing or damaged"),
        ("something.bin", "name the weight file in it"),
    ],
)
def test_a_sharded_checkpoint_folder_says_what_to_do(tmp_path, inside, remedy):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / inside).touch()
    with pytest.raises(ValueError, match=remedy):
        read_state_dict(tmp_path)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_run_whose_checkpoint_is_a_folder(run):
    import torch.distributed.checkpoint as dcp

    folder, _, model = run
    last = folder / "checkpoints" / "last.ckpt"
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    last.unlink()
    dcp.save({"state_dict": state}, checkpoint_id=last, no_dist=True)
    loaded = load_run(folder, "last")
    assert all(torch.equal(loaded.model.state_dict()[k], v) for k, v in model.state_dict().items())
    assert len(loaded.sha256) == 64


def with_weights(folder, model):
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")


def test_a_run_that_answers_questions(run):
    folder, config, _ = run
    with pytest.raises(ValueError, match="not trained to answer"):
        load_model(folder, AnswerModel, "last")
    config["model"]["class_path"] = "vmm.tasks.answer.AnswerTask"
    args = config["model"]["init_args"]
    args["answers"] = "answers.json"
    text = BertTextEncoder(32, **args["text_encoder"]["init_args"])
    model = AnswerModel(VideoMamba(**VIDEO), text).eval()
    with_weights(folder, model)
    write_config(folder, config)
    loaded = load_model(folder, AnswerModel, "last")
    assert loaded.clip == ClipSettings(num_frames=4, image_size=32)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key
    with pytest.raises(ValueError, match="no joint space"):
        load_run(folder, "last")


def test_a_classifier(run):
    folder, config, _ = run
    with pytest.raises(ValueError, match="no classifier"):
        load_model(folder, VideoClassifier, "last")
    node = {"class_path": "vmm.models.classifier.VideoClassifier"}
    encoder = config["model"]["init_args"]["video_encoder"]
    encoder["init_args"] |= {"pooling": "cls", "pool_norm": False}
    config["model"] = node | {"init_args": {"video_encoder": encoder, "num_classes": 5}}
    write_config(folder, config)
    model = VideoClassifier(VideoMamba(**encoder["init_args"]), 5).eval()
    with_weights(folder, model)
    loaded = load_model(folder, VideoClassifier, "last").model
    video = torch.randn(1, 4, 3, 32, 32)
    assert trains(config, VideoClassifier) and torch.equal(loaded(video), model(video))


def test_a_run_of_another_stage_says_what_it_is(run):
    folder, config, _ = run
    config["model"]["class_path"] = "vmm.tasks.masked_pretrain.MaskedPretrainTask"
    write_config(folder, config)
    with pytest.raises(ValueError, match="one of stage 1, which knows no text; only runs of stag"):
        load_run(folder, "last")
    with pytest.raises(ValueError, match="stage 1 serves as init_from of stage 2"):
        load_model(folder, MaskedStudent, "last")


def test_a_task_of_somebody_else_is_known_by_its_arguments(run):
    folder, config, model = run
    node = config["model"]
    node["class_path"] = "mine.MyTask"
    node["init_args"]["teacher"] = None  # as stage 1 has one
    for class_path in ("mine.MyTask", None, ["no name"]):
        node["class_path"] = class_path
        write_config(folder, config)
        loaded = load_run(folder, "last").model.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
    node["init_args"]["answers"] = "answers.json"
    write_config(folder, config)
    with pytest.raises(ValueError, match="no joint space"):
        load_run(folder, "last")


def test_the_table_names_every_task_and_its_arguments():
    for path, kind in TASKS.items():
        module, _, name = path.rpartition(".")
        cls = getattr(import_module(module), name)
        assert set(kind.needs) <= set(inspect.signature(cls).parameters), path
    for file in (ROOT / "vmm/tasks").glob("*.py"):
        import_module(f"vmm.tasks.{file.stem}")
    tasks = {f"{cls.__module__}.{cls.__qualname__}" for cls in subclasses(TrainingTask)}
    assert {name for name in tasks if name.startswith("vmm.")} - set(TASKS) == {
        "vmm.tasks.pretraining.PretrainTask"
    }


def subclasses(base):
    return {base}.union(*map(subclasses, base.__subclasses__())) - {TrainingTask}


def test_a_folder_that_is_no_run_names_those_that_are(run):
    folder, _, _ = run
    for wrong in (folder.parent, folder.parent / "version_9", folder / "version_0"):
        with pytest.raises(ValueError, match=f"config.yaml there; name one of {folder}$"):
            read_config(wrong)
    with pytest.raises(ValueError, match="; name a folder that `vmm fit` made"):
        read_config(folder / "checkpoints" / "deeper")
