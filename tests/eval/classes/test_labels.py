import json

import pytest

from eval.classes.labels import (
    Truth,
    hash_of,
    number_classes,
    read_class_names,
    read_labelled,
    truths_of,
)
from eval.classes.protocols import CLASS_PROTOCOLS


def test_kinetics_is_numbered_by_the_sorted_names(tmp_path):
    file = tmp_path / "validate.csv"
    rows = ["label,youtube_id,time_start,time_end,split"]
    rows += [f"{name},abcdefghij{i},1,11,validate" for i, name in enumerate(("yoga", "abseiling"))]
    rows += ["zumba,abcdefghijk,1,11,train"]
    file.write_text("\n".join(rows))
    truths = truths_of(read_labelled(CLASS_PROTOCOLS["k400"], file))
    classes = number_classes(truths)
    assert classes.names == ["abseiling", "yoga"] and classes.labels.tolist() == [1, 0]


def test_lists_of_paths_and_numbers_are_taken_for_every_set(tmp_path):
    file = tmp_path / "test.csv"
    file.write_text("cam01/a.avi,0,12.5\ncam02/a.avi,2,3\n")
    truths = truths_of(read_labelled(CLASS_PROTOCOLS["breakfast"], file))
    assert [(t.key, t.label, t.name) for t in truths] == [
        ("cam01/a.avi", 0, None),
        ("cam02/a.avi", 2, None),
    ]
    names = tmp_path / "names.txt"
    names.write_text("coffee\njuice\ntea\n")
    assert number_classes(truths).names == [None, None, None]
    assert number_classes(truths, names).names == ["coffee", "juice", "tea"]


def test_numbers_of_the_annotations_come_with_their_names():
    truths = [Truth("a", "a", "tea", 2), Truth("b", "b", "juice", 0), Truth("c", "c", "tea", 2)]
    classes = number_classes(truths)
    assert classes.names == ["juice", None, "tea"] and classes.labels.tolist() == [2, 0, 2]
    with pytest.raises(ValueError, match="a number must stand for one class"):
        number_classes([*truths, Truth("d", "d", "milk", 2)])


def test_a_list_of_names_numbers_them_whatever_their_spelling(tmp_path):
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"Pour_[something]": "1", "drink tea": 0}))
    truths = [Truth("a", "a", "pour something"), Truth("b", "b", "Drink Tea"), Truth("c", "c", "x")]
    assert number_classes(truths, file).labels.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 0, "b": 2}', "numbers from 0 to 1"),
        ('["a", "a"]', "every class once"),
        ('["a", 3]', "class names"),
        ("[]", "class names"),
    ],
)
def test_wrong_lists_of_names(tmp_path, text, message):
    file = tmp_path / "names.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(file)


def test_the_hash_depends_on_what_is_asked_only():
    truths = [Truth("a", "x", "tea"), Truth("b", "y", "milk")]
    assert hash_of(truths) == hash_of(truths[::-1])
    assert hash_of(truths) != hash_of([truths[0], truths[1]._replace(name="tea")])
