import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder
from vmm.runs import load_run


@pytest.fixture
def copy(encoder_folder, tmp_path):
    return shutil.copytree(encoder_folder, tmp_path / "copy")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_holds_the_trained_weights_and_settings(trained, encoder_folder):
    parts, fingerprint = read_folder(encoder_folder)
    run = load_run(trained[0], "last")
    stored = parts.model.state_dict()
    assert stored.keys() == trained[1].state_dict().keys()
    assert all(torch.equal(stored[k], v) for k, v in trained[1].state_dict().items())
    assert parts.clip == run.clip
    assert parts.model.text_encoder.max_words == 8
    assert not parts.model.training
    assert len(fingerprint) == 64
    assert {path.name for path in encoder_folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
    }


def test_every_setting_of_the_clips_survives(tmp_path, trained):
    import yaml

    run = shutil.copytree(trained[0], tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["init_args"] |= {
        "num_frames": 8,
        "image_size": 64,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.1, 0.3],
        "fit": "crop",
        "antialias": False,
        "sampling": "fps",
        "fps": 2.5,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    main([str(run), str(tmp_path / "out")])
    assert read_folder(tmp_path / "out")[0].clip == load_run(run, "last").clip
    assert read_folder(tmp_path / "out")[0].clip.fps == 2.5


def test_the_fingerprint_is_of_weights_and_preprocessing_not_of_the_card(
    trained, another_run, encoder_folder, tmp_path
):
    same, other = tmp_path / "same", tmp_path / "other"
    main([str(trained[0]), str(same)])
    main([str(another_run), str(other)])
    mine = read_folder(encoder_folder)[1]
    (same / "README.md").write_text("rewritten")
    assert read_folder(same)[1] == mine
    assert read_folder(other)[1] != mine
    main([str(same), str(tmp_path / "again")])
    assert read_folder(tmp_path / "again")[1] == mine


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "video_preprocessor_config.json"],
)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(ValueError, match=rf"no {name}"):
        read_folder(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_is_cut_off_is_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"{name} is damaged or of another model"):
        read_folder(copy)


def test_weights_of_another_model_are_refused(copy, another_run, tmp_path):
    main([str(another_run), str(tmp_path / "other")])
    shutil.copy(tmp_path / "other/model.safetensors", copy)
    with pytest.raises(ValueError, match="of another model"):
        VideoTextEncoder.from_pretrained(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type="bert"), "of type 'bert'"),
        (lambda c: c.pop("proj_dim"), "lacks proj_dim"),
        (lambda c: c.update(proj_dim=9), "was changed after the export"),
        (lambda c: c.update(fingerprint="0" * 64), "was changed after the export"),
        (lambda c: c.update(files={}), "does not list its files"),
        (lambda c: c["files"].update({"../x": "0"}), "outside of its folder"),
        (lambda c: c["video_encoder"].update(class_path="os.system"), "was changed after"),
    ],
)
def test_a_changed_config_is_refused(copy, change, message):
    edit(copy / "config.json", change)
    with pytest.raises(ValueError, match=message):
        read_folder(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_config_that_is_none_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        read_folder(copy)


def test_what_is_no_encoder_folder_gets_advice(trained, tmp_path):
    with pytest.raises(ValueError, match="is a run directory; `vmm export RUN OUT`"):
        VideoTextEncoder.from_pretrained(trained[0])
    with pytest.raises(ValueError, match=r"has no config\.json"):
        VideoTextEncoder.from_pretrained(tmp_path)


def test_an_intruder_named_by_a_consistent_config_is_not_built(copy):
    """Whoever can compute the fingerprint still gets no other class built."""
    import hashlib

    config = json.loads((copy / "config.json").read_text())
    config["video_encoder"]["class_path"] = "os.system"
    settings = {k: config[k] for k in ("video_encoder", "text_encoder", "proj_dim")}
    text = json.dumps({"settings": settings, "files": config["files"]}, sort_keys=True)
    config["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no VideoEncoder of vmm"):
        read_folder(copy)


def test_weights_that_do_not_fit_are_refused_by_name(copy):
    """Also if digests and fingerprint are right."""
    import hashlib

    state = load_file(copy / "model.safetensors")
    state.pop("itm_head.bias")
    save_file(state, copy / "model.safetensors")
    config = json.loads((copy / "config.json").read_text())
    digest = hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    config["files"]["model.safetensors"] = digest
    settings = {k: config[k] for k in ("video_encoder", "text_encoder", "proj_dim")}
    text = json.dumps({"settings": settings, "files": config["files"]}, sort_keys=True)
    config["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"itm_head\.bias is missing"):
        read_folder(copy)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path, trained, monkeypatch):
    import vmm.export.folder as module

    def fail(*_):
        raise ValueError("disk full")

    monkeypatch.setattr(module, "write_card", fail)
    with pytest.raises(ValueError, match="disk full"):
        main([str(trained[0]), str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_an_occupied_place_is_left_alone(tmp_path, trained):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        main([str(trained[0]), str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_checkpoint_file_is_taken_like_its_run(trained, encoder_folder, tmp_path, capsys):
    main([str(trained[0] / "checkpoints/last.ckpt"), str(tmp_path / "out")])
    assert read_folder(tmp_path / "out")[1] == read_folder(encoder_folder)[1]
    assert f"wrote {tmp_path / 'out'}" in capsys.readouterr().out


def test_a_stray_file_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="vmm import"):
        main([str(tmp_path / "a/x.pth"), str(tmp_path / "out")])
