import json
import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from vmm.cli import main
from vmm.tasks.base import TrainingTask
from vmm.tasks.lr_finder import RateFinder, suggestion


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append({(g["lr_ratio"], g["lr"]) for g in optimizer.param_groups})


@pytest.mark.slow
def test_it_finds_a_rate_and_leaves_no_run(root, demo_shards, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(root)
    rates = Rates()
    monkeypatch.setattr(TrainingTask, "configure_callbacks", lambda task: [rates])
    logger = "--trainer.logger.init_args"
    words = ["fit", "-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml"]
    words += [*demo_shards.options(), f"{logger}.save_dir={tmp_path}", f"{logger}.version=found"]
    assert main([*words, "-c", "recipes/overlays/find_lr.yaml", "--lr_finder.steps=24"]) == 0
    folder = tmp_path / "stage2_vtt" / "found"
    assert {p.name for p in folder.rglob("*")} == {"lr_finder.json", "lr_finder.png", "metrics.csv"}
    found = json.loads((folder / "lr_finder.json").read_text())
    assert found["lr"][0] == pytest.approx(1e-6) and found["lr"] == sorted(found["lr"])
    assert len(found["lr"]) == len(found["loss"]) <= 24
    assert found["suggestion"] is None or found["suggestion"] in found["lr"]
    for groups, rate in zip(rates.seen, found["lr"], strict=False):
        assert {ratio for ratio, _ in groups} == {1.0, 0.3}
        assert all(lr == pytest.approx(ratio * rate) for ratio, lr in groups)
    other = [word.replace("found", "other") for word in words]
    assert main([*other, "--resume"]) == 0  # the recipe's next run begins, as if nothing had been
    last = torch.load(tmp_path / "stage2_vtt/other/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 2


def test_the_fall_is_measured_by_orders_of_magnitude():
    rates = [10 ** (-6 + 6 * i / 99) for i in range(100)]
    losses = [7 - 4 / (1 + math.exp(-3 * (math.log10(rate) + 2.5))) for rate in rates]
    assert suggestion(rates, losses) == pytest.approx(10**-2.5, rel=0.2)
    assert suggestion(rates, rates) is None and suggestion(rates[:11], losses[:11]) is None


@pytest.mark.parametrize("given", [{"steps": 5}, {"steps": -1}, {"steps": 50, "min_lr": 2.0}])
def test_impossible_searches_are_refused(given):
    with pytest.raises(ValueError, match=r"lr_finder\.(steps|min_lr) is"):
        RateFinder(**given)
