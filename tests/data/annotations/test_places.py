"""What an answer, a number or a line stands for never moves, whatever is blank before it."""

import json
import pickle

import pytest

from vmm.data.annotations.options import without_letters
from vmm.data.annotations.registry import read_annotations


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


LVB = {"id": "1", "video_path": "v.mp4", "video_id": "v", "question": "q?", "duration_group": 60,
       "question_category": "x"}  # fmt: skip
VIDEOMME = {"videoID": "v", "question_id": "1", "question": "q?", "task_type": "x"}
OWN = {"video": "v", "question": "q?"}
NUMBERED = {"option0": "", "option1": "red", "option2": "blue"}
BLANK = ["", "red", "blue"]


@pytest.mark.parametrize(
    ("dataset", "record"),
    [
        ("questions", OWN | {"options": BLANK, "answer": 1}),
        ("questions", OWN | {"options": [None, "red", "blue"], "answer": "red"}),
        ("questions", OWN | {"options": BLANK, "answer": "B"}),
        ("questions", OWN | {"options": BLANK, "answer": "1"}),
        ("questions", OWN | {"candidates": BLANK, "answer": 1}),
        ("questions", OWN | NUMBERED | {"answer": 1}),
        ("msrvtt-mc", {"video": "v", "caption": BLANK, "answer": 1}),
        ("msrvtt-mc", {"clip_name": "v", "qid": 1, "options": BLANK, "answer": 1}),
        ("longvideobench", LVB | {"candidates": BLANK, "correct_choice": 1}),
        ("longvideobench", LVB | NUMBERED | {"option3": "N/A", "option4": "N/A",
                                             "correct_choice": 1}),
        ("videomme", VIDEOMME | {"options": ["", "B. red", "C. blue"], "answer": "B"}),
        ("videomme", VIDEOMME | {"options": BLANK, "answer": "B"}),
        ("lvbench", {"video": "v", "question": "q?", "candidates": ["", "(B) red", "(C) blue"],
                     "answer": "(B) red", "time_reference": ""}),
        ("lvbench", {"key": "v", "video_info": {}, "qa": [
            {"uid": 1, "question": "q?\n(A) \n(B) red\n(C) blue", "answer": "B"}]}),
        ("mlvu", OWN | {"candidates": BLANK, "answer": "red", "question_type": "x",
                        "duration": 1}),
    ],
)  # fmt: skip
def test_a_blank_option_keeps_its_place(write, dataset, record):
    (item,) = read_annotations(write("a.json", [record]), dataset)
    assert item.metadata["options"] == BLANK and item.metadata["answer"] == 1


def test_egoschema_keeps_blank_options(write):
    options = {f"option {i}": text for i, text in enumerate(["", "red", "", "blue", ""])}
    path = write("questions.json", [{"q_uid": "a", "question": "?", **options}])
    write("subset_answers.json", {"a": 3})
    (item,) = read_annotations(path)
    assert item.metadata["options"] == ["", "red", "", "blue", ""] and item.metadata["answer"] == 3


@pytest.mark.parametrize(
    ("options", "bare", "place_of_b"),
    [
        (["A. x", "B. y"], ["x", "y"], 1),
        (["(A) x", "(B) y"], ["x", "y"], 1),
        (["a) x", "b) y", "c) z"], ["x", "y", "z"], 1),
        (["B. y", "A. x"], ["y", "x"], 0),  # the letter counts, not the place
        (["A. x", "y", "C. z"], ["x", "y", "z"], 1),
        (["Anna", "B. King", "Carl"], ["Anna", "B. King", "Carl"], 1),  # somebody's name
        (["C. Lee", "Bob", "Carl"], ["C. Lee", "Bob", "Carl"], 1),
        (["A. x", "A. y"], ["A. x", "A. y"], 1),
        (["", "B: y", "C: z"], ["", "y", "z"], 1),
    ],
)
def test_letters_of_options(options, bare, place_of_b):
    found = without_letters(options)
    assert found.texts == bare and found.letters["B"] == place_of_b


@pytest.mark.parametrize(
    ("answer", "place"),
    [("D", 3), ("d", 3), ("(D)", 3), ("D.", 3), ("(D) four", 3), ("D. four", 3), ("four", 3),
     (None, None)],
)  # fmt: skip
def test_forms_of_a_lettered_answer(write, answer, place):
    options = ["A. one", "B. two", "C. three", "D. four"]
    record = VIDEOMME | {"options": options, "answer": answer}
    (item,) = read_annotations(write("a.json", [record]), "videomme")
    assert item.metadata["answer"] == place


@pytest.mark.parametrize(
    ("answer", "said"),
    [("E", "among 4 options, not 'E'"), ("(D) three", "the option that its answer names"),
     ("nobody", "a letter in the field 'answer', not 'NOBODY'"), ("", "text in the field")],
)  # fmt: skip
def test_a_lettered_answer_that_is_none(write, answer, said):
    options = ["A. one", "B. two", "C. three", "D. four"]
    with pytest.raises(ValueError, match=said):
        read_annotations(
            write("a.json", [VIDEOMME | {"options": options, "answer": answer}]), "videomme"
        )


