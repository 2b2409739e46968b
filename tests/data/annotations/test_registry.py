import json
import pickle
import subprocess
import sys

import pytest

from tests.data.annotations.examples import EXAMPLES
from vmm.data.annotations.media import MediaFolder
from vmm.data.annotations.registry import DATASETS, detect, read_annotations, read_ids
from vmm.data.annotations.source import Source


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_layout_is_read(tmp_path, name):
    example = EXAMPLES[name]
    path = example.write(tmp_path)
    options = example.read_options(tmp_path)
    items = read_annotations(path, example.dataset, **options)
    assert [(item.key, item.captions) for item in items] == example.items
    assert items[0].metadata | example.metadata == items[0].metadata
    json.dumps([item.metadata for item in items])


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_media_of_every_layout_are_found(tmp_path, name):
    example = EXAMPLES[name]
    items = read_annotations(
        example.write(tmp_path / "files"),
        example.dataset,
        **example.read_options(tmp_path / "files"),
    )
    for file in example.media:
        (tmp_path / "media" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "media" / file).touch()
    by_key = {item.key: item for item in items}
    for file, key in example.media.items():
        item = by_key[key]
        folder = MediaFolder(tmp_path / "media", item.kind)
        assert folder.find(item.media, *item.aliases) == tmp_path / "media" / file


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_tells_whose_it_is_or_nothing_is_assumed(tmp_path, name):
    example = EXAMPLES[name]
    source = Source(example.write(tmp_path))
    if example.told:
        assert detect(source) == example.dataset
    elif name == "msvd-qa":
        with pytest.raises(ValueError, match="name the data set: msrvtt-qa or msvd-qa"):
            detect(source)
    else:
        # The same layout, another protocol.
        assert detect(source) in ("captions", "ssv2", "activitynet")


def test_every_data_set_has_an_example():
    assert {example.dataset for example in EXAMPLES.values()} == set(DATASETS)


def test_a_folder_of_files_is_one_data_set(tmp_path):
    for name in ("mlvu", "mlvu generation"):
        EXAMPLES[name].write(tmp_path)
    (tmp_path / "readme.json").write_text("{}")
    keys = [item.key for item in read_annotations(tmp_path, "mlvu")]
    assert keys == ["1_plotQA_0", "9_summary_0"]
    with pytest.raises(ValueError, match="name the data set"):
        read_annotations(tmp_path)
    with pytest.raises(ValueError, match=r"none of lvbench's files \(video_info.meta.jsonl\)"):
        read_annotations(tmp_path, "lvbench")


