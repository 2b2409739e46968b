import json

import pytest

from tests.evaluation import contents
from vmm.evaluation.classification.results import ClassificationResult, number_rows


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "classification.json").write_text(json.dumps(content))
        return ClassificationResult.read(tmp_path)

    return read


@pytest.mark.parametrize("content", [contents.classification(), contents.regression()])
def test_what_is_written_is_read(read, tmp_path, content):
    result = read(content)
    path = result.write(tmp_path)
    assert json.loads(path.read_text()) == content and ClassificationResult.read(path) == result


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            contents.retrieval(),
            "no result of this version of `vmm eval classification`; run it again",
        ),
        (contents.open_qa(), "lacks classes, predictions; run `vmm eval classification` again"),
    ],
)
def test_a_file_of_another_kind_is_refused(read, content, said):
    with pytest.raises(ValueError, match=said):
        read(content)


def test_numbers_stand_beside_what_needs_no_video(read):
    content = contents.classification()
    rows = {name: cells for name, *cells in number_rows(read(content))}
    assert rows["top-1"] == ["40.0", "20.0 to 60.0"] and rows["chance"] == ["33.3", ""]
    assert "top-5" not in rows  # of three classes
    content["classes"] += list("abc")
    assert ["top-5", "80.0", "60.0 to 100.0"] in number_rows(read(content))
    rows = {name: cells for name, *cells in number_rows(read(contents.regression()))}
    assert rows["mean squared error"] == ["0.2500", "0.1000 to 0.4000"]
    assert rows["always their mean"] == ["0.5000", ""]


def test_the_summary_says_what_is_missing(read):
    content = contents.classification()
    start = "shards, label, zero-shot by prompts: 5 samples (1 unreadable, "
    assert read(content).summary() == f"{start}counted as wrong), 6 views of 8 frames"
    content["data"]["coverage"] = "available"
    content["settings"] |= {"clips": 1, "crops": 1}
    assert read(content).summary() == f"{start}left out), 1 view of 8 frames"
    content["data"]["readable"] = 5
    assert "by prompts: 5 samples, 1 view" in read(content).summary()
    assert dict(read(content).card())["views"].startswith("1 clip x 1 crop, merged")
    content["findings"] = [{"code": "ties", "message": "some", "effect": "much"}]
    assert read(content).table().endswith("! ties: some\n    much")


def test_the_card_names_classes_prompts_and_views(read):
    card = dict(read(contents.classification()).card())
    assert card["samples"] == "5 listed, 4 readable (1 empty)"
    assert card["classes"] == "3, numbered by names in order" and card["prompts"] == "'a {}'"
    assert card["views"] == "2 clips x 3 crops, merged by sample: mean of cosines"
    assert "a number to predict" in dict(read(contents.regression()).card())["classes"]
