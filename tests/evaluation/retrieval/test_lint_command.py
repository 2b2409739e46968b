import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.evaluation.contents import write_captions
from vmm.evaluation.retrieval import lint_command


@pytest.fixture
def call(tmp_path):
    annotations = write_captions(tmp_path)

    def call(scores, *options, dataset="captions"):
        told = [tmp_path / scores, "--dataset", dataset, "--annotations", annotations, *options]
        return lint_command.main([*map(str, told)])

    return call


def test_the_command_scores_a_matrix_and_says_what_is_off(tmp_path, call, capsys):
    scores = torch.eye(6) + 0.01 * torch.rand(6, 6)
    np.save(tmp_path / "a.npy", scores.numpy())
    assert call("a.npy") == 0
    output = capsys.readouterr().out
    assert "text-to-video  100.0" in output and "nothing is off" in output
    save_file({"s": scores.bfloat16()}, tmp_path / "b.safetensors")
    seen = tmp_path / "train.txt"
    seen.write_text("vidéo3\n", encoding="utf-8")
    assert call("b.safetensors", "--train-ids", seen) == 0
    output = capsys.readouterr().out
    assert "! half-precision" in output and "! training-videos: 1 of 6" in output
    assert "vidéo3" in output


def test_what_was_reported_is_compared(tmp_path, call, capsys):
    scores = torch.eye(6)
    scores[:, 0] = 2.5 - torch.arange(6.0)  # three captions find the first video
    np.save(tmp_path / "a.npy", scores.numpy())
    assert call("a.npy") == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    (t2v,), (v2t,) = (
        [row[1] for row in table if row[0] == d] for d in ("text-to-video", "video-to-text")
    )
    assert t2v != v2t
    for reported, said in (((t2v, v2t), False), ((v2t, t2v), True)):
        assert call("a.npy", "--t2v", reported[0], "--v2t", reported[1]) == 0
        assert ("! direction-swapped" in capsys.readouterr().out) == said


def test_mistakes_are_one_line(call, capsys):
    assert call("gone.npy") == 2
    assert "No such file" in capsys.readouterr().err
    assert call("gone.npy", dataset="msrvtt-1kb") == 2
    assert "known are msrvtt-1ka" in capsys.readouterr().err
