import json

import torch

from tests.evaluation.contents import write_pair
from vmm.evaluation.retrieval import compare_command


def main(*arguments):
    return compare_command.main([*map(str, arguments)])


def test_a_clear_gain_and_none(capsys, tmp_path):
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(8, (200,), generator=generator)
    b = (a - 3).clamp(min=0)
    paths = write_pair(tmp_path, a.tolist(), b.tolist(), list(range(200)), {"settings.views": 3})
    assert main(*paths, "--out", tmp_path / "out.json") == 0
    output = capsys.readouterr().out
    share = [100 * (x == 0).double().mean().item() for x in (a, b)]
    assert f"{share[0]:.1f}" in output and f"{share[1] - share[0]:+.1f}" in output
    assert "< 0.001" in output
    assert "views: 1 | 3" in output
    first = json.loads((tmp_path / "out.json").read_text())["differences"][0]
    assert (first["direction"], first["scores"], first["k"]) == ("t2v", "dual", 1)
    assert first["low"] < share[1] - share[0] < first["high"]
    assert main(*write_pair(tmp_path, a.tolist(), a.tolist(), list(range(200)))) == 0
    output = capsys.readouterr().out
    assert "+0.0 (+0.0 to +0.0)" in output and "1.000" in output and "not the same" not in output


def test_a_file_that_lacks_ranks_is_one_line(tmp_path, capsys):
    good, _ = write_pair(tmp_path, [0], [0], [0])
    bad = json.loads(good.read_text())
    bad["queries"]["dual"]["t2v"].pop("tied")
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    assert main(good, tmp_path / "bad.json") == 2
    assert "holds no t2v ranks of dual" in capsys.readouterr().err
