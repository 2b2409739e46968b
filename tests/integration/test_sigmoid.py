"""A run with the sigmoid loss is trained, exported and used; its bias serves training only."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vmm.cli import main
from vmm.export.encoder import VideoTextEncoder
from vmm.runs import load_run

TEXTS = ["a red circle moves up", "a blue square moves left"]


def test_a_dual_encoder_with_the_sigmoid_loss(root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    recipes = ("stage2_vtt.yaml", "overlays/debug.yaml", "overlays/sigmoid.yaml")
    words = ["fit", *(word for name in recipes for word in ("-c", f"recipes/{name}"))]
    words += [*demo_shards.options(images=False), "--data.init_args.train_images=null"]
    words += [f"--model.init_args.loss_weights.{name}=0" for name in ("mlm", "vtm")]
    words += ["--model.init_args.logit_bias=-3", "--model.init_args.warmup_steps=0"]
    words += [f"--trainer.logger.init_args.save_dir={tmp_path}"]
    assert main([*words, "--trainer.logger.init_args.version=run"]) == 0
    run, folder = tmp_path / "stage2_vtt/run", tmp_path / "encoder"
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["model.logit_bias"].item() not in (-3, 0)

    assert main(["export", str(run), str(folder)]) == 0
    (weights,) = folder.glob("*.safetensors")
    assert "logit_bias" not in load_file(weights)
    encoder, trained = VideoTextEncoder.from_pretrained(folder, device="cpu"), load_run(run).model
    generator = np.random.default_rng(0)
    clips = [generator.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8) for _ in TEXTS]
    video, text = encoder.encode_video(clips), encoder.encode_text(TEXTS)
    assert video.shape == text.shape and np.isfinite(video).all()
    with torch.no_grad():
        own = trained.project_text(
            trained.encode_text(*trained.text_encoder.tokenize(TEXTS)).pooled
        )
    own = torch.nn.functional.normalize(own, dim=-1)
    np.testing.assert_allclose(text, own, atol=1e-6)
    temperature = trained.temperature.item()
    cosines = (text * video).sum(1)
    matching = encoder.score(TEXTS, clips, by="matching")
    mixed = encoder.score(TEXTS, clips)
    weight = trained.mixture.weight
    np.testing.assert_allclose(mixed, cosines / temperature + weight * matching, rtol=1e-4)
    assert pytest.approx(1) == np.linalg.norm(video, axis=1)
