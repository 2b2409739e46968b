import pytest

from vmm.evaluation.grounding.results import (
    GroundingResult,
    highlight_rows,
    lead_rows,
    length_rows,
    moment_rows,
)


def number(value, error=1.0):
    return {"value": value, "error": error}


@pytest.fixture
def numbers():
    keys = ("R1@0.3", "R1@0.5", "R1@0.7", "R5@0.5", "R5@0.7", "mIoU", "mAP@0.5", "mAP@0.75", "mAP")
    own = {key: number(10.0 * place) for place, key in enumerate(keys)}
    high = {"HIT@1 Fair": number(3.0), "HIT@1 VeryGood": number(5.0, None)}
    methods = dict.fromkeys(("head", "curve", "whole"), own)
    return {
        "headline": "head", "metric": "R1@0.5", "metrics": dict.fromkeys(methods, own | high),
        "lead": {"whole": number(6.0, 2.0)}, "gain": number(2.0, 0.0), "verdict": "It helps.",
        "by_length": {"short": {"queries": 7, "methods": methods}},
        "recall": {"iou": [], "methods": {}},
    }  # fmt: skip


def test_rows(numbers):
    assert moment_rows(numbers)[1][:3] == ["trained head", "0.0 ±1.0", "10.0 ±1.0"]
    rows = highlight_rows(numbers)
    assert rows[0] == ["", "HIT@1 VeryGood", "HIT@1 Fair"] and rows[2][1:] == ["5.0", "3.0 ±1.0"]
    assert lead_rows(numbers)[1:] == [
        ["whole video, the longest window", "6.0 ±2.0", "3.0"],
        ["relevance curve", "2.0 ±0.0", "-"],
    ]
    assert length_rows(numbers)[1] == [
        "short (to 10 s): trained head", "7", "10.0 ±1.0", "20.0 ±1.0", "80.0 ±1.0",
    ]  # fmt: skip
    for own in numbers["metrics"].values():
        own.pop("HIT@1 Fair", None), own.pop("HIT@1 VeryGood", None)
    assert highlight_rows(numbers) == []


def test_files_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as a result of `vmm eval grounding`"):
        GroundingResult.read(tmp_path)
    (tmp_path / "grounding.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match="lacks by_length, command"):
        GroundingResult.read(tmp_path)
