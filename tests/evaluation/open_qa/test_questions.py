import json

import pytest

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.sources import ShardClips
from vmm.evaluation.open_qa.questions import questions_in_shards, read_open_questions

CLIP = ClipSettings(2, 16)


def test_the_questions_of_the_demo_s_shards(demo_shards):
    clips = ShardClips(f"{demo_shards.folder}/test-*.tar", CLIP)
    questions = questions_in_shards(clips)
    assert len(questions) == 64 and {q.video for q in questions} == set(range(16))
    assert {q.kind for q in questions} == {"colour", "event", "shape", "size"}
    assert all(q.answers and q.text.endswith("?") for q in questions)


@pytest.fixture
def official(tmp_path):
    def write(**changes):
        row = {"video_name": "a", "question": "is it red?", "answer": "yes", "type": 3, "id": 7}
        path = tmp_path / "questions.json"
        path.write_text(json.dumps([row | changes, row | changes | {"id": 8, "question": "Hmm?"}]))
        (tmp_path / "media").mkdir(exist_ok=True)
        (tmp_path / "media/a.mp4").write_bytes(b"")
        return path, str(tmp_path / "media")

    return write


def test_a_kind_is_the_file_s_word_or_the_first_of_the_question(official):
    path, media = official(video_id=1, type=None)
    (path.parent / "media/vid1.mp4").write_bytes(b"")
    clips, questions = read_open_questions("msvd-qa", path, media, CLIP)
    assert len(clips) == 1 and [q.video for q in questions] == [0, 0]
    assert [q.kind for q in questions] == ["is", "other"]


def test_a_set_without_open_questions_is_refused(official):
    path, media = official(video_id=1)
    with pytest.raises(ValueError, match="no set of open questions 'nextqa'; known are msrvtt-qa,"):
        read_open_questions("nextqa", path, media, CLIP)


def test_hidden_answers_are_nothing_to_compare_with(official):
    path, media = official(video_id=1, answer=None)
    with pytest.raises(ValueError, match="answer"):
        read_open_questions("msvd-qa", path, media, CLIP)
