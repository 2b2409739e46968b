import logging
import re

import pytest
import torch

from vmm.cli import main
from vmm.models.videomamba import VideoMamba
from vmm.tasks import accelerator
from vmm.tasks.accelerator import settle_accelerator, what_is_wrong_on

CPU = torch.device("cpu")


@pytest.fixture
def apple(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def test_an_encoder_that_computes_the_same_is_not_wrong():
    before = torch.get_rng_state()
    assert what_is_wrong_on(CPU) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", ["forward", "backward"])
def test_a_device_that_computes_something_else_is(monkeypatch, wrong):
    moved = []

    def to(encoder, device):
        moved.append(device)
        weight = encoder.layers[0].mixer.in_proj.weight
        if wrong == "forward":
            weight.data.mul_(1.01)
        else:
            weight.register_hook(lambda gradient: gradient * 1.01)
        return encoder

    monkeypatch.setattr(VideoMamba, "to", to)
    named = {"forward": "^tokens", "backward": "^gradients of layers.0.mixer.in_proj.weight"}
    found = what_is_wrong_on(CPU)
    assert found is not None and moved == [CPU]
    assert re.search(named[wrong], found), found


def test_auto_is_not_apple_where_it_fails(apple, monkeypatch, caplog):
    # This PyTorch was built without MPS, so that the encoder cannot be moved there.
    with caplog.at_level(logging.INFO, logger="vmm"):
        assert settle_accelerator("auto") == "cpu"
    assert "auto is cpu here" in caplog.text
    assert settle_accelerator("mps") == "mps"  # who asks for it gets it
    monkeypatch.setattr(accelerator, "what_is_wrong_on", lambda device: None)
    assert settle_accelerator("auto") == "auto"


def test_auto_is_left_alone_without_an_apple(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(accelerator, "what_is_wrong_on", pytest.fail)
    assert settle_accelerator("auto") == "auto"


def test_training_asks_which_accelerator_it_is(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)

    def settle(asked):
        raise ValueError(f"asked for {asked}")

    monkeypatch.setattr("vmm.trainer_cli.settle_accelerator", settle)
    where = f"--trainer.logger.init_args.save_dir={tmp_path}"
    assert main(["fit", "-c", "recipes/classification.yaml", where]) == 2
    assert "asked for auto" in capsys.readouterr().err
