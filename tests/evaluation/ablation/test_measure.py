import math

import pytest

from vmm.evaluation.ablation.measure import (
    by_chance,
    claim_in_words,
    compare,
    estimate,
    in_words,
    measure_of,
    told_apart,
)
from vmm.evaluation.ablation.studies import Claim, Study, Training
from vmm.evaluation.common.clustered import Estimate

ONE, OTHER = Training("a.yaml"), Training("b.yaml")


def study(**changes):
    claim = Claim("other", "It helps", 1, "It may be too short.")
    made = Study("s", "Does it?", {"one": ONE, "other": OTHER}, ("one", "other"), claim=claim)
    return made._replace(**changes)


def results(one, other):
    """By seed, (test, training) accuracies of both."""
    return {
        (training.key(), seed): {"top_1": test, "train_top_1": train}
        for training, values in ((ONE, one), (OTHER, other))
        for seed, (test, train) in enumerate(values, start=1)
    }


def test_the_standard_error_is_that_of_the_textbook():
    # Deviations -3, 0, 3: variance 18 / 2, error sqrt(9 / 3).
    found = estimate([60.0, 63.0, 66.0])
    assert found.mean == pytest.approx(63) and found.error == pytest.approx(math.sqrt(3))
    assert estimate([1.0]) == Estimate(1.0, None)


def test_differences_are_paired_by_seed():
    # Seeds differ by 20 points, the variants by 2, 3 and 4 in each: the error is sqrt(1 / 3).
    found = results([(40, 0), (50, 0), (60, 0)], [(42, 0), (53, 0), (64, 0)])
    one, other = compare(study(), found)
    assert one.difference is None and one.mean.mean == pytest.approx(50)
    assert other.difference.mean == pytest.approx(3)
    assert other.difference.error == pytest.approx(math.sqrt(1 / 3))
    assert other.mean.error > 6


def test_the_gap_is_training_less_test():
    assert measure_of("gap", {"top_1": 60.0, "train_top_1": 85.0}) == 25
    _, other = compare(study(measure="gap"), results([(60, 90), (60, 92)], [(60, 80), (60, 81)]))
    assert other.values == [20, 21] and other.difference.mean == pytest.approx(-10.5)


@pytest.mark.parametrize(
    ("difference", "apart", "said"),
    [
        (Estimate(3.1, 1.0), True, "B is 3.1 ± 1.0 points above A: more than two standard errors"),
        (Estimate(-3.1, 1.0), True, "B is 3.1 ± 1.0 points below A: more than two standard errors"),
        (Estimate(1.9, 1.0), False, "B and A are not told apart (difference +1.9 ± 1.0 points)"),
        (Estimate(0.0, 0.0), False, "B and A are not told apart"),
        (Estimate(9.0, None), False, "one seed only, which says nothing about luck"),
    ],
)
def test_differences_in_words(difference, apart, said):
    assert told_apart(difference) is apart
    assert said in in_words("B", "A", difference)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([(50, 0), (61, 0), (70, 0)], "It helps: yes, by more than two standard errors (+10.3"),
        ([(30, 0), (41, 0), (50, 0)], "It helps: no, the opposite (-9.7 ± 0.3 points). It may be"),
        ([(40, 0), (55, 0), (55, 0)], "It helps: not shown (+0.0 ± 2.9 points). It may be too"),
    ],
)
def test_claims_in_words(other, said):
    compared = compare(study(), results([(40, 0), (50, 0), (60, 0)], other))
    assert claim_in_words(study(), compared).startswith(said)


def test_a_claim_may_be_that_something_is_less():
    less = study(claim=Claim("other", "It costs", -1, "It may be too short."))
    compared = compare(less, results([(40, 0), (50, 0), (60, 0)], [(30, 0), (41, 0), (50, 0)]))
    assert claim_in_words(less, compared).startswith("It costs: yes, by more than two")


def test_claims_of_one_seed_or_of_nothing():
    compared = compare(study(), results([(40, 0)], [(50, 0)]))
    assert "not known from one seed" in claim_in_words(study(), compared)
    assert claim_in_words(study(claim=None), compared) is None
    assert claim_in_words(study(), compared[:1]) is None


@pytest.mark.parametrize(("seeds", "chance"), [(2, 0.2952), (3, 0.1835), (5, 0.1161)])
def test_luck_by_student_s_t(seeds, chance):
    assert by_chance(seeds) == pytest.approx(chance, abs=2e-4)
