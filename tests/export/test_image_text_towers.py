"""Towers of CLIP and SigLIP that have learnt time leave training in every format."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")

from tests.export.test_usage import LOADERS, run
from tests.models.image_text import MODELS, write_model
from vmm.export import program_files
from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder
from vmm.models.frame_mamba import FrameMamba
from vmm.models.open_clip_text import OpenClipTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.tasks.start import load_published

TEXTS = ["a red circle", "a blue bar moves to the left"]
OVER = {"clip": "frames", "siglip": "tokens"}


@pytest.fixture(scope="module", params=OVER)
def exported(request, tmp_path_factory, root):
    """A trained model, and the encoder folder of its run, of which nothing else is left."""
    folder = tmp_path_factory.mktemp(request.param)
    _, name, weights = write_model(request.param, folder / "model", root)
    video = {
        "name": name,
        "pretrained": weights,
        "num_frames": 4,
        "image_size": 32,
        "time_depth": 1,
    }
    video |= {"time_over": OVER[request.param], "d_state": 4}
    text = {"name": name, "pretrained": weights}
    encoder = FrameMamba(**video)
    width = MODELS[request.param]["embed_dim"]
    model = VideoTextModel(encoder, OpenClipTextEncoder(encoder.embed_dim, **text), width)
    load_published(model)
    torch.nn.init.normal_(encoder.time_blocks[0].mixer.out_proj.weight, std=0.3)
    parts = {"video_encoder": (FrameMamba, video), "text_encoder": (OpenClipTextEncoder, text)}
    nodes = {
        part: {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
        for part, (kind, arguments) in parts.items()
    }
    task = "vmm.tasks.video_text.VideoTextTask"
    recipe = {"model": {"class_path": task, "init_args": nodes | {"proj_dim": width}}}
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "callbacks": {}}, run / "checkpoints" / "last.ckpt")
    assert main([str(run), str(folder / "encoder")]) == 0
    shutil.rmtree(run)
    shutil.rmtree(folder / "model")
    return model.eval(), (folder / "encoder").rename(folder / "moved")


def test_a_moved_folder_gives_the_vectors_of_the_run(exported, clips):
    model, folder = exported
    encoder = VideoTextEncoder.from_pretrained(folder, device="cpu")
    videos, texts = encoder.encode_video(clips), encoder.encode_text(TEXTS)
    encoder.model.load_state_dict(model.state_dict())
    np.testing.assert_allclose(encoder.encode_video(clips), videos, atol=1e-6)
    tokens = encoder.model.text_encoder.tokenize(TEXTS)
    with torch.no_grad():
        want = model.project_text(model.encode_text(*tokens).pooled)
    want = torch.nn.functional.normalize(want, dim=-1).numpy()
    np.testing.assert_allclose(texts, want, atol=1e-6)
    assert np.abs(videos[0] - videos[1]).max() > 1e-3 and np.abs(texts[0] - texts[1]).max() > 1e-3
    config = json.loads((folder / "config.json").read_text())
    assert str(folder.parent) not in json.dumps(config["video_encoder"])
    long = encoder.encode_long_video(clips[0], fps=5)
    assert long.per_frame.shape == (len(long.seconds), encoder.embedding_dim)


@pytest.mark.slow
def test_graphs_compute_what_the_model_does_by_the_lines_of_their_card(
    exported, clips, tmp_path, monkeypatch
):
    folder, format_name = exported[1], "pt2"
    encoder = VideoTextEncoder.from_pretrained(folder, device="cpu")
    if encoder.model.video_encoder.time_over == "frames":  # the other takes a minute
        pytest.importorskip("onnxscript")
        format_name = "onnx"
    monkeypatch.setattr(program_files.shutil, "which", lambda _: None)  # no compiler
    assert main([str(folder), str(tmp_path / "out"), "--format", format_name]) == 0
    caption = "A red-circle moves (left), " * 20  # longer than the model reads
    got = run(tmp_path / "out", clips[0], caption, LOADERS[format_name])["similarity"]
    want = encoder.encode_text([caption]) @ encoder.encode_video(clips[:1]).T
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_without_open_clip_a_sentence_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        ValueError, match=r'built by open_clip: pip install "vmm-video\[open-clip\]"'
    ):
        read_folder(exported[1])
