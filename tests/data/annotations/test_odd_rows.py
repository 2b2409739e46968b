"""One odd row is left out, counted and named; a file of them is refused."""

import json
import pickle

import pytest

from tests.data.annotations.examples import EXAMPLES, lines
from vmm.data.annotations.registry import DATASETS, read_annotations, read_with_odd_rows

# Where a layout keeps its rows, and a row that no reader can use.
IN_DICTIONARIES = {
    "msrvtt": lambda c: c["sentences"].append({"caption": "lost", "video_id": "video1"}),
    "msrvtt 9k": lambda c: c["videos"].append({"url": "no id"}),
    "msrvtt frozen": lambda c: c["annotations"].append({"caption": "no id"}),
    "activitynet": lambda c: c.update({"v_odd": {"sentences": ["no times"], "duration": 1}}),
    "activitynet-moments": lambda c: c.update({"v_odd": {"sentences": ["no times"]}}),
    "flickr30k": lambda c: c["images"].append({"sentences": []}),
    "coco": lambda c: c["images"].append({"filename": "x.jpg", "sentences": "one"}),
    "coin": lambda c: c["database"].update({"odd": {"subset": "training"}}),
}
IN_TABLES = {
    "folder csv": "b.mp4,backwards,5,2,test\n",
    "folder csv of fine-tuning": ",no file,,,\n",
    "class table": "d.mp4,\n",
    "lists in cells": ",no id\n",
    "moments in a table": "b.mp4,backwards,5,2\n",
    "charades-sta": "AMT7R 5.3##no end.\n",
    "msrvtt 1k-A": "ret9,msr9,,no id\n",
    "lsmdc": "1_A\tno times\n",
    "webvid": ",https://x,PT1S,0,no id\n",
    "kinetics": "running,abc,1.5,3,val,0\n",
    "ssv1": ";Something falling\n",
    "breakfast": "P03/cam01/x.avi, 3, cereals, none\n",
    "lvu": "x Ron_Howard abc tt1\n",
    "lvu number": "many abc tt1\n",
    "labelled list": "x/abc.mp4\n",
    "nextqa": "4010069381,2,3,4,how,9,1,CH,a,b,c,d,e\n",
}


def with_odd_row(name):
    """The example's files with one odd row more."""
    example = EXAMPLES[name]
    file, content = next(iter(example.files.items()))
    if name in IN_DICTIONARIES:
        content = json.loads(json.dumps(content))
        IN_DICTIONARIES[name](content)
    elif name in IN_TABLES:
        content = content.removesuffix("\n") + "\n" + IN_TABLES[name]
    elif name == "msvd":
        content = pickle.dumps(pickle.loads(content) | {"odd": [["a", 1]]})
    elif file.endswith(".jsonl"):
        content += lines({"odd": 1})
    else:
        content = [*content, {"odd": 1}]
    return example._replace(files=example.files | {file: content})


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "vindlu sqlite"])
def test_one_odd_row_is_left_out_counted_and_named(tmp_path, caplog, name):
    example = with_odd_row(name)
    path = example.write(tmp_path)
    reading = read_with_odd_rows(path, example.dataset, **example.read_options(tmp_path))
    assert [(item.key, item.captions) for item in reading.items] == example.items
    (odd,) = reading.odd
    assert (str(path) in odd and "expected" in odd) or "columns" in odd
    assert "1 odd rows are left out" in caplog.text and str(path) in caplog.text


def test_every_data_set_has_an_odd_row():
    assert {EXAMPLES[name].dataset for name in EXAMPLES} == set(DATASETS)


def test_a_file_of_odd_rows_is_refused(tmp_path):
    good, odd = {"video": "a.mp4", "caption": "a"}, {"video": "b.mp4"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([good, *[odd] * 8]))
    assert len(read_annotations(path)) == 1
    path.write_text(json.dumps([good, *[odd] * 9]))
    with pytest.raises(ValueError, match=r"item 1: expected text.*; 9 of 10 rows are odd"):
        read_annotations(path)


def test_the_odd_rows_of_mlvu_do_not_end_it(tmp_path):
    def asked(answer, *candidates):
        return {"video": "v.mp4", "duration": 400, "question": "what?", "answer": answer,
                "candidates": candidates, "question_type": "needle"}  # fmt: skip

    rows = [
        asked("flying a drone", "fishing", "a drone"),
        asked("", "in the garage", "", "on the shelf"),
        asked("", "", "", "", ""),
        asked("archery", "", "archery", "no archery", ""),
    ]
    path = tmp_path / "2_needle.json"
    path.write_text(json.dumps(rows))
    reading = read_with_odd_rows(path)
    assert [item.key for item in reading.items] == ["2_needle_3"]  # numbers do not move
    assert reading.items[0].metadata["options"] == ["", "archery", "no archery", ""]
    assert reading.items[0].metadata["answer"] == 1
    assert len(reading.odd) == 3 and "among the candidates, not 'flying a drone'" in reading.odd[0]


def test_many_odd_rows_are_named_in_one_sentence(tmp_path, caplog):
    rows = [{"video": f"{i}.mp4"} for i in range(30)]
    rows += [{"video": f"x{i}.mp4", "caption": "c"} for i in range(30)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    assert len(read_with_odd_rows(path, "captions").odd) == 30
    (record,) = caplog.records
    assert "30 odd rows" in record.message and "(and 25 more)" in record.message


def test_a_chosen_caption_that_is_not_there_is_odd(tmp_path):
    path = EXAMPLES["msrvtt"].write(tmp_path)
    ids = tmp_path / "ids.pkl"
    ids.write_bytes(pickle.dumps({"video0": 1, "video7": 4}))
    reading = read_with_odd_rows(path, ids=ids)
    assert [(i.key, i.captions) for i in reading.items] == [("video0", ["a man drives"])]
    assert "chooses caption 4 of 'video7', which has 1" in reading.odd[0]