def test_twins_that_a_mac_writes_are_no_files_of_a_data_set(tmp_path):
    path = EXAMPLES["didemo"].write(tmp_path)
    (tmp_path / f"._{path.name}").write_bytes(b"\0\5\x16\7Mac")
    assert read_annotations(tmp_path, "didemo") == read_annotations(path, "didemo")


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("dataset", "name", "content", "message"),
    [
        ("captions", "a.json", '[{"video": "x.mp4"}]', "item 0: .*'caption'.*has: video"),
        ("captions", "a.json", '[{"caption": "x"}]', "item 0: expected text .*'video' or"),
        ("captions", "a.json", '[{"video": "x", "caption": 3}]', "item 0: expected text or a list"),
        ("captions", "a.json", '[{"video": "x", "caption": [["a"]]}]', "item 0: expected text or"),
        ("captions", "a.json", '[{"video": "x", "caption": "a"}, 7]', "item 1: .* not int"),
        ("captions", "a.json", '{"video": "x", "caption": "a"}', "a list of records, not dict"),
        ("captions", "a.json", "[]", "holds no item"),
        ("captions", "a.json", "[{", "expected JSON"),
        ("captions", "a.json", "[" * 100_000, "expected JSON"),
        ("captions", "a.jsonl", '{"video": "x", "caption": "a"}\n{"vid', "line 2: expected JSON"),
        ("captions", "a.json", b'[{"video": "x", "caption": "caf\xe9"}]', "is not UTF-8.*iconv"),
        ("captions", "a.db", "not sqlite", "SQLite with a table `annos`"),
        ("captions", "a.csv", "video,caption\nx.mp4,a,b\n", "line 2: 3 columns, the header has 2"),
        ("captions", "a.csv", "video,caption\nx.mp4\n", "line 2: expected text .*'caption'"),
        ("captions", "a.csv", 'video,caption\nx.mp4,"a\ny.mp4,b\n', "unexpected end of data"),
        ("captions", "a.csv", "video,caption,start,end\nx,a,5,2\n", "line 2: .* 0 <= start < end"),
        ("captions", "a.csv", "video,caption,start,end\nx,a,nan,2\n", "a number in .*'start'"),
        ("msrvtt", "a.json", '{"videos": [], "sentences": [{"video_id": "v", "caption": "c"}]}',
         "every sentence's video among 'videos', not 'v'"),
        ("msrvtt", "a.json", '{"videos": {}, "sentences": 3}', "list of records in .* 'sentences'"),
        ("msrvtt", "a.json", "[1]", "a JSON object, not list"),
        ("msvd", "a.pkl", pickle.dumps({"v": ["a", 1]}), "'v': expected a list of captions"),
        ("msvd", "a.pkl", b"\x80garbage", "a pickle of plain lists"),
        ("didemo", "a.json", '[{"video": "x", "description": "d"}]', "'annotation_id' and 'times'"),
        ("charades-sta", "a.txt", "3MSZA 1 2 a light", "line 1: .*, not '3MSZA 1 2 a light'"),
        ("charades-sta", "a.txt", "3MSZA 1##a light", "line 1: expected VIDEO START END##SENT"),
        ("charades-sta", "a.txt", "3MSZA 5 2##a light", "line 1: .*0 <= start < end, not 5 and 2"),
        ("charades-sta", "a.txt", "3MSZA 1 inf##a light", "line 1: .*number in the field 'end'"),
        ("charades-sta", "a.txt", "3MSZA 1 2##  ", "line 1: expected text in the field 'sentence'"),
        ("activitynet-moments", "a.json", '{"v": {"sentences": ["a"], "timestamps": []}}',
         r"'v': expected as many \[start, end\]"),
        ("activitynet-moments", "a.json", '{"v": {"sentences": ["a"], "timestamps": [[1]]}}',
         r"'v', sentence 0: expected \[start, end\]"),
        ("qvhighlights", "a.jsonl", '{"qid": 1, "query": "q", "vid": "v", "relevant_windows": 3}',
         "item 0: .*'relevant_windows'"),
        ("qvhighlights", "a.jsonl", '{"qid": 1, "query": "q", "vid": "v", "relevant_clip_ids": [1],'
         '"saliency_scores": []}', "as many 'saliency_scores' as whole"),
        ("qvhighlights", "a.jsonl", '{"qid": 1, "query": "q", "vid": "v", "relevant_clip_ids": [1],'
         '"saliency_scores": [[5]]}', "'saliency_scores', from 0 to 4"),
        ("activitynet", "a.json", '{"v_a": [1]}', "'v_a': expected a record with named fields"),
        ("activitynet", "a.json", '{"v_a": {"sentences": ["s"], "timestamps": 1, "duration": 1}}',
         "'v_a': expected a list of .start, end."),
        ("lsmdc", "a.csv", "clip\t1\t2\tsentence\n", "line 1: .*at least 6 columns.*found 4"),
        ("coco", "a.json", '{"images": [{"filename": "x", "sentences": "no"}]}',
         r"images\[0\]: expected a list of records in the field 'sentences'"),
        ("kinetics", "a.csv", "label,youtube_id,time_start,time_end\nx,y,1.5,3\n",
         "a whole number in the field 'time_start', not 1.5"),
        ("coin", "a.json", '{"database": [1]}', "an object that maps ids to records, not list"),
        ("labelled-list", "a.csv", "x.mp4 three\n", "a number in the field 'label', not 'three'"),
        ("msrvtt-mc", "a.json", '[{"video": "x", "caption": ["a", "b"], "answer": 2}]',
         "an answer among 2 options, not number 2"),
        ("nextqa", "a.csv", "video,question,answer,qid,type,a0,a1,a2,a3,a4\nx,q,0,1,TC,a,b,c,d,\n",
         "text in the field 'a4'"),
        ("mlvu", "1_p.json", '[{"video": "x", "question": "q", "question_type": "p", '
         '"candidates": ["a", "b"], "answer": "c"}]', "an answer among the candidates, not 'c'"),
        ("lvbench", "a.jsonl", '{"key": "k", "qa": [{"uid": 1, "question": "q", "answer": "A"}]}',
         r"item 0, qa\[0\]: expected options \(A\)"),
        ("videomme", "a.json", '[{"videoID": "v", "question_id": "1", "question": "q", '
         '"task_type": "t", "options": ["A. x", "B. y"], "answer": "yes"}]',
         "a letter .* not 'YES'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_the_place_and_what_was_expected(
    tmp_path, dataset, name, content, message
):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(path, dataset)
    assert str(path) in str(caught.value)


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("run",)

    path = write(tmp_path, "raw-captions.pkl", pickle.dumps({"v": Attack()}))
    with pytest.raises(ValueError, match=r"wants to import builtins\.print"):
        read_annotations(path, "msvd")


def test_a_pickle_that_asks_for_all_memory_is_refused(tmp_path):
    path = write(tmp_path, "raw-captions.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(ValueError, match="it numbers its 2147483647th thing"):
        read_annotations(path, "msvd")
    shared = ["x"]
    for _ in range(60):  # as many texts as no memory holds, in a few bytes
        shared = [shared, shared]
    path = write(tmp_path, "raw-captions.pkl", pickle.dumps({"v": shared}))
    with pytest.raises(ValueError, match="a list of captions, each a list of words"):
        read_annotations(path, "msvd")
    itself = []
    itself.append(itself)
    path = write(tmp_path, "raw-captions.pkl", pickle.dumps({"v": itself}))
    with pytest.raises(ValueError, match="a list of captions, each a list of words"):
        read_annotations(path, "msvd")


def test_one_id_for_two_things_is_an_error_and_a_repeated_line_is_not(tmp_path, caplog):
    line = "x.mp4 3\n"
    assert len(read_annotations(write(tmp_path, "a.csv", line + line), "labelled-list")) == 1
    assert "repeats 1 items" in caplog.text
    with pytest.raises(ValueError, match=r"the id 'x\.mp4' stands for two different items"):
        read_annotations(write(tmp_path, "b.csv", line + "x.mp4 4\n"), "labelled-list")


def test_captions_of_one_video_come_together_and_windows_stay_apart(tmp_path):
    content = "video,caption,start,end\na,1,,\nb,2,0,1\na,3,,\nb,4,1,2\nb,5,0,1\n"
    items = read_annotations(write(tmp_path, "a.csv", content))
    assert [(i.media, i.start, i.end, i.captions) for i in items] == [
        ("a", None, None, ["1", "3"]), ("b", 0, 1, ["2", "5"]), ("b", 1, 2, ["4"]),
    ]  # fmt: skip
    joined = read_annotations(tmp_path / "a.csv", paragraph=True)
    assert [i.captions for i in joined] == [["1 3"], ["2 5"], ["4"]]


def test_blank_captions_are_left_out_and_the_item_stays(tmp_path):
    content = '[{"video": "a", "caption": " \\n"}, {"video": "b", "caption": [null, "", "x"]}]'
    items = read_annotations(write(tmp_path, "a.json", content))
    assert [i.captions for i in items] == [[], ["x"]]


def test_splits_and_ids_that_are_not_there(tmp_path, caplog):
    path = EXAMPLES["coco"].write(tmp_path)
    with pytest.raises(ValueError, match="no split 'dev'; it has restval, test, train"):
        read_annotations(path, split="dev+test")
    ids = write(tmp_path, "ids.txt", "v_2.jpg\n\nnobody\r\n")
    assert [i.key for i in read_annotations(path, ids=ids)] == ["v_2.jpg"]
    assert "lists 2 ids of which 1 are not in" in caplog.text
    with pytest.raises(ValueError, match="none of the ids"):
        read_annotations(path, ids=write(tmp_path, "none.txt", "nobody\n"))
    with pytest.raises(ValueError, match="no splits: one file is one split"):
        read_annotations(EXAMPLES["webvid"].write(tmp_path), split="train")


def test_id_lists_of_all_kinds(tmp_path):
    same = {"a.b": None, "c": None}
    assert read_ids(write(tmp_path, "a.txt", "a.b.mp4\nc\n")) == same
    assert read_ids(write(tmp_path, "b.csv", "video_id\r\na.b\r\nc\r\n")) == same
    assert read_ids(write(tmp_path, "c.json", '["x/a.b", "c.avi"]')) == same
    assert read_ids(write(tmp_path, "d.pkl", pickle.dumps({"c": 3}))) == {"c": 3}
    with pytest.raises(ValueError, match="a list of ids"):
        read_ids(write(tmp_path, "e.json", '{"a": "b"}'))
    chosen = write(tmp_path, "f.pkl", pickle.dumps({"video0": 2}))
    path = EXAMPLES["msrvtt"].write(tmp_path)
    with pytest.raises(ValueError, match="chooses caption 2 of 'video0', which has 2"):
        read_annotations(path, ids=chosen)


def test_unknown_files_and_names(tmp_path):
    path = write(tmp_path, "x.json", '[{"foo": 1, "bar": 2}]')
    with pytest.raises(ValueError, match=r"cannot tell whose .*its fields: bar, foo.*captions or"):
        read_annotations(path)
    path = write(tmp_path, "x.csv", "clip no,words\na.mp4,a dog\n")
    with pytest.raises(ValueError, match=r"its columns: clip no, words.*called one of .*--dat"):
        read_annotations(path)
    path = write(tmp_path, "x.csv", "a.mp4,a dog\nb.mp4,a cat\n")
    with pytest.raises(ValueError, match=r"first line is a record .a dog, a.mp4.; begin it with"):
        read_annotations(path)
    with pytest.raises(ValueError, match=r"nil\.csv holds: it is empty; begin it with a line of"):
        read_annotations(write(tmp_path, "nil.csv", ""))
    (tmp_path / "nil.csv").unlink()
    with pytest.raises(ValueError, match=r"name the data set; it holds x\.csv"):
        read_annotations(tmp_path)
    with pytest.raises(ValueError, match="no data set 'msrvt'; known are captions, class-table"):
        read_annotations(path, "msrvt")
    with pytest.raises(ValueError, match="is not a file; give an annotation file"):
        read_annotations(tmp_path / "nobody.json")


def test_didemo_is_about_the_first_half_minute_and_one_video_has_two_extensions(tmp_path):
    first, _ = read_annotations(EXAMPLES["didemo"].write(tmp_path))
    assert (first.media, first.start, first.end) == ("12@N00_1_aa", 0.0, 30.0)
    assert first.metadata["moments"] == [
        {"description": "a dog barks", "times": [[0, 1], [1, 1]], "annotation_id": 5},
        {"description": "then it runs", "times": [[2, 3]], "annotation_id": 6},
    ]


def test_cut_clips_have_no_window(tmp_path):
    """The times of a source video are no times of the clip that was cut from it."""
    for name in ("msrvtt", "kinetics", "vatex", "lsmdc", "coin", "activitynet"):
        items = read_annotations(EXAMPLES[name].write(tmp_path / name), EXAMPLES[name].dataset)
        assert {(item.start, item.end) for item in items} == {(None, None)}, name


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    records = json.loads(json.dumps(EXAMPLES["videomme"].files["test.json"]))
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "test.parquet")
    items = read_annotations(tmp_path / "test.parquet")
    assert [(i.key, i.captions) for i in items] == EXAMPLES["videomme"].items


def test_no_torch_is_needed():
    check = "import sys, vmm.data.annotations.registry; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
