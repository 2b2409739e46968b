"""Tiny run directories, as training leaves them."""

import json

import torch
import yaml

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


def write_run(folder, seed, kind=VideoMamba, video=VIDEO, **data):
    """Write a run directory as `vmm fit` leaves it; return the model whose weights it holds."""
    text = folder / "bert"
    text.mkdir(parents=True)
    (text / "config.json").write_text(json.dumps(BERT))
    (text / "vocab.txt").write_text("\n".join(WORDS))
    text_args = {"name": str(text), "fusion_layer": 1, "pretrained": False, "max_words": 8}
    torch.manual_seed(seed)
    model = VideoTextModel(kind(**video), BertTextEncoder(32, **text_args), 8, 0.1)
    for parameter in model.parameters():  # fresh ones hardly tell inputs apart
        parameter.data += 0.2 * torch.randn_like(parameter)
    encoders = {
        "video_encoder": {
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "init_args": video,
        },
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
