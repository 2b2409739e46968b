import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from vmm.models.mamba import BiMambaBlock
from vmm.tasks.averaging import WeightAverage
from vmm.tasks.compiling import LayerCompiler
from vmm.tasks.number_guard import NumberGuard
from vmm.tasks.zero import ZeroStrategy


class Small(L.LightningModule):
    """Two layers, of which the second one's normalisation is infinite in a step."""

    def __init__(self, bad_step=-1):
        super().__init__()
        self.layers = torch.nn.ModuleList(BiMambaBlock(8, 2, 2, 2) for _ in range(2))
        self.bad_step, self.losses = bad_step, []

    def compute_losses(self, batch):
        x = batch["video"]
        for layer in self.layers:
            x = x + layer(x)
        return x.square().mean()

    def training_step(self, batch, index):
        loss = self.compute_losses(batch)
        self.losses.append(loss.item())
        return loss

    def on_train_batch_start(self, batch, index):
        if self.global_step == self.bad_step:
            self.layers[1].norm.weight.data[0] = torch.inf

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, model, *callbacks):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    lengths = [3, 5, 3, 5]
    batches = [{"video": torch.randn(2, n, 8), "key": ["a", "b"]} for n in lengths]
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, logger=False,
        callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(batches, batch_size=None))
    trainer.save_checkpoint(folder / "last.ckpt")
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_losses_weights_and_their_names_are_those_of_a_run_without(tmp_path):
    """Beside an average of weights, which copies the model, and with batches of several lengths."""
    torch._dynamo.utils.counters.clear()
    plain, compiled = Small(), Small()
    without = fit(tmp_path, plain, WeightAverage(0.9))
    assert not torch._dynamo.utils.counters["stats"]
    with_it = fit(tmp_path, compiled, WeightAverage(0.9), LayerCompiler("eager"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    assert not torch._dynamo.utils.counters["graph_break"]
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)
    for part in ("state_dict", "current_model_state"):
        assert with_it[part].keys() == without[part].keys()
        for name, value in without[part].items():
            torch.testing.assert_close(with_it[part][name], value)


def test_the_number_guard_looks_into_compiled_layers_and_compiles_none_for_it(tmp_path):
    torch._dynamo.utils.counters.clear()
    with pytest.raises(ValueError, match="in a row"):
        fit(tmp_path, Small(2), NumberGuard(max_in_a_row=2), LayerCompiler("eager"))
    (line, _) = (tmp_path / "bad_steps.jsonl").read_text().splitlines()
    assert json.loads(line)["first"] == "the output of layers.1.mixer.in_proj"
    assert not torch._dynamo.utils.counters["graph_break"]


def test_what_cannot_compile_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"compile.backend is 'induktor'; set it to inductor"):
        LayerCompiler("induktor")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler; install g\+\+"):
        fit(tmp_path, Small(), LayerCompiler("inductor"))


def test_layers_that_have_no_weights_are_refused():
    pytest.importorskip("deepspeed", reason="DeepSpeed is for Linux only")
    trainer = SimpleNamespace(strategy=ZeroStrategy(stage=3))
    with pytest.raises(ValueError, match=r"ZeRO 3 .* take -c recipes/overlays/fsdp2.yaml"):
        LayerCompiler("eager").setup(trainer, Small(), "fit")
