"""Forms in which people have the official files."""

import json
import math
import pickle

import pytest

from vmm.data.annotations.ids import read_ids
from vmm.data.annotations.media import MediaFolder, stem
from vmm.data.annotations.questions import read_answer_list
from vmm.data.annotations.registry import DATASETS, detect, read_annotations
from vmm.data.annotations.source import Source
from vmm.data.annotations.training import LVU_LOG_VIEWS, labelled_cells


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# ---------------------------------------------------------------- LVU


def test_lvu_numbers_are_the_published_targets(write):
    likes = "like_count dislike_count youtube_id imdb_id\n300 100 a tt1\n9 1 b tt2\n"
    items = read_annotations(write("test.csv", likes))
    assert [item.metadata["target"] for item in items] == [7.5, 9.0]
    assert items[0].metadata["like_count"] == "300" and "label" not in items[0].metadata
    views = f"view_count youtube_id imdb_id\n{10**6} a tt1\n1 b tt2\n"
    items = read_annotations(write("test.csv", views))
    first, second = (item.metadata["target"] for item in items)
    assert first - second == pytest.approx(math.log(10**6))
    assert second == -LVU_LOG_VIEWS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("like_count dislike_count youtube_id imdb_id\n0 0 a tt1\n", "likes and dislikes, not 0"),
        ("like_count dislike_count youtube_id imdb_id\n-5 1 a tt1\n", "likes and dislikes, not -5"),
        ("view_count youtube_id imdb_id\n0 a tt1\n", "a number of views .*not 0"),
        ("view_count youtube_id imdb_id\n11.5 a tt1\n", "a whole number in the field 'view_count'"),
        ("class_id class_name youtube_id imdb_id\n1.5 x a tt1\n", "a whole number .*'class_id'"),
    ],
)
def test_lvu_counts_that_are_none(write, text, said):
    with pytest.raises(ValueError, match=said):
        read_annotations(write("test.csv", text))


def test_sizes_of_lists_and_of_the_paper_are_both_known():
    sizes = DATASETS["lvu"].sizes
    assert sizes["year test"] == 143 and sizes["year paper's test"] == 141
    assert DATASETS["breakfast"].sizes["paper's test"] == 410
    assert DATASETS["coin"].sizes["paper's test"] == 2796


# ---------------------------------------------------------------- DiDeMo


def test_didemos_names_are_one_video_whatever_their_end(write, tmp_path):
    names = ("1@N0_a_b.", "1@N0_a_b.mp4", "1@N0_a_b.3g2", "1@N0_a_b", "2@N0_c_d.3gp")
    rows = [{"video": name, "description": f"d{i}", "annotation_id": i, "times": [[0, 0]]}
            for i, name in enumerate(names)]  # fmt: skip
    items = read_annotations(write("test_data.json", rows))
    assert [(i.key, i.captions) for i in items] == [
        ("1@N0_a_b", ["d0 d1 d2 d3"]), ("2@N0_c_d", ["d4"]),
    ]  # fmt: skip
    (tmp_path / "media").mkdir()
    for name in ("1@N0_a_b..mp4", "2@N0_c_d.3g2"):
        (tmp_path / "media" / name).touch()
    folder = MediaFolder(tmp_path / "media", "video")
    assert [folder.find(item.media).name for item in items] == ["1@N0_a_b..mp4", "2@N0_c_d.3g2"]


def test_dots_alone_are_a_name():
    assert stem("...") == "..." and stem("a.") == "a" and stem("x/a..mov") == "a"


# ---------------------------------------------------------------- questions


def test_longvideobenchs_table(write):
    row = {"video_id": "v", "id": "v_0", "video_path": "v.mp4", "question": "q",
           "duration_group": 60, "question_category": "TOS", "option0": "a", "option1": "b",
           "option2": "c", "option3": "N/A", "option4": "N/A"}  # fmt: skip
    (item,) = read_annotations(write("validation.json", [row | {"correct_choice": 2}]))
    assert item.metadata["options"] == ["a", "b", "c"] and item.metadata["answer"] == 2
    assert not any(name.startswith("option") for name in item.metadata if name != "options")
    (item,) = read_annotations(write("test.json", [row | {"correct_choice": -1}]))
    assert item.metadata["answer"] is None  # hidden


def test_lvbench_with_lettered_candidates(write):
    row = {"video": "00000000", "type": "cartoon", "question": "When?", "answer": "(D) 1633",
           "candidates": ["(A) 1636", "(B) 1366", "(C) 1363", "(D) 1633"],
           "question_type": ["retrieval", "reasoning"], "time_reference": "00:15"}  # fmt: skip
    path = write("lvbench_clean.json", [row, row | {"question": "And then?"}])
    assert detect(Source(path)) == "lvbench"
    items = read_annotations(path)
    assert [item.key for item in items] == ["00000000_0", "00000000_1"]
    said = items[0].metadata
    assert said["options"] == ["1636", "1366", "1363", "1633"] and said["answer"] == 3
    assert said["question_type"] == "retrieval, reasoning"


