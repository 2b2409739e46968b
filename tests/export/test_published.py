import json
import shutil
import subprocess
import sys

import pytest
import torch

from tests.models import published as make
from vmm.cli import main
from vmm.export.published import export_upstream, import_checkpoint
from vmm.models.checkpoints import load_published
from vmm.runs import load_run
from vmm.tasks.start import load_start_weights
from vmm.tasks.video_text import VideoTextTask

SMALL = {"width": 32, "depth": 2, "grid": 2, "frames": 4}
VOCABULARY = 135  # of the demo's text encoder
HEADS = 2
TEXT = (64, 3, 2, 128, VOCABULARY, 48)


@pytest.fixture
def stage2(tmp_path):
    file = tmp_path / "videomamba_25M.pth"
    torch.save(make.video_text(**SMALL, text=TEXT, output=24, joint=20), file)
    return file


@pytest.fixture
def stage1(tmp_path):
    file = tmp_path / "mask_pt.pth"
    torch.save(make.masked_pretrain(**SMALL, output=24).tensors(), file)
    return file


def test_an_imported_folder_is_a_run(stage2, tmp_path, root, capsys):
    out = tmp_path / "imported"
    words = str(shutil.copytree(root / "recipes/encoders/bert_demo", tmp_path / "words"))
    assert (
        main(
            [
                "import",
                str(stage2),
                str(out),
                "--num-frames",
                "6",
                "--tokenizer",
                words,
                "--text-num-heads",
                str(HEADS),
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "video_text" in said and "tied to the word embeddings" in said and str(out) in said
    shutil.rmtree(words)  # the folder has its own
    run = load_run(out)
    assert (run.clip.num_frames, run.clip.image_size, run.clip.antialias) == (6, 32, False)
    model = load_published(stage2, num_frames=6, text_num_heads=HEADS).model
    video = torch.randn(2, 6, 3, 32, 32)
    with torch.no_grad():
        got, want = run.model.encode_video(video), model.encode_video(video)
        tokens = run.model.text_encoder.tokenize(["a red circle moves up"])
        text = run.model.encode_text(*tokens).pooled
    assert torch.equal(got.tokens, want.tokens) and torch.equal(got.pooled, want.pooled)
    assert text.isfinite().all()
    account = json.loads((out / "import.json").read_text())
    state = torch.load(stage2)
    assert set(account["used"]) | set(account["dropped"]) == set(state)
    assert account["family"] == "video_text" and len(account["sha256"]) == 64
    assert list(account["changed"]) == ["vision_encoder.temporal_pos_embedding"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exported_and_imported_again_it_is_the_same(stage2, tmp_path, dtype, capsys):
    import_checkpoint(str(stage2), tmp_path / "one", text_num_heads=HEADS)
    said = capsys.readouterr().err
    assert "the folder has no vocabulary" in said and "again with --tokenizer" in said  # no hub
    written = tmp_path / "upstream.pth"
    assert main(["export-upstream", str(tmp_path / "one"), str(written), "--dtype", dtype]) == 0
    original, again = torch.load(stage2), torch.load(written)["model"]
    text = load_published(written).config["init_args"]["text_encoder"]["init_args"]
    assert text["architecture"]["num_attention_heads"] == HEADS  # no shape tells, the file does
    assert original.keys() == again.keys()
    for key, value in again.items():
        if value.is_floating_point():
            assert torch.equal(value, original[key].to(getattr(torch, dtype))), key
        else:
            assert torch.equal(value, original[key]), key


def test_an_imported_stage_1_starts_stage_2(stage1, stage2, tmp_path, caplog):
    folder = tmp_path / "stage1"
    import_checkpoint(str(stage1), folder)
    model = load_published(stage2, text_num_heads=HEADS).model
    task = VideoTextTask(model.video_encoder, lambda width: model.text_encoder)
    with caplog.at_level("INFO", "vmm"):
        assert load_start_weights(task, folder) == ["video_encoder"]
    assert "norm after pooling" in caplog.text
    given = torch.load(stage1)
    for key, value in task.video_encoder.state_dict().items():
        assert key.startswith("pool_norm.") or torch.equal(value, given[key]), key


def test_runs_of_vmm_can_be_exported(stage1, tmp_path):
    """A stage-1 run of ours has a norm after pooling, which the published stage 1 has not."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    task = "vmm.tasks.masked_pretrain.MaskedPretrainTask"
    (run / "config.yaml").write_text(f"model: {{class_path: {task}}}\n")
    model = load_published(stage1).model
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state["model.video_encoder.pool_norm.weight"] = torch.ones(32)
    torch.save({"state_dict": state}, run / "checkpoints" / "last.ckpt")
    export_upstream(run, tmp_path / "out.pth", "last")
    given, written = torch.load(stage1), torch.load(tmp_path / "out.pth")
    assert given.keys() == written.keys()
    assert all(torch.equal(given[key], written[key]) for key in given)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("vision_encoder.norm.weight"), r"norm\.weight is missing"),
        (lambda state: state.update(extra=torch.ones(1)), "extra belongs to no part"),
    ],
)
def test_a_failed_import_leaves_nothing(stage2, tmp_path, capsys, spoil, message):
    state = torch.load(stage2)
    spoil(state)
    torch.save(state, stage2)
    heads = ["--text-num-heads", str(HEADS)]
    assert main(["import", str(stage2), str(tmp_path / "out"), *heads]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        import_checkpoint(str(stage2), tmp_path / "out", text_num_heads=HEADS)
    assert [path.name for path in tmp_path.iterdir()] == [stage2.name]


def test_nothing_is_overwritten(stage2, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(["import", str(stage2), str(tmp_path / "out")]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("num_frames", 0, "num_frames 0 must be at least 1"),
        ("image_size", 40, "image_size 40 is not a multiple of patch_size 16"),
    ],
)
def test_sizes_that_no_model_has_are_refused(stage1, tmp_path, name, size, message):
    with pytest.raises(ValueError, match=message):
        import_checkpoint(str(stage1), tmp_path / "out", **{name: size})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--num-frames=0", "--image-size=40", "--text-num-heads=-2"])
def test_a_command_with_such_a_size_leaves_nothing(stage1, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["import", str(stage1), str(tmp_path / "out"), option]))
    assert ended.value.code == 2
    assert option.partition("=")[2] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_there_must_be_a_folder_to_export_to(stage1, tmp_path, capsys):
    import_checkpoint(str(stage1), tmp_path / "run")
    assert main(["export-upstream", str(tmp_path / "run"), str(tmp_path / "no" / "x.pth")]) == 2
    assert "make it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"family": "other"}', "names the family 'other'"),
    ],
)
def test_a_strange_account_is_named(stage1, tmp_path, capsys, content, message):
    import_checkpoint(str(stage1), tmp_path / "run")
    (tmp_path / "run" / "import.json").write_text(content)
    assert main(["export-upstream", str(tmp_path / "run"), str(tmp_path / "x.pth")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.pth").exists()


@pytest.mark.parametrize("heads", [-2, 7])
def test_heads_that_cannot_be_are_refused(stage2, tmp_path, heads):
    with pytest.raises(ValueError, match=f"{heads} attention heads do not divide"):
        import_checkpoint(str(stage2), tmp_path / "out", text_num_heads=heads)


def test_a_clip_tower_becomes_a_teacher(tmp_path):
    from vmm.models.clip_vit import ClipTeacher

    file, out = tmp_path / "clip.pth", tmp_path / "out"
    torch.save(make.clip_visual(width=64).tensors(), file)
    imported = import_checkpoint(str(file), out)
    name, weights = str(out / "open_clip_config.json"), str(out / "model.safetensors")
    teacher = ClipTeacher(name, weights, image_size=48)
    teacher.load()
    video = torch.randn(1, 2, 3, 48, 48)
    for got, want in zip(teacher(video), imported.model(video), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.slow
def test_a_full_size_file_imports_in_three_gib(tmp_path):
    """Stage 2 as training saves it: bfloat16 weights beside two moments of AdamW."""
    state = make.video_text(*make.VARIANTS["middle"], dtype=torch.bfloat16)
    moments = {i: torch.zeros(95_000_000, dtype=torch.bfloat16) for i in range(4)}
    file = tmp_path / "ckpt_09.pth"
    torch.save({"model": state, "optimizer": {"state": moments}}, file)
    del state, moments
    code = (
        "import re, sys; from vmm.cli import main; "
        f"status = main(['import', {str(file)!r}, {str(tmp_path / 'out')!r}]); "
        "used = open('/proc/self/status').read(); "  # ru_maxrss would count this process too
        "print(re.search(r'VmHWM:\\s*(\\d+)', used)[1]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 3 * 2**20  # KiB
    file.unlink()
