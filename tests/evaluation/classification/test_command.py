from pathlib import Path

import pytest

from vmm.evaluation.classification.command import main
from vmm.evaluation.classification.options import Options

SHARDS = ("--run", "r", "--shards", "x.tar")


def test_options_are_those_of_python(told):
    views = ("--clips", 4, "--crops", 3, "--num-frames", 4)
    prompts = ("--class-field", "a.b", "--template", "{}", "--template", "a {}", "--classes", "c")
    assert told("classification", *SHARDS, *views, *prompts, "--ids", "i",
        "--frame-order", "reversed") == Options(
        run=Path("r"), shards="x.tar", clips=4, crops=3, num_frames=4,
        class_field="a.b", templates=["{}", "a {}"], classes=Path("c"), ids=Path("i"),
        frame_order="reversed", num_workers=2,
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--clips", "--crops", "--num-frames"])
def test_no_views_are_not_the_usual_ones(capsys, option):
    with pytest.raises(SystemExit, match="2"):
        main([*SHARDS, option, "0"])
    assert f"{option}: '0' is no whole number of 1 or more" in capsys.readouterr().err
