import json

import pytest

from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.long_video_qa.protocols import (
    ODD,
    SETS,
    length_class,
    published_size,
    read_questions,
)


@pytest.fixture
def write(tmp_path):
    def write(records, name="my-questions.json"):
        path = tmp_path / name
        path.write_text(json.dumps(records), encoding="utf-8")
        return path

    return write


def record(**fields):
    return {"video": "a.mp4", "question": "what?", "options": ["Yes", "No"], "answer": 1} | fields


def test_all_sets_are_known_to_the_readers():
    assert SETS.keys() >= {
        "msrvtt-mc", "egoschema", "mlvu", "longvideobench", "videomme", "lvbench", "nextqa",
        "questions",
    }  # fmt: skip
    assert all(DATASETS[name].content == "questions" for name in SETS)


def test_questions_about_one_video_share_its_number(write):
    path = write(
        [record(question_id=i, video=v) for i, v in enumerate(("b.mp4", "a.mp4", "b.mp4"))]
    )
    file = read_questions("questions", path)
    assert [q.video for q in file.questions] == [0, 1, 0]
    assert [item.media for item in file.videos] == ["b.mp4", "a.mp4"]
    assert [q.key for q in file.questions] == ["0", "1", "2"] and not file.left_out


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (None, ["Yes it is", "No it is not"]),
        ("joined", ["what? Yes", "what? No"]),
        ("is-it", ["what? Is it 'yes'", "what? Is it 'no'"]),
        ("option", ["Yes", "No"]),
        ("statement", ["Yes it is", "No it is not"]),
    ],
)
def test_what_a_model_reads(write, prompt, texts):
    file = read_questions(
        "questions", write([record(statements=["Yes it is", "No it is not"])]), prompt
    )
    assert file.questions[0].prompts == texts
    assert file.prompt == (prompt or "statement")


def test_without_statements_question_and_option_are_joined(write):
    path = write([record()])
    assert read_questions("questions", path).questions[0].prompts == ["what? Yes", "what? No"]
    with pytest.raises(ValueError, match=r"no statement for each.*--prompt joined"):
        read_questions("questions", path, "statement")


def test_answers_as_text_or_position(write):
    path = write([record(question_id=i, answer=a) for i, a in enumerate(("Yes", 1, "1"))])
    assert [q.answer for q in read_questions("questions", path).questions] == [0, 1, 1]
    for wrong, said in ((2, "among 2 options, not number 2"), ("maybe", "item 0: .*'answer'")):
        with pytest.raises(ValueError, match=said):
            read_questions("questions", write([record(answer=wrong)]))


@pytest.mark.parametrize("options", [[], ["only"]])
def test_no_option_or_one_is_a_clear_message(write, options):
    with pytest.raises(ValueError, match="item 0: expected at least two options"):
        read_questions("questions", write([record(options=options, answer=0)]))


def test_equal_options_are_left_out_and_counted(write):
    path = write([record(question_id=0, options=["a", "a"]), record(question_id=1)])
    file = read_questions("questions", path)
    assert [q.key for q in file.questions] == ["1"]
    assert file.left_out == {"one option, or equal options": 1}
    with pytest.raises(ValueError, match=r"every question in .* has one option, or equal"):
        read_questions("questions", write([record(options=["a", "a"])]))


def test_questions_of_published_sets_are_asked_whatever_their_options(write):
    """EgoSchema has one with the same words five times, and wants an answer to all 5,031."""
    same = {f"option {i}": "c walks" for i in range(5)}
    other = {f"option {i}": f"c {i}" for i in range(5)}
    records = [{"q_uid": "a", "question": "?", **same}, {"q_uid": "b", "question": "?", **other},
               {"q_uid": "c", **other}]  # fmt: skip
    path = write(records, "questions.json")
    file = read_questions("egoschema", path)
    assert [q.key for q in file.questions] == ["a", "b", "c"] and not file.left_out
    ids = write({"a": 3}, "subset_answers.json")
    file = read_questions("egoschema", path, ids=ids)
    assert [(q.key, q.answer) for q in file.questions] == [("a", 3)]


