import json

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from vmm.tasks.base import TrainingTask
from vmm.tasks.number_guard import Diverged, NumberGuard


class Sick(L.LightningModule):
    """A model whose loss, gradient or layer is not finite in some steps."""

    def __init__(self, where, steps):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        self.where, self.steps = where, steps
        self.weights = []

    def compute_losses(self, batch):
        hidden = self.first(batch["video"])
        if self.where == "layer" and self.global_step in self.steps:
            hidden = hidden / 0
        return self.second(hidden).square().mean()

    def training_step(self, batch, index):
        loss = self.compute_losses(batch)
        return loss * torch.inf if self.where == "loss" and self.global_step in self.steps else loss

    def on_after_backward(self):
        if self.where == "gradient" and self.global_step in self.steps:
            self.second.weight.grad[0, 1] = torch.nan

    def on_train_batch_end(self, *_):
        self.weights.append([p.detach().clone() for p in self.parameters()])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.1)


def fit(model, folder, guard, steps=6, **options):
    torch.manual_seed(0)
    batches = [{"video": torch.randn(3, 2), "key": [f"{i}", "x"]} for i in range(steps)]
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, logger=False, callbacks=[guard],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        **options,
    )  # fmt: skip
    trainer.fit(model, DataLoader(batches, batch_size=None))
    return trainer


@pytest.mark.parametrize(
    ("where", "first", "what"),
    [
        ("loss", "the gradient of first.weight", "loss"),
        ("gradient", "the gradient of second.weight", "gradient"),
        ("layer", "the output of second", "loss"),
    ],
)
def test_such_a_step_changes_nothing_and_is_recorded(tmp_path, where, first, what):
    guard, model = NumberGuard(), Sick(where, {2, 4})
    fit(model, tmp_path, guard)
    equal = [
        all(torch.equal(a, b) for a, b in zip(*pair, strict=True))
        for pair in zip(model.weights, model.weights[1:], strict=False)
    ]
    assert equal == [False, True, False, True, False]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    lines = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["samples"]) for line in lines] == [(2, ["2", "x"]), (4, ["4", "x"])]
    assert {line["not_finite"] for line in lines} == {what}
    assert {line["first"] for line in lines} == {first}
    assert guard.state_dict() == {"skipped": 2}


def test_it_learns_as_without_the_guard_where_all_is_finite(tmp_path):
    torch.manual_seed(1)
    model = Sick("", set())
    torch.manual_seed(1)
    other = Sick("", set())
    trainer = fit(model, tmp_path, NumberGuard())
    fit(other, tmp_path, L.Callback())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert trainer.callback_metrics["train/grad_norm"] > 0
    assert not (tmp_path / "bad_steps.jsonl").exists()


class Stepping(Sick):
    """A model whose steps are its gradients, clipped as those of all tasks."""

    gradient_norm = None
    configure_gradient_clipping = TrainingTask.configure_gradient_clipping

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_what_is_left_is_clipped_and_the_norm_before_is_logged(tmp_path, algorithm, precision):
    model = Stepping("loss", {2})
    before = [p.detach().clone() for p in model.parameters()]
    trainer = fit(
        model, tmp_path, NumberGuard(), gradient_clip_val=0.01, gradient_clip_algorithm=algorithm,
        precision=precision,
    )  # fmt: skip
    assert trainer.callback_metrics["train/grad_norm"] > 0.02
    steps = []
    for now in model.weights:
        parts = zip(now, before, strict=True)
        steps.append(torch.cat([(a.float() - b.float()).flatten() for a, b in parts]))
        before = now
    sizes = [float(step.norm() if algorithm == "norm" else step.abs().max()) for step in steps]
    assert sizes.pop(2) == 0
    # bfloat16 weights move by what they can: their own rounding is added
    assert sizes == pytest.approx([0.01] * 5, rel=0.02, abs=0.01 * (precision == "bf16-true"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_clipping_takes_its_norm_and_does_what_torch_does(tmp_path, precision, monkeypatch):
    """Bit for bit; without the guard Lightning clips, by torch's own function."""
    measured = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda *a: measured.append(clip(*a).item())
    )
    weights = {}
    for guard in (NumberGuard(), L.Callback()):
        torch.manual_seed(1)
        model = Stepping("", set())
        fit(model, tmp_path, guard, gradient_clip_val=0.3, precision=precision)
        assert len(measured) == (0 if isinstance(guard, NumberGuard) else 6)
        weights[type(guard)] = [p for step in model.weights for p in step]
    assert max(measured) > 0.3 > min(measured)  # some are clipped, some are not
    for a, b in zip(*weights.values(), strict=True):
        assert torch.equal(a, b)


def test_too_many_in_a_row_end_the_run_with_a_status_of_their_own(tmp_path):
    model = Sick("loss", {1, 3, 4, 5})
    with pytest.raises(Diverged, match=r"3 steps in a row.*learning rate") as caught:
        fit(model, tmp_path, NumberGuard(max_in_a_row=3))
    assert caught.value.status == 65
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    with pytest.raises(ValueError, match="max_in_a_row is 0"):
        NumberGuard(0)


def test_what_another_process_sees_counts_here_too(tmp_path, monkeypatch):
    from lightning.pytorch.strategies import SingleDeviceStrategy

    monkeypatch.setattr(SingleDeviceStrategy, "reduce", lambda self, x, *_, **__: x + 1)
    model = Sick("", set())
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, tmp_path, NumberGuard())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not (tmp_path / "bad_steps.jsonl").exists()  # the other one records it
