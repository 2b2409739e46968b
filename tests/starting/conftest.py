import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.shards import clips
from vmm.data.annotations.record import Annotation
from vmm.shards.making import MakeOptions, make_shards

CLIP = "ViT-B-32-quickgelu"
SIZES = {"train": 8, "validation": 3, "test": 2}


@pytest.fixture(scope="session")
def own_shards(tmp_path_factory):
    """Small clips in three parts, as ``vmm shards make --split`` leaves them; one says nothing."""
    folder = tmp_path_factory.mktemp("own")
    number = 0
    for part, size in SIZES.items():
        items = []
        for _ in range(size):
            name = f"{number}.mp4"
            clips.write_clip(folder / "clips" / name, [number] * 4, size=(64, 64))
            items.append(Annotation(name, name, [f"a clip of colour {number}, quickly"]))
            number += 1
        if part == "train":
            items[-1] = items[-1]._replace(captions=[])
        make_shards(items, MakeOptions(folder / "clips", folder / "shards" / part, workers=0))
    return folder / "shards"


@pytest.fixture(scope="session")
def class_shards(tmp_path_factory):
    """Small clips of three classes in folders; nobody trains on the third."""
    folder = tmp_path_factory.mktemp("classes")
    number = 0
    for part, classes in {"train": "abab", "validation": "ab", "test": "abc"}.items():
        items = []
        for name in classes:
            file = f"{name}/{number}.mp4"
            clips.write_clip(folder / "clips" / file, [number] * 4, size=(64, 64))
            label = {"class": f"class {name}", "label": "abc".index(name)}
            items.append(Annotation(file, file, [f"class {name}"], metadata=label))
            number += 1
        make_shards(items, MakeOptions(folder / "clips", folder / "shards" / part, workers=0))
    return folder / "shards"


@pytest.fixture
def small_clip(monkeypatch, tmp_path):
    """A tiny CLIP with random weights in the place of a published one, which would be fetched."""
    open_clip = pytest.importorskip("open_clip", reason="open-clip-torch is not installed")
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 48, "head_width": 24, "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    file = tmp_path / "clip.pt"
    with torch.random.fork_rng():
        torch.save(open_clip.CLIP(**config).state_dict(), file)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, CLIP, config)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(file))
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(file))
    return f"open_clip:{CLIP}:openai"


@pytest.fixture
def demo_run(tmp_path):
    """The recipe and vocabulary of a run of the demo, with weights of nothing."""
    from vmm.models.text_encoder import BertTextEncoder

    run = tmp_path / "demo_run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    root = Path(__file__).parents[2]
    recipe = yaml.safe_load((root / "recipes/stage2_vtt.yaml").read_text())
    args = recipe["model"]["init_args"]
    encoder = (root / "recipes/encoders/videomamba_demo.yaml").read_text()
    args["video_encoder"] = yaml.safe_load(encoder)
    args["text_encoder"]["init_args"]["name"] = str(root / "recipes/encoders/bert_demo")
    recipe["data"]["init_args"] |= {"mean": [0.5, 0.5, 0.5], "fit": "crop", "num_frames": 4}
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    (run / "text_encoder").mkdir()
    text = BertTextEncoder(128, args["text_encoder"]["init_args"]["name"], 2, pretrained=False)
    text.save_sources(run / "text_encoder")
    assert json.loads((run / "text_encoder/config.json").read_text())["vocab_size"] == 135
    return run
