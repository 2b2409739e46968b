import json

import pytest

from vmm.data.annotations.class_list import read_class_names
from vmm.data.annotations.record import Annotation
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.class_protocols import CLASS_PROTOCOLS
from vmm.evaluation.common.labels import (
    Truth,
    hash_of,
    number_classes,
    read_labelled,
    sources_of,
    truths_in_shards,
    truths_of,
)
from vmm.evaluation.common.sources import ShardClips
from vmm.shards.tars import write_shard


def test_kinetics_is_numbered_by_the_sorted_names(tmp_path):
    file = tmp_path / "validate.csv"
    rows = ["label,youtube_id,time_start,time_end,split"]
    rows += [f"{name},abcdefghij{i},1,11,validate" for i, name in enumerate(("yoga", "abseiling"))]
    rows += ["zumba,abcdefghijk,1,11,train"]
    file.write_text("\n".join(rows))
    truths = truths_of(read_labelled(CLASS_PROTOCOLS["k400"], file))
    classes = number_classes(truths)
    assert classes.names == ["abseiling", "yoga"] and classes.labels.tolist() == [1, 0]


def test_a_file_of_both_splits_has_clips_to_train_on(tmp_path):
    file = tmp_path / "k400.csv"
    rows = ["label,youtube_id,time_start,time_end,split"]
    rows += [f"yoga,abcdefghij{i},1,11,{split}" for i, split in enumerate(("validate", "train"))]
    file.write_text("\n".join(rows))
    k400 = CLASS_PROTOCOLS["k400"]
    (test,), (train,) = read_labelled(k400, file), read_labelled(k400, file, train=True)
    assert (test.metadata["split"], train.metadata["split"]) == ("validate", "train")


def test_folders_of_classes_are_read(tmp_path):
    for name in ("tea", "milk"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    truths = truths_of(read_labelled(CLASS_PROTOCOLS["imagenet"], tmp_path))
    assert [(t.name, t.label, t.source) for t in truths] == [
        ("milk", 0, "milk/1.jpg"),
        ("tea", 1, "tea/1.jpg"),
    ]


def test_clips_of_one_video_are_known_by_their_json(tmp_path):
    said = [{"media": "a.mp4"}, {"media": "a.mp4"}, {"url": "u"}, {"url": 3}, {}]
    members = [
        [(f"{i}.mp4", b"x"), (f"{i}.json", json.dumps(one | {"label": "x"}).encode())]
        for i, one in enumerate(said)
    ]
    write_shard(tmp_path / "a.tar", members)
    clips = ShardClips(str(tmp_path / "a.tar"), ClipSettings(2, 16), captioned=False)
    truths = truths_in_shards(clips)
    assert [truth.source for truth in truths] == ["a.mp4", "a.mp4", "u", None, None]
    assert sources_of(truths).tolist() == [0, 0, 1, 2, 3]


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
    ("name", "text", "names"),
    [
        ("a.txt", "red\n\nblue\n\n", ["red", None, "blue"]),  # a line is a number
        ("a.txt", "\ufeff\nred\r\nlight\u2028blue\r\n", [None, "red", "light\u2028blue"]),
        ("a.json", '["red", "", null, "blue"]', ["red", None, None, "blue"]),
        ("a.csv", "id,name\n0,red\n1,light blue\n", ["red", "light blue"]),
        ("a.csv", 'id,name\n1,"blue, light"\n0,red\n', ["red", "blue, light"]),
        ("a.csv", "label;class_id\nred;1\nblue;0\n", ["blue", "red"]),
        ("a.csv", "Folding, twice\nSomething falling\n", ["Folding, twice", "Something falling"]),
        ("a.txt", "1 blue\n0 light red\n", ["light red", "blue"]),
        ("a.txt", "0,red\n1,blue\n", ["red", "blue"]),
        ("a.csv", "name\nred\nblue\n", ["red", "blue"]),
        ("a.json", '{"0": "red", "1": "blue"}', ["red", "blue"]),
        ("a.json", '{"\\"light red\\"": 1, "\\"blue\\"": 0}', ["blue", "light red"]),
        ("a.csv", '"light red"\n"blue"\n', ["light red", "blue"]),
    ],
)
def test_forms_of_lists_of_names(tmp_path, name, text, names):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / name) == names


def test_a_blank_line_moves_no_class(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("red\n\nblue\n")
    classes = number_classes([Truth("a", "a", "blue"), Truth("b", "b", "red")], file)
    assert classes.labels.tolist() == [2, 0] and classes.names == ["red", None, "blue"]


def test_numbers_in_annotations_are_classes_only_if_they_can_be():
    item = Annotation("a", "a", ["tea"], metadata={"label": "hot", "class": 7})
    assert truths_of([item])[0] == Truth("a", "a", "tea", source="a")
    with pytest.raises(ValueError, match=r"'a' has class number 1000000000000; count from 0"):
        number_classes([Truth("a", "a", "tea", 10**12)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 0, "b": 2}', "numbers from 0 to 1"),
        ('["a", "a"]', "every class once"),
        ('["a", 3]', "class names"),
        ("[]", "class names"),
        ('["", null]', "class names"),
        ('{"0": ["a"], "1": "b"}', "numbers from 0 to 1"),
        ('{"1": "a", "2": "b"}', "numbers from 0 to 1, each once; these begin at 1"),
        ('{"a": 0, "b": "%s"}' % ("9" * 5000), "numbers from 0 to 1"),
    ],
)
def test_wrong_lists_of_names(tmp_path, text, message):
    file = tmp_path / "names.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(file)


def test_the_hash_depends_on_what_is_asked_only():
    truths = [Truth("a", "x", "tea"), Truth("b", "y", "milk")]
    assert hash_of(truths) == "38d0f9a507005b42"  # of published results: never moves
    assert hash_of(truths) == hash_of(truths[::-1])
    assert hash_of(truths) != hash_of([truths[0], truths[1]._replace(name="tea")])
