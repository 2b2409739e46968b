import pytest

from vmm.evaluation.open_qa.measure import judge, measure


def test_answers_are_compared_by_their_words(asked):
    judged = judge(asked.questions, asked.replies, asked.answers)
    assert judged.model.tolist() == [1, 0, 0, 1, 0]
    assert judged.top.tolist() == [1, 1, 0, 1, 0]
    assert judged.blank.tolist() == [1, 0, 1, 0, 0]
    assert judged.frequent.tolist() == [1, 0, 1, 1, 0]  # "yes" and, first of equals, "a t shirt"


def test_a_video_that_cannot_be_read_is_no_gain_of_a_control(asked):
    many = [asked.questions[0]._replace(video=9 + i) for i in range(40)]
    judged = judge([*asked.questions, *many], [*asked.replies, *[None] * 40], asked.answers)
    numbers = measure([*asked.questions, *many], judged)
    assert numbers["accuracy"]["value"] == pytest.approx(100 * 2 / 45)
    assert numbers["gain"]["value"] == pytest.approx(-25)
    judged = judged._replace(blank=judged.read, frequent=1 - judged.read)  # better where it is lost
    assert measure([*asked.questions, *many], judged)["control"] == "blank"


def test_numbers_by_kind_and_against_the_better_control(asked):
    numbers = measure(asked.questions, judge(asked.questions, asked.replies, asked.answers))
    assert numbers["accuracy"]["value"] == pytest.approx(40)
    assert numbers["control"] == "frequent"
    assert numbers["gain"]["value"] == pytest.approx(-25)  # of the four whose video was read
    assert numbers["by_kind"]["b"]["questions"] == 3
    assert numbers["by_kind"]["b"]["accuracy"]["value"] == pytest.approx(100 / 3)
    assert numbers["by_kind"]["o"]["blank"]["value"] == 0
