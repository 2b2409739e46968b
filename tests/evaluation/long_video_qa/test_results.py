import csv
import json
from dataclasses import replace

import pytest

from vmm.evaluation.long_video_qa.results import QaResult, accuracy_rows, write_submission
from vmm.text_output import visible


def test_what_is_written_is_read(result, tmp_path):
    assert QaResult.read(tmp_path / "out") == result
    assert result.data["hash"] == "259485595e340e6e"  # of published results: never moves
    content = json.loads((tmp_path / "out" / "qa.json").read_text())
    assert "numbers" not in content and content["verdict"] == result.numbers["verdict"]


def test_where_no_answer_is_public_there_are_no_numbers(result, tmp_path):
    hidden = replace(result, numbers=None)
    content = json.loads(hidden.write(tmp_path).read_text())
    assert content["accuracy"] is content["verdict"] is None
    assert QaResult.read(tmp_path) == hidden
    assert "no answer is public here" in hidden.table()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as a result of `vmm eval long-video-qa`"),
        ("[]", "no result of this version of `vmm eval long-video-qa`; run it again"),
        (
            '{"schema": 9, "verdict": ""}',
            "no result of this version of `vmm eval long-video-qa`; run it",
        ),
        ('{"schema": 1}', "lacks accuracy, by_duration, .*; run `vmm eval long-video-qa` again"),
    ],
)
def test_what_is_no_result(tmp_path, text, said):
    (tmp_path / "qa.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        QaResult.read(tmp_path / "qa.json")


def test_the_headline_stands_first_and_controls_say_how_far_it_is_above_them(result):
    header, first, *rest = accuracy_rows(result.numbers)
    assert header[1:] == ["accuracy", "± error", "first line's lead", "lead / its error"]
    assert first == ["mixture, 0.7 matching + 0.3 similarity", "100.0", "0.0", "", ""]
    lead = {row[0]: row[3] for row in rest}
    assert lead["chance"] == "75.0" and lead["matching"] == ""


def test_the_card_says_how_the_video_was_seen(result):
    assert dict(result.card())["seen"] == "whole video in one pass"
    settings = result.settings | {"fps": 0.5, "window": 8, "aggregate": "lse"}
    card = dict(replace(result, settings=settings).card())
    assert card["frames"] == "0.5 per second" and card["seen"] == "windows of 8 frames, lse"


@pytest.mark.parametrize("odd", ["a\x0bb\0", "half \ud83d", "\x1b[31m", "\ufffe"])
def test_odd_names_leave_a_file_to_submit(odd, tmp_path):
    write_submission(tmp_path / "a.csv", "id", [{"key": odd, "chosen": 1}])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["id", "answer"], [visible(odd), "1"]]


def test_a_question_whose_video_is_unreadable_is_answered_too(tmp_path):
    write_submission(tmp_path / "a.csv", "q", [{"key": "x", "chosen": None}])
    assert (tmp_path / "a.csv").read_text() == "q,answer\nx,0\n"
