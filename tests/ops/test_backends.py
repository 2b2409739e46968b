import sys
import types

import pytest
import torch

from vmm.ops import backends


@pytest.fixture
def three(monkeypatch):
    """Backends of which the first can do nothing and the second only small inputs."""
    reasons = {
        "first": lambda x: "never",
        "second": lambda x: None if x.numel() < 5 else "too large",
        "third": lambda x: None,
    }
    for name, why_not in reasons.items():
        module = types.ModuleType(f"fake_{name}")
        module.why_not = why_not
        monkeypatch.setitem(sys.modules, f"fake_{name}", module)
    monkeypatch.delenv("FAKE_BACKEND", raising=False)
    return {name: backends.Backend(f"fake_{name}") for name in reasons}


def test_the_first_that_can_is_chosen_and_the_others_say_why_not(three):
    assert backends.choose(three, "FAKE_BACKEND", torch.zeros(2)) == ("second", {"first": "never"})
    name, reasons = backends.choose(three, "FAKE_BACKEND", torch.zeros(9))
    assert name == "third" and reasons == {"first": "never", "second": "too large"}


def test_a_variable_forces_one(three, monkeypatch):
    monkeypatch.setenv("FAKE_BACKEND", "third")
    name, reasons = backends.choose(three, "FAKE_BACKEND", torch.zeros(2))
    assert name == "third" and reasons["second"] == "FAKE_BACKEND=third"
    assert backends.resolve(three, "FAKE_BACKEND", "auto", torch.zeros(2)) == "third"


def test_a_name_in_the_call_wins_over_the_variable(three, monkeypatch):
    monkeypatch.setenv("FAKE_BACKEND", "third")
    assert backends.resolve(three, "FAKE_BACKEND", "second", torch.zeros(2)) == "second"


@pytest.mark.parametrize("forced", [True, False])
def test_one_that_cannot_run_says_why_and_what_to_do(three, monkeypatch, forced):
    if forced:
        monkeypatch.setenv("FAKE_BACKEND", "second")
    name = "auto" if forced else "second"
    with pytest.raises(ValueError, match=r"'second' cannot run here: too large; .*auto"):
        backends.resolve(three, "FAKE_BACKEND", name, torch.zeros(9))


def test_an_unknown_name_lists_the_known_ones(three):
    with pytest.raises(ValueError, match=r"'fourth'; choose one of first, second, third or 'auto'"):
        backends.resolve(three, "FAKE_BACKEND", "fourth", torch.zeros(2))


def test_none_that_can_run_is_an_error(three):
    del three["second"], three["third"]
    with pytest.raises(ValueError, match=r"no backend.*never"):
        backends.choose(three, "FAKE_BACKEND", torch.zeros(2))


def test_a_gradient_is_wanted_only_while_autograd_records():
    x, parameter = torch.zeros(2), torch.zeros(2, requires_grad=True)
    assert not backends.gradient_wanted(x, None)
    assert backends.gradient_wanted(x, None, parameter)
    with torch.no_grad():
        assert not backends.gradient_wanted(parameter)
