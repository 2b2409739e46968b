import pytest

from vmm.evaluation.long_video_qa.options import Options
from vmm.evaluation.long_video_qa.viewing import Viewing


def test_questions_come_from_files_of_a_data_set():
    for told in ({}, {"shards": "x.tar"}, {"shards": "x.tar", "dataset": "questions"}):
        with pytest.raises(ValueError, match="give one, not shards alone"):
            Options(**told)


def test_how_a_video_is_looked_at():
    options = Options(dataset="questions", fps=0.5, window=4, aggregate="max")
    assert options.viewing == Viewing(None, 0.5, 4, "max") and options.questions == "questions"