def test_a_blank_right_answer_is_none(write):
    with pytest.raises(ValueError, match="an answer that is not blank, as option 0 is"):
        read_annotations(write("a.json", [OWN | {"options": BLANK, "answer": 0}]), "questions")


def test_a_blank_caption_keeps_its_place_until_one_is_chosen(write, tmp_path):
    texts = ["", "second", None, " ", "fifth"]
    sentences = [{"video_id": "video0", "caption": text} for text in texts]
    path = write("MSRVTT_data.json", {"videos": [{"video_id": "video0"}], "sentences": sentences})
    ids = tmp_path / "jsfusion_val_caption_idx.pkl"
    for place, text in ((1, "second"), (4, "fifth")):
        ids.write_bytes(pickle.dumps({"video0": place}))
        assert read_annotations(path, ids=ids)[0].captions == [text]
    assert read_annotations(path)[0].captions == ["second", "fifth"]
    ids.write_bytes(pickle.dumps({"video0": 3}))
    with pytest.raises(ValueError, match="chooses caption 3 of 'video0', which is blank"):
        read_annotations(path, ids=ids)


def test_frozens_captions_and_msvds_are_numbered_with_the_blank_ones(write, tmp_path):
    frozen = [{"image_id": "video9", "caption": text} for text in ("", "b", "c")]
    frozen = write("MSR_VTT.json", {"annotations": frozen})
    msvd = tmp_path / "raw-captions.pkl"
    msvd.write_bytes(pickle.dumps({"video9": [[], ["b"], ["c"]]}))
    ids = write("ids.json", {"video9": 1})
    assert read_annotations(frozen, "msrvtt", ids=ids)[0].captions == ["b"]
    assert read_annotations(msvd, "msvd", ids=ids)[0].captions == ["b"]


def test_a_line_of_ssv1s_labels_is_the_number(write, tmp_path):
    write("something-something-v1-labels.csv", "Folding\n\nFalling\n")
    path = write("something-something-v1-train.csv", "1;Falling\n")
    assert read_annotations(path)[0].metadata["label"] == 2


def test_answer_0_of_a_table_with_types_is_an_answer(write):
    """Parquet and JSON give the number 0, which is as false as a blank."""
    options = {f"a{i}": str(9 - i) for i in range(5)}
    row = {"video": 7, "question": "how many?", "qid": 1, "type": "DC", **options}
    for answer, place in ((0, 0), ("0", 0), ("5", None), ("9", None), (None, None), ("", None)):
        path = write("val.json", [row | {"answer": answer}, row | {"qid": 2, "answer": 4}])
        items = {item.key: item.metadata["answer"] for item in read_annotations(path, "nextqa")}
        assert items.get("7_1") == place and items["7_2"] == 4
        assert ("7_1" in items) == (answer not in ("5", "9"))  # a position, not an option's words


@pytest.mark.parametrize(
    "options",
    [
        '["", "red", "blue"]',  # written into a cell
        "['', 'red', 'blue']",
        {"A": "", "B": "red", "C": "blue"},
        {"A": "A.", "B": "B. red", "C": "C. blue"},
    ],
)
def test_lists_in_cells_and_objects_of_letters(write, options):
    record = OWN | {"options": options, "answer": "B"}
    (item,) = read_annotations(write("a.json", [record]), "questions")
    assert item.metadata["options"] == BLANK and item.metadata["answer"] == 1


def test_options_in_columns_of_their_letters(write):
    text = "index\tvideo\tquestion\tA\tB\tC\tD\tanswer\n0\tv\tq?\t\tred\tblue\t\tB\n"
    (item,) = read_annotations(write("a.tsv", text))
    assert item.metadata["options"] == BLANK and item.metadata["answer"] == 1
    assert "A" not in item.metadata and item.metadata["index"] == "0"


@pytest.mark.parametrize("cell", ["[", "[1, open('x')]", "[" * 1000, "['only']", "[[1], [2]]"])
def test_a_cell_that_is_no_list_is_refused(write, cell):
    with pytest.raises(ValueError, match="at least two options in the field 'options'"):
        read_annotations(write("a.json", [OWN | {"options": cell, "answer": 0}]), "questions")


def test_dates_are_not_lettered():
    dates = ["A.D. 476", "B.C. 44"]
    assert without_letters(dates).texts == dates


def test_answers_that_are_counted_from_1_are_no_odd_rows(write):
    def rows(*answers):
        return [OWN | {"video": str(i), "options": ["a", "b", "c"], "answer": a}
                for i, a in enumerate(answers)]  # fmt: skip

    with pytest.raises(ValueError, match=r"item 2: .*not number 3.*are they counted from 1"):
        read_annotations(write("a.json", rows(1, 2, 3, 1, 2, 1, 3, 2)), "questions")
    for others in ((0, 2, 3, 1, 2, 1, 3, 2), (1, 2, 4, 1, 2, 1, 4, 2)):
        assert len(read_annotations(write("a.json", rows(*others)), "questions")) == 6
    assert len(read_annotations(write("a.json", rows(0, 2, 3, 1, 2, 1)), "questions")) == 5
