import json

from vmm.evaluation.long_video_qa.lint import lint_answers, lint_questions
from vmm.evaluation.long_video_qa.protocols import published_size, read_questions


def codes(findings):
    return [finding.code for finding in findings]


def test_nothing_is_found_in_sound_questions(toys):
    questions, scores = toys.twelve(9)
    questions = [q._replace(text=f"{q.text} {q.key}") for q in questions]
    assert not lint_questions("questions", questions)
    assert not lint_answers(questions, scores, "similarity")


def test_repeated_questions_and_equal_options(toys):
    questions = [
        toys.question(0, 0, video=0),
        toys.question(1, 3, video=0, options=toys.NAMES[::-1]),
        toys.question(2, 0, options=["a", "b", "a"]),
    ]
    found = lint_questions("questions", questions)
    assert codes(found) == ["repeated-questions", "equal-options"]
    assert found[0].message.startswith("1 question is") and "'q2'" in found[1].message


def test_a_set_of_another_size(toys):
    (found,) = lint_questions("egoschema", [toys.question(0, 0)])
    assert found.code == "other-questions" and "subset 500" in found.message
    assert not lint_questions("questions", [toys.question(0, 0)])


def test_answers_that_can_be_guessed(toys):
    options = ["right one", "no", "off", "not"]

    def ask(answer, words):
        questions = [toys.question(i, answer, options=words) for i in range(60)]
        return questions, [toys.scores([1.0, 0, 0, 0], blind=[0.0] * 4) for _ in questions]

    assert codes(lint_answers(*ask(0, options), "similarity")) == [
        "guessable-longest", "guessable-majority",
    ]  # fmt: skip
    equal = ["aaa", "bbb", "ccc", "ddd"]
    questions, scores = ask(2, equal)
    scores = [s._replace(blind=[0.0, 0, 1, 0]) for s in scores]
    assert codes(lint_answers(questions, scores, "similarity")) == [
        "guessable-blind", "guessable-majority",
    ]  # fmt: skip


def test_a_collapsed_model_is_told(toys):
    questions, _ = toys.twelve(0)
    (found,) = lint_answers(questions, [toys.scores([0.5] * 4)] * 12, "similarity")
    assert found.code == "tied-options" and "12 of 12" in found.message


def test_the_lint_knows_the_odd_rows_of_mlvu(tmp_path):
    def asked(answer, *candidates):
        return {"video": "a.mp4", "duration": 400, "question": "what?", "answer": answer,
                "candidates": candidates, "question_type": "needle"}  # fmt: skip

    good, odd = asked("x", "x", "y"), asked("z", "x", "y")
    path = tmp_path / "2_needle.json"
    path.write_text(json.dumps([good] * 353 + [odd] * 2))
    file = read_questions("mlvu", path)
    found = {f.code: f for f in lint_questions("mlvu", file.questions, file.odd)}
    assert "other-questions" not in found
    assert "2 of 355 questions cannot be asked" in found["odd-questions"].message
    assert "the official file of dev needle has these 2" in found["odd-questions"].effect
    path.write_text(json.dumps([good] * 352 + [odd] * 3))
    file = read_questions("mlvu", path)
    found = {f.code: f for f in lint_questions("mlvu", file.questions, file.odd)}
    assert "the others are this file's own" in found["odd-questions"].effect
    assert published_size("mlvu", 2175) == published_size("mlvu", 2170) == "dev"
