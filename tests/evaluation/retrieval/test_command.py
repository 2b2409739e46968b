from pathlib import Path

import pytest

from vmm.evaluation.retrieval.command import main
from vmm.evaluation.retrieval.options import Options

SHARDS = ("--run", "r", "--shards", "x.tar")


def test_options_are_those_of_python(told):
    official = ("--dataset", "captions", "--annotations", "a.json", "--media", "m")
    model = ("--model", "open_clip:x", "--trust-remote-code", "--num-frames", 4)
    how = ("--k", 16, "--dsl", "--frame-order", "reversed", "--coverage", "available")
    files = ("--ids", "i", "--train-ids", "t", "--out", "o", "--name", "n", "--checkpoint", "last")
    work = ("--batch-size", 3, "--num-workers", 1)
    assert told("retrieval", *official, *model, *how, *files, *work) == Options(
        dataset="captions", annotations=Path("a.json"), media="m",
        model="open_clip:x", trust_remote_code=True, num_frames=4,
        k=16, dual_softmax=True, frame_order="reversed", coverage="available",
        ids=Path("i"), train_ids=Path("t"), out=Path("o"), name="n", checkpoint="last",
        batch_size=3, num_workers=1,
    )  # fmt: skip


def test_without_re_ranking_there_is_no_k(told):
    found = told("retrieval", *SHARDS, "--no-rerank")
    assert found == Options(run=Path("r"), shards="x.tar", k=None, num_workers=2)


@pytest.mark.parametrize("option", ["--k", "--num-frames"])
def test_none_of_what_is_counted_is_refused(capsys, option):
    with pytest.raises(SystemExit, match="2"):
        main([*SHARDS, option, "0"])
    assert f"{option}: '0' is no whole number of 1 or more" in capsys.readouterr().err
