"""An image-text model that begins to learn time is, before the first step, what it was."""

from functools import partial

import pytest
import torch

pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")

from vmm.models.clip_vit import FrameViT
from vmm.models.frame_mamba import FrameMamba
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import frame_similarity
from vmm.tasks.video_text import LossWeights, VideoTextTask

TEXTS = ["a red circle moves to the left", "a red circle moves to the right", "a blue bar grows"]


@pytest.mark.parametrize("time_over", ["frames", "tokens"])
def test_the_demo_begins_where_its_clip_ended(root, tmp_path, time_over):
    name = str(root / "recipes/encoders/clip_vit_demo.json")
    bert = {"name": str(root / "recipes/encoders/bert_demo"), "pretrained": False}
    torch.manual_seed(1)
    stills = VideoTextModel(FrameViT(name, None, 1, 64), BertTextEncoder(128, **bert), 64, 0.03)
    state = {f"model.{key}": value for key, value in stills.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "clip.ckpt")
    task = VideoTextTask(
        FrameMamba(name, None, 4, 64, 2, time_over),
        partial(BertTextEncoder, **bert),
        proj_dim=64,
        loss_weights=LossWeights(1, 0, 0, 0),
        init_from=str(tmp_path / "clip.ckpt"),
    )
    task.load_start()
    clips = torch.randn(5, 4, 3, 64, 64)
    found = []
    for model in (stills.eval(), task.model.eval()):
        with torch.no_grad():
            videos = model.project_video(model.encode_video(clips).pooled)
            texts = model.encode_text(*model.text_encoder.tokenize(TEXTS)).pooled
            found.append((videos, frame_similarity(videos, model.project_text(texts))))
        assert model.temperature.item() == pytest.approx(0.03)
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    still = torch.stack([clip[torch.randperm(4)] for clip in clips])
    with torch.no_grad():
        shuffled = task.model.encode_video(still, keep_temporal=False).pooled
        pooled = task.model.encode_video(clips, keep_temporal=False).pooled
    torch.testing.assert_close(shuffled, pooled, rtol=0, atol=1e-6)