@pytest.mark.parametrize(("dataset", "media"), [("msrvtt-qa", "video6513"), ("msvd-qa", "vid6513")])
@pytest.mark.parametrize("number", ["6513", "6513.0"])
def test_open_questions_as_a_table_with_numbers(write, dataset, media, number):
    text = f'question,answer,video_id,id\n"what, then?",couch,{number},158581\n'
    (item,) = read_annotations(write("test.csv", text), dataset)
    assert (item.key, item.media, item.captions) == ("158581", media, ["what, then?"])
    assert item.metadata["answer"] == "couch"


def test_own_questions_as_a_table(write):
    text = "video;question;option0;option1;option2;answer\nv.mp4;what?;a;b;c;c\n"
    (item,) = read_annotations(write("my-questions.csv", text))
    assert item.metadata["options"] == ["a", "b", "c"] and item.metadata["answer"] == 2


def test_egoschema_as_the_table_that_others_made(write):
    options = [f"{letter}. text {letter}" for letter in "ABCDE"]
    row = {"question_idx": "0", "question": "why?", "video_idx": "001934bb", "option": options}
    items = read_annotations(write("test.json", [row | {"answer": ""}]))
    assert items[0].metadata["options"][4] == "text E" and items[0].metadata["answer"] is None
    items = read_annotations(write("subset.json", [row | {"answer": "3"}]))
    assert items[0].metadata["answer"] == 3 and items[0].metadata["split"] == "subset"


def test_egoschemas_subset_file_chooses_its_questions(write):
    names = {f"option {i}": f"o{i}" for i in range(5)}
    path = write("questions.json", [{"q_uid": q, "question": "?", **names} for q in "abc"])
    ids = write("subset_answers.json", {"b": 3, "c": 4})
    assert [item.key for item in read_annotations(path, ids=ids)] == ["b", "c"]


def test_mlvus_test_names_its_questions(write):
    row = {"question_id": "AR_0", "video": "test_AR-4.mp4", "duration": 1, "question": "?",
           "candidates": ["a", "b"], "question_type": "anomaly_reco"}  # fmt: skip
    (item,) = read_annotations(write("test_question.json", [row]), "mlvu")
    assert item.key == "AR_0" and item.metadata["answer"] is None


def test_nextgqa_answers_in_words(write):
    head = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    path = write("train.csv", head + "7,1,2,3,how,strum,6,CH,roll,tap,strum,hit,pat\n")
    assert read_annotations(path)[0].metadata["answer"] == 2


def test_an_answer_list_may_number_its_answers(write):
    assert read_answer_list(write("vocab.json", {"dog": 1, "cat": 0})) == ["cat", "dog"]
    with pytest.raises(ValueError, match="a JSON list of answers"):
        read_answer_list(write("vocab.json", ["a", " "]))


# ---------------------------------------------------------------- classes and captions


def test_deepminds_kinetics(write):
    record = {"annotations": {"label": "yoga", "segment": [59.0, 69.0]}, "duration": 10.0,
              "subset": "val", "url": "https://x"}  # fmt: skip
    path = write("kinetics_val.json", {"-3B32lodo2M": record, "odd": {**record, "annotations": []}})
    assert detect(Source(path)) == "kinetics"
    (item,) = read_annotations(path)
    assert item.key == "-3B32lodo2M_000059_000069" and item.captions == ["yoga"]
    assert item.metadata["class"] == "yoga" and item.metadata["split"] == "val"


def test_what_a_list_does_not_say_loses_no_video(write):
    row = {"sentences": ["Snow."], "timestamps": [[0, 5]]}
    path = write("val_1.json", {"v_a": row | {"duration": None}, "v_b": row, "v_c": row | {
        "duration": 5}})  # fmt: skip
    items = read_annotations(path, "activitynet")
    assert [item.metadata.get("duration") for item in items] == [None, None, 5.0]
    text = "file_name,duration,action,class_id\na.avi,,milk,3\n"
    (item,) = read_annotations(write("test.csv", text))
    assert "duration" not in item.metadata


def test_another_word_for_a_split_stays_a_split(write):
    record = {"class": "X", "recipe_type": 1, "start": 1, "end": 2, "annotation": []}
    database = {"a": record | {"subset": "train"}, "b": record | {"subset": "testing"}}
    path = write("COIN.json", {"database": database})
    assert [item.key for item in read_annotations(path, split="test")] == ["b"]
    assert [item.key for item in read_annotations(path, split="train")] == ["a"]


def test_msvds_own_corpus(write):
    text = "# about\n\n-4w_0_5 a bird sings\n-4w_0_5 it sings\nzz_1_2 x\n"
    items = read_annotations(write("AllVideoDescriptions.txt", text))
    assert [(i.key, i.captions) for i in items] == [
        ("-4w_0_5", ["a bird sings", "it sings"]), ("zz_1_2", ["x"]),
    ]  # fmt: skip


