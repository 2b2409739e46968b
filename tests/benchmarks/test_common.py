import itertools

import pytest
import torch

from benchmarks import common, report


@pytest.fixture
def clock(monkeypatch):
    """Let calls say themselves how long they took."""
    monkeypatch.setattr(common, "elapsed", lambda call: call())


def test_who_would_take_too_long_drops_out(clock):
    race = common.Race(rounds=3, limit_s=10)
    ran = []

    def variants(size):
        def square():
            ran.append(size)
            return 0.1 * size**2

        return {"linear": lambda: 0.1 * size, "square": square}

    for size in (1, 2, 4, 8, 16, 32):
        times = race.run(size, variants(size))
        assert times["linear"].fastest == pytest.approx(0.1 * size)
        assert ("square" in times) == (size <= 8)  # 16 would take 25.6 s
    assert 16 not in ran


def test_growth_is_taken_for_the_square_until_it_is_known(clock):
    race = common.Race(rounds=1, limit_s=10)
    race.run(1, {"a": lambda: 1.0})
    assert race.run(4, {"a": lambda: 4.0}) == {}
    assert "a" in race.run(3, {"a": lambda: 3.0})
    assert "a" in race.run(9, {"a": lambda: 9.0})  # linear by now


def test_the_first_run_is_not_counted_and_turns_alternate(clock):
    order = []

    def variant(name, seconds):
        times = iter(seconds)

        def call():
            order.append(name)
            return next(times)

        return call

    race = common.Race(rounds=2, limit_s=100)
    times = race.run(1, {"a": variant("a", [9, 3, 4]), "b": variant("b", [9, 2, 1])})
    assert times == {"a": common.Timing(3, 3.5, 2), "b": common.Timing(1, 1.5, 2)}
    assert [name for name, _ in itertools.groupby(order)] == ["a", "b"] * 3


def test_slow_variants_get_fewer_turns(clock):
    times = common.Race(rounds=9, limit_s=10).run(1, {"a": lambda: 4.0, "b": lambda: 7.0})
    assert times["a"].runs == 3  # 12 s; a fourth turn does not begin
    assert times["b"].runs == 2  # too slow to warm up for nothing


def test_a_turn_of_a_quick_variant_is_many_runs(clock):
    times = common.Race(rounds=2, limit_s=1).run(1, {"quick": lambda: common.TURN_S / 4})
    assert times["quick"].runs == 8


def test_errors_are_shares_of_the_largest_value():
    exact = torch.tensor([1.0, -8.0], dtype=torch.float64)
    assert common.error(torch.tensor([1.5, -8.0]), exact) == 0.5 / 8


def test_memory_is_not_measured_with_several_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"2 threads; call torch.set_num_threads\(1\)"):
            common.extra_memory(list)


@pytest.mark.parametrize(
    ("promised", "measured", "at_most", "met"),
    [(2, 2, False, True), (2, 1.9, False, False), (2, 2, True, True), (2, 2.1, True, False)],
)
def test_bars(promised, measured, at_most, met):
    bar = report.Bar("what", promised, measured, at_most)
    assert bar.met is met
    assert ("| NO |" in report.bar_table([bar])) is not met


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (1234.5, "1234"),
        (12.34, "12.3"),
        (0.0123, "0.0123"),
        (2e-6, "2.0e-06"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text
