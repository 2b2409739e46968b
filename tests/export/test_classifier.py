"""A classifier as a folder, as ONNX and as a graph of PyTorch."""

import json

import numpy as np
import pytest
import torch
import yaml

from vmm import ActionClassifier, VideoTextEncoder
from vmm.export.command import main
from vmm.export.published import export_upstream
from vmm.models.checkpoints import load_published
from vmm.models.classifier import VideoClassifier
from vmm.models.videomamba import VideoMamba

NAMES = ["up", "down", "left"]
VIDEO = {
    "embed_dim": 32, "depth": 1, "num_frames": 4, "image_size": 32, "pooling": "cls",
    "pool_norm": False,
}  # fmt: skip


def write_run(folder, num_frames=4, pooling="cls", **arguments):
    """A run of ClassificationTask and its model."""
    sizes = VIDEO | {"num_frames": num_frames, "pooling": pooling}
    node = {"class_path": "vmm.models.videomamba.VideoMamba", "init_args": sizes}
    arguments = {"video_encoder": node, "num_classes": 3} | arguments
    config = {
        "model": {
            "class_path": "vmm.tasks.classification.ClassificationTask", "init_args": arguments,
        },
        "data": {"init_args": {"interpolation": "bilinear", "fit": "crop", "crop_pct": 0.875}},
    }  # fmt: skip
    torch.manual_seed(1)
    model = VideoClassifier(VideoMamba(**sizes), 3)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return model.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier") / "run"
    model = write_run(folder)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder, model


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    assert main([str(run[0]), str(out), "--license", "mit"]) == 0
    return out


VIDEOS = torch.randn(2, 4, 3, 32, 32)


def test_the_folder_loads_as_the_models_of_transformers_do(run, folder):
    from transformers import AutoModelForVideoClassification

    loaded = AutoModelForVideoClassification.from_pretrained(folder, device="cpu")
    assert isinstance(loaded, ActionClassifier) and loaded.config_class.model_type
    with torch.no_grad():
        assert torch.equal(loaded(VIDEOS).logits, run[1](VIDEOS))
    assert loaded.id2label == dict(enumerate(NAMES))
    assert (loaded.clip.interpolation, loaded.clip.crop_pct) == ("bilinear", 0.875)
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: video-classification" in card and "ActionClassifier" in card
    assert "vmm eval classification --run RUN" in card


def test_videos_are_classified_best_first(run, folder, clips):
    loaded = ActionClassifier.from_pretrained(folder, device="cpu")
    found = loaded.classify(clips, top_k=2, batch_size=2)
    every = loaded.classify(clips, top_k=9)
    assert [len(row) for row in found] == [2] * 3 and [row[:2] for row in every] == [
        [pytest.approx(pair) for pair in row] for row in found
    ]
    for row in every:
        assert sorted(name for name, _ in row) == sorted(NAMES)
        assert [p for _, p in row] == sorted((p for _, p in row), reverse=True)
        assert sum(p for _, p in row) == pytest.approx(1)
    frames = np.full((6, 40, 40, 3), 90, np.uint8)
    (best, _), *_ = loaded.classify([frames])[0]
    clip = (torch.full((1, 4, 3, 32, 32), 90 / 255) - torch.tensor(loaded.clip.mean).view(3, 1, 1)
            ) / torch.tensor(loaded.clip.std).view(3, 1, 1)  # fmt: skip
    with torch.no_grad():
        assert best == NAMES[run[1](clip).argmax()]
    assert loaded.classify([]) == []


def test_a_folder_of_one_kind_is_not_one_of_the_other(folder, encoder_folder):
    with pytest.raises(ValueError, match=r"not a VideoTextModel; its folder is .*ActionClassifier"):
        VideoTextEncoder.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"not a VideoClassifier; its folder .*VideoTextEncoder"):
        ActionClassifier.from_pretrained(encoder_folder)


def test_classes_without_names_and_lists_of_others(tmp_path, capsys):
    write_run(tmp_path / "run")
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    (tmp_path / "run/classes.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="lists 2 classes and the model has 3"):
        main([str(tmp_path / "run"), str(tmp_path / "again")])
    with pytest.raises(ValueError, match="not a VideoTextModel"):
        main([str(tmp_path / "out"), str(tmp_path / "st"), "--format", "sentence-transformers"])


def test_numbers_are_said_in_their_order(tmp_path, clips):
    model = write_run(tmp_path / "run", problem_type="regression")
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    loaded = ActionClassifier.from_pretrained(tmp_path / "out", device="cpu")
    (row,) = loaded.classify(clips[:1])
    assert [name for name, _ in row] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert model.head.out_features == 3 and not all(0 <= value <= 1 for _, value in row)


@pytest.mark.slow
def test_onnx_gives_the_logits(run, folder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main([str(folder), str(tmp_path / "out"), "--format", "onnx"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "video_preprocessor_config.json", "video_4_frames.onnx"}
    path = tmp_path / "out/video_4_frames.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(["logits"], {"video": VIDEOS.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), run[1](VIDEOS), atol=1e-4, rtol=1e-4)


def test_graphs_give_the_logits(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)  # compiling takes long, and is tested
    assert main([str(folder), str(tmp_path / "out"), "--format", "pt2"]) == 0
    program = torch.export.load(tmp_path / "out/video_4_frames.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(VIDEOS), run[1](VIDEOS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frames", [4, 1])
def test_a_run_is_written_in_the_published_layout(tmp_path, frames):
    model = write_run(tmp_path / "run", frames)
    file = tmp_path / "run/checkpoints/last.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"]["model.distill_head.1.bias"] = torch.zeros(2)  # of self-distillation
    torch.save(content, file)
    export_upstream(tmp_path / "run", tmp_path / "out.pth")
    loaded = load_published(str(tmp_path / "out.pth"))
    assert loaded.family == ("image_classifier" if frames == 1 else "video_classifier")
    video = VIDEOS[:, :frames]
    with torch.no_grad():
        assert torch.equal(loaded.model.eval()(video), model(video))


def test_another_pooling_has_no_published_layout(tmp_path):
    write_run(tmp_path / "run", pooling="cls+avg")
    with pytest.raises(ValueError, match="without a norm after it"):
        export_upstream(tmp_path / "run", tmp_path / "out.pth")
