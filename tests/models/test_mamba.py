import math

import pytest
import torch

from vmm.models.mamba import BiMambaBlock, BiMambaMixer

OUTPUT, GRADIENT = 1e-5, 1e-4


@pytest.fixture
def recorded(golden):
    return golden("b_bimamba_mixer")


@pytest.fixture
def mixer(recorded):
    mixer = BiMambaMixer(40)
    state = {k.removeprefix("state."): v for k, v in recorded.items() if k.startswith("state.")}
    mixer.load_state_dict(state)
    return mixer


@pytest.mark.parametrize("length", [33, 1, 2])
def test_matches_the_published_mixer(mixer, recorded, relative_error, length):
    case = f"len{length}"
    hidden = recorded[f"{case}.input"].requires_grad_()
    output = mixer(hidden)
    output.backward(recorded[f"{case}.dout"])
    assert relative_error(output, recorded[f"{case}.output"]) < OUTPUT
    assert relative_error(hidden.grad, recorded[f"{case}.grad_input"]) < GRADIENT
    checked = 0
    for name, parameter in mixer.named_parameters():
        if f"{case}.grad.{name}" in recorded:
            error = relative_error(parameter.grad, recorded[f"{case}.grad.{name}"])
            assert error < GRADIENT, name
            checked += 1
    assert checked == (16 if length == 33 else 0)


def test_reversing_the_sequence_and_swapping_directions_reverses_the_output(mixer):
    swapped = BiMambaMixer(40)
    names = {"A_log": "A_b_log", "D": "D_b"}
    names |= {name: f"{name}_b" for name in ("conv1d", "x_proj", "dt_proj")}
    names |= {v: k for k, v in names.items()}
    state = {}
    for key, value in mixer.state_dict().items():
        head, dot, rest = key.partition(".")
        state[names.get(head, head) + dot + rest] = value
    swapped.load_state_dict(state)
    hidden = torch.randn(2, 21, 40)
    torch.testing.assert_close(swapped(hidden.flip(1)).flip(1), mixer(hidden), rtol=1e-5, atol=1e-6)


def test_both_directions_reach_every_token(mixer):
    hidden = torch.randn(1, 9, 40, requires_grad=True)
    mixer(hidden)[0, 4].sum().backward()
    assert (hidden.grad[0].abs().sum(-1) > 0).all()


def test_block_normalises_before_mixing():
    block = BiMambaBlock(40, d_state=16, d_conv=4, expand=2)
    residual = torch.randn(2, 5, 40)
    torch.testing.assert_close(block(1000 * residual), block(residual), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("suffix", ["", "_b"])
def test_mamba_initialisation_spreads_step_sizes_in_both_directions(suffix):
    mixer = BiMambaMixer(64)
    mixer.reset_parameters("mamba", residual_branches=4)
    bias = mixer.get_parameter(f"dt_proj{suffix}.bias")
    steps = torch.nn.functional.softplus(bias)
    assert steps.min() > 0.9e-3 and steps.max() < 0.11
    assert steps.max() / steps.min() > 10


def test_reference_initialisation_starts_at_softplus_of_zero():
    mixer = BiMambaMixer(64)
    mixer.reset_parameters("reference", residual_branches=4)
    assert not mixer.dt_proj.bias.any() and not mixer.dt_proj_b.bias.any()
    bound = math.sqrt(1 / 128) / math.sqrt(4)
    assert mixer.out_proj.weight.abs().max() <= bound


def test_gradcheck_in_float64():
    mixer = BiMambaMixer(8, d_state=4).double()
    hidden = torch.randn(1, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, hidden)
