import json

import pytest

from tests.evaluation.contents import classification
from vmm.evaluation.classification.results import ClassificationResult
from vmm.evaluation.classification.twins import (
    TwinClass,
    TwinNumbers,
    build_twin_page,
    measure_twins,
    read_twins,
    verdict,
)

CLASSES = {
    "left": TwinClass("direction", "right"),
    "right": TwinClass("direction", "left"),
    "grows": TwinClass("order", "shrinks"),
    "shrinks": TwinClass("order", "grows"),
}


def result(name, choices):
    """One that was asked about left, left, right, grows, and chose so."""
    content = classification() | {"name": name, "classes": [*CLASSES]}
    labels = [0, 0, 1, 2]
    content["predictions"] = [
        [str(i), label, choice]
        for i, (label, choice) in enumerate(zip(labels, choices, strict=True))
    ]
    content.pop("schema")
    return ClassificationResult(**content)


def test_between_twins_only_those_two_answers_count():
    measured = measure_twins(result("x", [0, 1, 1, 0]), CLASSES)
    assert measured["all"] == TwinNumbers(4, 50.0, pytest.approx(200 / 3))
    assert measured["direction"] == TwinNumbers(3, pytest.approx(200 / 3), pytest.approx(200 / 3))
    assert measured["order"] == TwinNumbers(1, 0.0, None)


def test_an_unreadable_clip_is_wrong():
    measured = measure_twins(result("x", [0, None, 1, 2]), CLASSES)
    assert measured["all"] == TwinNumbers(4, 75.0, 100.0)


@pytest.mark.parametrize(
    ("share", "meaning"),
    [
        (98.0, "98.0 %: it sees the order of frames"),
        (70.0, "70.0 %: it sees something of it"),
        (52.0, "52.0 %: it does not see the order of frames"),
        (1.0, "1.0 %: it says the opposite"),
        (None, "takes no clip for its class"),
    ],
)
def test_numbers_in_words(share, meaning):
    assert meaning in verdict({"the model": TwinNumbers(9, 50.0, share)})


def test_the_page(tmp_path, look_at):
    results = [("VideoMamba", result("a", [0, 0, 1, 2])), ("reversed", result("b", [1, 1, 0, 3]))]
    steps = [{"name": "clips", "command": "python -m x", "seconds": "3"}]
    table = build_twin_page(tmp_path / "page.html", results, CLASSES, steps).splitlines()
    assert [line.split() for line in table] == [
        ["between", "twins", "top-1"],
        ["VideoMamba", "100.0", "100.0"],
        ["reversed", "0.0", "0.0"],
        ["chance", "50.0", "25.0"],
        [],
        ["direction:", "top-1", "order:", "top-1", "direction:", "twins", "order:", "twins"],
        ["VideoMamba", *["100.0"] * 4],
        ["reversed", *["0.0"] * 4],
    ]
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "python -m x" in page
    look_at(tmp_path / "page.html")


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="about other classes"):
        measure_twins(result("x", [0, 0, 1, 2]), {n: CLASSES[n] for n in ("left", "right")})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "does not say of every class"),
        ({"a": {"group": "x"}}, "does not say of every class"),
        ({"a": {"group": "x", "twin": "b"}}, "not the other way round"),
        ({"a": {"group": "x", "twin": "b"}, "b": {"group": "x", "twin": "b"}}, "not the other way"),
    ],
)
def test_files_that_are_no_twins(tmp_path, content, said):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        read_twins(tmp_path / "x.json")
