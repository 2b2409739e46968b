from pathlib import Path

import pytest

from vmm.evaluation.long_video_qa.command import main
from vmm.evaluation.long_video_qa.options import Options

FILES = ("--run", "r", "--dataset", "egoschema", "--annotations", "a.json", "--media", "m")


def test_options_are_those_of_python(told):
    how = ("--fps", 0.5, "--window", 8, "--aggregate", "lse", "--prompt", "is-it", "--ids", "i")
    assert told("long_video_qa", *FILES, *how) == Options(
        run=Path("r"), dataset="egoschema", annotations=Path("a.json"), media="m",
        fps=0.5, window=8, aggregate="lse", prompt="is-it", ids=Path("i"),
    )  # fmt: skip


def test_a_window_of_no_frames_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*FILES, "--window", "0"])
    assert "--window: '0' is no whole number of 1 or more" in capsys.readouterr().err
