import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vmm.optim import fuse_on_cpu, param_groups, warmup_cosine

GOLDEN = Path(__file__).parent / "golden"
GROUPS = json.loads((GOLDEN / "h_optimizer.json").read_text())
SHAPES = {k: v.shape for k, v in load_file(GOLDEN / "model_state.safetensors").items()}


def _module(shapes):
    """A module tree with parameters of these dotted names."""
    root = nn.Module()
    for name, shape in shapes.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, nn.Parameter(torch.zeros(shape)))
    return root


def _names(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {group["weight_decay"]: {names[p] for p in group["params"]} for group in groups}


@pytest.mark.parametrize("stage", [1, 2])
def test_reference_policies_give_the_recorded_groups(stage):
    expected = {g["weight_decay"]: set(g["params"]) for g in GROUPS[f"stage{stage}_param_groups"]}
    every = set().union(*expected.values())
    prefix = "vision_encoder." if stage == 1 else ""
    model = _module({name: SHAPES[prefix + name] for name in every})
    assert _names(model, param_groups(model, 0.05, f"reference_stage{stage}")) == expected


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 4, 3))
        self.A_log = nn.Parameter(torch.zeros(4, 3))
        self.D = nn.Parameter(torch.zeros(4))
        self.proj = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)

    def no_weight_decay(self):
        return {"table"}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.words = nn.Embedding(5, 3)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_standard_policy_decays_matrices_only():
    model = Model()
    assert _names(model, param_groups(model, 0.1)) == {
        0.1: {"encoder.proj.weight"},
        0.0: {
            "encoder.table",
            "encoder.A_log",
            "encoder.D",
            "encoder.proj.bias",
            "encoder.norm.weight",
            "encoder.norm.bias",
            "words.weight",
            "temperature",
        },
    }


def test_an_empty_group_is_left_out():
    model = nn.LayerNorm(3)
    (group,) = param_groups(model, 0.1)
    assert group["weight_decay"] == 0 and len(group["params"]) == 2
    torch.optim.AdamW(param_groups(model, 0.1))


def test_parts_can_learn_at_their_own_rate():
    model = Model()
    groups = param_groups(model, 0.1, lr_ratios={"encoder.": 0.3})
    names = {parameter: name for name, parameter in model.named_parameters()}
    seen = {}
    for group in groups:
        for parameter in group["params"]:
            seen[names[parameter]] = (group["lr_ratio"], group["weight_decay"])
    assert seen["encoder.proj.weight"] == (0.3, 0.1)
    assert seen["encoder.norm.weight"] == (0.3, 0.0)
    assert seen["words.weight"] == seen["temperature"] == (1.0, 0.0)


def test_golden_learning_rates():
    expected = load_file(GOLDEN / "h_optimizer.safetensors")["lr_multiplier"].tolist()
    got = [warmup_cosine(i, 4, 20, 0.01) for i in range(len(expected))]
    assert got == pytest.approx(expected, rel=1e-12)


def test_schedules_without_warmup_or_without_decay():
    assert warmup_cosine(0, 0, 10) == 1
    assert warmup_cosine(10, 10, 10) == 1


def _trained(steps, *, choose, kind=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    optimizer = kind(param_groups(model, 0.05), lr=1e-2, **options)
    if choose:
        fuse_on_cpu(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()
    return optimizer, torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_one_pass_over_parameters_on_the_cpu_takes_the_same_steps(kind):
    optimizer, actual = _trained(20, choose=True, kind=kind)
    plain, expected = _trained(20, choose=False, kind=kind)
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    assert {group["fused"] for group in plain.param_groups} == {None}
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    # Or else Lightning would not clip gradients in mixed float16.
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": False}])
def test_who_chose_how_parameters_are_changed_keeps_it(options):
    optimizer, _ = _trained(1, choose=True, **options)
    assert not any(group["fused"] for group in optimizer.param_groups)


def test_other_optimizers_and_devices_are_left_alone():
    optimizer, _ = _trained(1, choose=True, kind=torch.optim.NAdam)
    assert not any(group.get("fused") for group in optimizer.param_groups)
    elsewhere = torch.optim.AdamW([nn.Parameter(torch.zeros(2, device="meta"))])
    fuse_on_cpu(elsewhere)
    assert elsewhere.param_groups[0]["fused"] is None
