import json

import av
import numpy as np
import pytest
import torch
import yaml

from vmm.export.command import main
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle", "moves", "left"]
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
VIDEO = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 32, "patch_size": 16}


def write_run(folder, seed, **data):
    """Write a run directory as `vmm fit` leaves it; return the model whose weights it holds."""
    text = folder / "bert"
    text.mkdir(parents=True)
    (text / "config.json").write_text(json.dumps(BERT))
    (text / "vocab.txt").write_text("\n".join(WORDS))
    text_args = {"name": str(text), "fusion_layer": 1, "pretrained": False, "max_words": 8}
    torch.manual_seed(seed)
    model = VideoTextModel(VideoMamba(**VIDEO), BertTextEncoder(32, **text_args), 8, 0.1)
    for parameter in model.parameters():  # fresh ones hardly tell inputs apart
        parameter.data += 0.2 * torch.randn_like(parameter)
    encoders = {
        "video_encoder": {"class_path": "vmm.models.videomamba.VideoMamba", "init_args": VIDEO},
        "text_encoder": {
            "class_path": "vmm.models.text_encoder.BertTextEncoder",
            "init_args": text_args,
        },
    }
    config = {
        "model": {
            "class_path": "vmm.tasks.video_text.VideoTextTask",
            "init_args": {**encoders, "proj_dim": 8, "temperature": 0.1},
        },
        "data": {
            "class_path": "vmm.data.datamodules.WebVideoData",
            "init_args": {"train_videos": "/somewhere/secret/train-*.tar", **data},
        },
    }
    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "callbacks": {}}, folder / "checkpoints" / "last.ckpt")
    return model.eval()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run directory and its model."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, write_run(folder, seed=0)


@pytest.fixture(scope="session")
def another_run(tmp_path_factory):
    """A run of the same architecture with other weights."""
    folder = tmp_path_factory.mktemp("another") / "run"
    write_run(folder, seed=1)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(trained, tmp_path_factory):
    """The encoder folder of ``trained``; read only."""
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    assert main([str(trained[0]), str(folder), "--license", "mit"]) == 0
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Three videos of 12, 7 and 20 frames, 10 per second, of different sizes: their paths."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number, (length, height, width) in enumerate(((12, 48, 64), (7, 64, 36), (20, 32, 32))):
        paths.append(folder / f"{number}.mp4")
        with av.open(str(paths[-1]), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for i in range(length):
                pixels = np.full((height, width, 3), 40 * number, np.uint8)
                pixels[: 2 * i + 2, :, i % 3] = 250 - 10 * i
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return paths
