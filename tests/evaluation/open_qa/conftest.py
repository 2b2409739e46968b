"""Some questions, and what a model said to them."""

from types import SimpleNamespace

import pytest

from vmm.evaluation.open_qa.questions import OpenQuestion
from vmm.evaluation.open_qa.scoring import Reply


def question(number, video, kind, *answers):
    return OpenQuestion(str(number), video, "what is it", list(answers), kind)


def reply(best, blank, *others):
    return Reply([best, *others], [-1.0] * (1 + len(others)), blank)


@pytest.fixture
def asked():
    return SimpleNamespace(
        answers=["yes", "no", "a T-shirt", "man"],
        questions=[
            question(0, 0, "b", "yes"),
            question(1, 0, "b", "no"),
            question(2, 1, "b", "yes"),
            question(3, 1, "o", "t shirt", "a t shirt."),
            question(4, 2, "o", "boat"),
        ],
        replies=[reply(0, 0), reply(0, 0, 1), reply(1, 0), reply(2, 3), None],
    )
