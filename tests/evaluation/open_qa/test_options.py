from pathlib import Path

import pytest

from vmm.evaluation.open_qa.options import Options
from vmm.evaluation.open_qa.run import evaluate


def test_no_other_model_answers():
    with pytest.raises(TypeError, match="model"):
        Options(model="open_clip:ViT-B-32", shards="x.tar")
    with pytest.raises(ValueError, match="give the run directory of a trained model"):
        evaluate(Options(shards="x.tar"))


def test_answers_are_those_of_the_run_unless_a_list_is_given():
    assert Options().answers is None and Options(answers=Path("a.json")).answers == Path("a.json")