def test_breakfasts_names_with_dashes(write, tmp_path):
    text = "file_name,duration,action,class_id\nP27-stereo-P27_milk_ch0,46,milk,3\n"
    (item,) = read_annotations(write("test.csv", text))
    (tmp_path / "P27" / "stereo").mkdir(parents=True)
    (tmp_path / "P27" / "stereo" / "P27_milk_ch0.avi").touch()
    found = MediaFolder(tmp_path, "video").find(item.media, *item.aliases)
    assert found.name == "P27_milk_ch0.avi"


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ("x/abc.mp4 3", ("x/abc.mp4", "3", None)),
        ("x/abc.mp4 3 61.5", ("x/abc.mp4", "3", "61.5")),
        ("x/abc.mp4,3,61.5", ("x/abc.mp4", "3", "61.5")),
        ("air drumming/a b.mp4  3", ("air drumming/a b.mp4", "3", None)),
        ("a, b/c.mp4\t3", ("a, b/c.mp4", "3", None)),
        ("x 7.mp4 3.0", ("x 7.mp4", "3.0", None)),
    ],
)
def test_lines_of_paths_and_numbers(line, cells):
    assert tuple(labelled_cells(line).values())[:2] == cells[:2]
    assert labelled_cells(line).get("duration") == cells[2]


@pytest.mark.parametrize("line", ["", "x.mp4", "x.mp4 three", "3", " " * 50000 + "x", "1 " * 20000])
def test_other_lines_are_none_and_take_no_time(line):
    labelled_cells(line)


# ---------------------------------------------------------------- lists of ids


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo7\n"),
        ("train_list.txt", "video0\nvideo7\n"),
        ("ids.json", ["video0", "video7.mp4"]),
        ("subset_answers.json", {"aa-bb": 3, "cc-dd": 4}),
    ],
)
@pytest.mark.parametrize("dataset", [None, "msrvtt", "egoschema", "lvu"])
def test_a_list_of_ids_given_as_annotations_is_called_one(write, name, content, dataset):
    with pytest.raises(ValueError, match=f"{name} is a list of ids, no annotations: give it as"):
        read_annotations(write(name, content), dataset)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "key,vid_key,video_id,sentence\nret0,msr0,video0,a dog\nret1,msr7,video7,b\n"),
        ("b.csv", "q_uid;split\nvideo0;x\nvideo7;y\n"),
        ("c.txt", "\ufeffvideo0.mp4\r\n\r\nx/video7\r\n"),
        ("d.json", {"video0": {"duration": 1}, "video7": {"duration": 2}}),
        ("e.tsv", "video0\nvideo7\n"),
    ],
)
def test_other_files_that_list_ids(write, name, content):
    assert read_ids(write(name, content)) == {"video0": None, "video7": None}


def test_numbers_beside_ids_choose_captions_only(write):
    path = write("ids.pkl", pickle.dumps({"b": 3}))
    rows = "x/b.mp4 0\nx/c.mp4 1\n"
    (item,) = read_annotations(write("val.csv", rows), "labelled-list", ids=path)
    assert item.key == "x/b.mp4" and item.metadata["label"] == 0


# ---------------------------------------------------------------- wrapping


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"data": [{"video": "x.mp4", "caption": "a"}]}),
        ("a.jsonl", [{"video": "x.mp4", "caption": "a"}]),
        ("a.ndjson", '{"video": "x.mp4", "caption": "a"}\r\n\r\n'),
    ],
)
def test_lists_under_another_roof(write, name, content):
    (item,) = read_annotations(write(name, content), "captions")
    assert (item.media, item.captions) == ("x.mp4", ["a"])


def test_a_folder_of_a_set_without_usual_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nextqa's files have no usual names, so give one"):
        read_annotations(tmp_path, "nextqa")


def test_blank_ids_are_odd(write):
    record = {"sentences": ["s"], "timestamps": [[0, 1]], "duration": 1}
    path = write("val_1.json", {"v_a": record, " ": record})
    assert [item.key for item in read_annotations(path)] == ["v_a"]
    path = write("raw-captions.pkl", pickle.dumps({"": [["x"]], "v": [["y"]]}))
    assert [item.key for item in read_annotations(path)] == ["v"]


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (["a 30 0", "b 45 1", "c 300 2", "d 30 1"], [0, 1, 2, 1]),  # TSN's: frames, then class
        (["a 0 12", "b 1 3", "c 2 7"], [0, 1, 2]),  # VideoMAE's: class, then seconds
        (["a 0 0", "b 1 0", "c 1 0"], [0, 1, 1]),  # nobody knows how long
        (["a 7 1.5", "b 9 0.0"], [7, 9]),
        (["a 1 0", "b 0 1"], [1, 0]),  # both may be classes: as it is documented
        (["a 30", "b 45"], [30, 45]),
    ],
)
def test_numbers_of_frames_are_no_classes(write, rows, labels):
    items = read_annotations(write("val.csv", "\n".join(rows)), "labelled-list")
    assert [item.metadata["label"] for item in items] == labels


def test_the_list_of_labels_is_no_list_of_videos(write):
    path = write("something-something-v1-labels.csv", "Holding something\nTurning something\n")
    with pytest.raises(ValueError, match="number of a video, not 'Holding something'; the list of"):
        read_annotations(path)
