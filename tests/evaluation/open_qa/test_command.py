from pathlib import Path

import pytest

from vmm.evaluation.open_qa.command import main
from vmm.evaluation.open_qa.options import Options

SHARDS = ("--run", "r", "--shards", "x.tar")


def test_options_are_those_of_python(told):
    assert told("open_qa", *SHARDS, "--answers", "a.json", "--batch-size", 5) == Options(
        run=Path("r"), shards="x.tar", answers=Path("a.json"), batch_size=5, num_workers=2
    )


def test_only_a_run_can_answer(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*SHARDS, "--model", "open_clip:ViT-B-32"])
    assert "--model" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(SHARDS[2:])
    assert "give --run" in capsys.readouterr().err
