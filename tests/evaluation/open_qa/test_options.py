from pathlib import Path

import pytest

from vmm.evaluation.open_qa.options import Options
from vmm.evaluation.open_qa.run import evaluate


def test_no_other_model_answers(tmp_path):
    shards = str(tmp_path / "x.tar")
    (tmp_path / "x.tar").touch()
    with pytest.raises(TypeError, match="model"):
        Options(model="open_clip:ViT-B-32", shards=shards)
    with pytest.raises(ValueError, match="give the run directory of a trained model"):
        evaluate(Options(shards=shards))


def test_answers_are_those_of_the_run_unless_a_list_is_given():
    assert Options().answers is None and Options(answers=Path("a.json")).answers == Path("a.json")