def test_a_hidden_question_of_ones_own_is_asked_too(write):
    path = write([record(options=["a", "a"], answer=None)])
    assert len(read_questions("questions", path).questions) == 1


def test_odd_questions_are_counted_and_named(write):
    rows = [record(question_id=i) for i in range(4)]
    path = write([*rows, record(answer="Maybe"), record(options=["", ""], answer=0)])
    file = read_questions("questions", path)
    assert len(file.questions) == 4 and file.left_out == {ODD: 2}
    assert "item 4" in file.odd[0] and "item 5" in file.odd[1]


@pytest.mark.parametrize("duration", ["nan", "inf", 1e999, [1], {"a": 1}])
def test_a_length_that_is_none(write, duration):
    (question,) = read_questions("questions", write([record(duration=duration)])).questions
    assert length_class(question.duration) == "unknown"


def test_captions_to_choose_from_need_no_question(write):
    captions = ["a cat", "a dog", "a cup", "a car", "a hat"]
    path = write([{"video": "video7.mp4", "caption": captions, "answer": 3}], "msrvtt_mc_test.json")
    (question,) = read_questions("msrvtt-mc", path).questions
    assert question.prompts == captions and question.answer == 3


def test_open_questions_of_mlvu_are_counted(tmp_path):
    folder = tmp_path / "json"
    folder.mkdir()
    asked = {"video": "a.mp4", "duration": 400, "question": "what?", "answer": "x"}
    (folder / "1_plotQA.json").write_text(
        json.dumps([asked | {"candidates": ["x", "y"], "question_type": "plotQA"}])
    )
    (folder / "9_summary.json").write_text(json.dumps([asked | {"question_type": "summary"}]))
    file = read_questions("mlvu", folder)
    assert len(file.questions) == 1 and file.left_out == {"no options": 1}
    assert file.questions[0].duration == 400.0
    with pytest.raises(ValueError, match=r"not one of 1 question in .* has options"):
        read_questions("mlvu", folder / "9_summary.json")


def test_hidden_answers_of_egoschema(write):
    names = {f"option {i}": f"o{i}" for i in range(5)}
    path = write([{"q_uid": q, "question": "?", **names} for q in "ab"], "questions.json")
    assert [q.answer for q in read_questions("egoschema", path).questions] == [None, None]
    write({"b": 3}, "subset_answers.json")
    assert [q.answer for q in read_questions("egoschema", path).questions] == [None, 3]


def test_types_of_nextqa_are_grouped(tmp_path):
    path = tmp_path / "val.csv"
    head = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    rows = (f"{i},9,1,1,why,0,{i},{kind},a,b,c,d,e\n" for i, kind in enumerate(("CW", "TP", "DO")))
    path.write_text(head + "".join(rows))
    kinds = [q.kind for q in read_questions("nextqa", path).questions]
    assert kinds == ["causal", "temporal", "descriptive"]


def test_a_missing_file_and_an_unknown_set(tmp_path):
    with pytest.raises(ValueError, match="is not a file; give an annotation file"):
        read_questions("questions", tmp_path / "none.json")
    with pytest.raises(ValueError, match="no question set 'msvd'; known are msrvtt-mc, egoschema"):
        read_questions("msvd", tmp_path / "none.json")


@pytest.mark.parametrize(
    ("duration", "name"),
    [(None, "unknown"), ("short", "short"), (59.9, "under 1 minute"), (60, "1 to 3 minutes"),
     (600, "3 to 15 minutes"), (3599, "15 to 60 minutes"), (7200.0, "over an hour")],
)  # fmt: skip
def test_lengths(duration, name):
    assert length_class(duration) == name


def test_sizes_of_published_splits():
    assert published_size("egoschema", 500) == "subset" and published_size("egoschema", 7) is None
