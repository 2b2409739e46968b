"""Downloaders and tables keep a column for captions that nobody filled, beside the one that was."""

import json

import pytest

from vmm.data.annotations.registry import read_annotations


@pytest.mark.parametrize(
    ("fields", "captions"),
    [
        ({"caption": None, "text": "a cat"}, ["a cat"]),
        ({"caption": " ", "text": "a cat"}, ["a cat"]),
        ({"caption": [], "text": "a cat"}, ["a cat"]),
        ({"caption": [None, ""], "text": None, "sentence": ["a cat", "a dog"]}, ["a cat", "a dog"]),
        ({"caption": "a cat", "text": "an article"}, ["a cat"]),
    ],
)
def test_a_blank_caption_hides_no_other_column(tmp_path, fields, captions):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"video": "a.mp4", **fields}]))
    (item,) = read_annotations(path, "captions")
    assert item.captions == captions


def test_a_column_of_a_table_that_is_blank_hides_no_other(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("video,caption,text\na.mp4,,a cat\nb.mp4,a dog,\n")
    assert [i.captions for i in read_annotations(path, "captions")] == [["a cat"], ["a dog"]]


@pytest.mark.parametrize("fields", [{"caption": None}, {"caption": None, "text": ""}])
def test_a_video_without_any_caption_stays(tmp_path, fields):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"video": "a.mp4", **fields}]))
    (item,) = read_annotations(path, "captions")
    assert not any(item.captions)
