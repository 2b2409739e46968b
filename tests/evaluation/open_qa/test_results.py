import json

import pytest

from tests.evaluation import contents
from vmm.evaluation.open_qa.results import OpenQaResult, kind_rows, number_rows


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "open_qa.json").write_text(json.dumps(content))
        return OpenQaResult.read(tmp_path)

    return read


def test_what_is_written_is_read(read, tmp_path):
    content = contents.open_qa()
    result = read(content)
    path = result.write(tmp_path)
    assert json.loads(path.read_text()) == content and OpenQaResult.read(path) == result


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (contents.retrieval(), "no result of this version of `vmm eval open-qa`; run it again"),
        (contents.classification(), "lacks replies; run `vmm eval open-qa` again"),
    ],
)
def test_a_file_of_another_kind_is_refused(read, content, said):
    with pytest.raises(ValueError, match=said):
        read(content)


def test_numbers_stand_beside_their_controls(read):
    result = read(contents.open_qa())
    rows = {name: cells for name, *cells in number_rows(result)}
    assert rows["accuracy"] == ["33.3", "23.3 to 43.3"] and rows["blank video"][0] == "0.0"
    assert rows["right answer among 5"][0] == "66.7"
    assert kind_rows(result)[1] == ["what", "3", "33.3", "0.0", "20.0"]


def test_the_verdict_is_the_lower_end_of_the_gain(read):
    content = contents.open_qa()
    assert read(content).verdict() == (
        "The video helps: 33.3 % right, and where the video could be read +13.3 points (3.3 to "
        "23.3) against the better control, most frequent answer."
    )
    content["data"]["unreadable"] = 0
    assert "33.3 % right, +13.3 points" in read(content).verdict()
    content["numbers"]["gain"]["interval"][0] = 0.0
    content["numbers"]["control"] = "blank"
    said = read(content).verdict()
    assert said.startswith("Nothing shows that the video helps") and "control, blank" in said


def test_table_and_card_never_say_zero_shot(read):
    content = contents.open_qa()
    content["findings"] = [{"code": "size", "message": "some", "effect": "much"}]
    result = read(content)
    table, card = result.table(), dict(result.card())
    assert table.startswith("mine (trained on answers): shards, 3 questions about 2 videos (1 unre")
    assert table.endswith("! size: some\n    much") and "zero-shot" not in table
    assert card["kind"] == "fine-tuned on questions and answers, not zero-shot"
    assert card["videos"] == "2, 1 unreadable (1 empty)"
    assert "9 (answers.json, hash fedcba9876543210)" in card["answers"]
