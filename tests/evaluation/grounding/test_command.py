from pathlib import Path

import pytest

from vmm.evaluation.grounding.command import main
from vmm.evaluation.grounding.options import Options

FILES = ("--run", "r", "--dataset", "charades-sta", "--annotations", "a.txt", "--media", "m")


def test_options_are_those_of_python(told):
    how = ("--fps", 0.5, "--window", 8, "--ids", "i", "--head", "h")
    train = ("--train-annotations", "t.txt", "--train-media", "n")
    assert told("grounding", *FILES, *how, *train) == Options(
        run=Path("r"), dataset="charades-sta", annotations=Path("a.txt"), media="m", fps=0.5,
        window=8, ids=Path("i"), head=Path("h"), train_annotations=Path("t.txt"), train_media="n",
    )  # fmt: skip


def test_a_set_that_is_not_known_gets_the_nearest_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*FILES, "--dataset", "charades"])
    assert "charades-sta" in capsys.readouterr().err
