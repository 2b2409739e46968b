import pytest
import torch

from vmm.losses.answer import answer_loss, weigh_answers


def test_answers_weigh_what_share_of_people_gave_them():
    texts, rows, weights = weigh_answers([["red"], ["up", "left", "up", "down"]])
    assert texts == ["red", "up", "left", "down"]
    assert rows.tolist() == [0, 1, 1, 1] and rows.dtype == torch.int64
    assert weights.tolist() == [1.0, 0.5, 0.25, 0.25]


def test_the_loss_is_the_mean_over_questions_of_all_that_people_said():
    """Merging equal answers must not change it: every answer of everybody, one by one."""
    given = [["a"], ["b", "c", "b"]]
    likelihood = {"a": -1.0, "b": -2.0, "c": -4.0}
    expected = -sum(sum(likelihood[x] for x in said) / len(said) for said in given) / 2
    texts, _, weights = weigh_answers(given)
    found = answer_loss(torch.tensor([likelihood[x] for x in texts]), weights, 2)
    assert found.item() == pytest.approx(expected)
