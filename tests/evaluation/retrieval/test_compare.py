import json
from itertools import product
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from eval.compare import main
from vmm.evaluation.retrieval.compare import compare, permutation_p
from vmm.evaluation.retrieval.results import RetrievalResult


def ranks(better):
    n = len(better)
    return {"better": better, "tied": [1] * n, "targets": [1] * n, "candidates": n}


@pytest.fixture
def results(tmp_path, result_content):
    """Write two results, the second with changes, and call the command on them."""

    def write(a_ranks, b_ranks, video, changes=MappingProxyType({})):
        paths = []
        for name, found in (("a", a_ranks), ("b", b_ranks)):
            content = result_content()
            content |= {"name": name, "reranked": None}
            content["queries"] = {
                "video": video,
                "dual": {"t2v": ranks(found), "v2t": ranks(found)},
            }
            if name == "b":
                for key, value in changes.items():
                    part, _, field = key.partition(".")
                    content[part] = content[part] | {field: value} if field else value
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(content))
            paths.append(str(path))
        return paths

    return write


def test_a_clear_gain_and_none(results, capsys, tmp_path):
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(8, (200,), generator=generator)
    b = (a - 3).clamp(min=0)
    paths = results(a.tolist(), b.tolist(), list(range(200)), {"settings.views": 3})
    assert main([*paths, "--out", str(tmp_path / "out.json")]) == 0
    output = capsys.readouterr().out
    share = [100 * (x == 0).double().mean().item() for x in (a, b)]
    assert f"{share[0]:.1f}" in output and f"{share[1] - share[0]:+.1f}" in output
    assert "< 0.001" in output
    assert "views: 1 | 3" in output
    first = json.loads((tmp_path / "out.json").read_text())["differences"][0]
    assert (first["direction"], first["scores"], first["k"]) == ("t2v", "dual", 1)
    assert first["low"] < share[1] - share[0] < first["high"]
    same = results(a.tolist(), a.tolist(), list(range(200)))
    assert main(same) == 0
    output = capsys.readouterr().out
    assert "+0.0 (+0.0 to +0.0)" in output and "1.000" in output and "not the same" not in output


def test_the_interval_and_the_p_value_move_whole_videos(results):
    # Ten videos with 20 captions each: the gain of one video is no proof.
    video = [i for i in range(10) for _ in range(20)]
    a = [1] * 200
    b = [0] * 20 + [1] * 180
    paths = results(a, b, video)
    by_video = compare(*(RetrievalResult.read(Path(path)) for path in paths))[0]
    assert by_video.b - by_video.a == pytest.approx(10)
    assert by_video.p == pytest.approx(1)  # one video, either way round
    assert by_video.low == 0
    alone = permutation_p(torch.tensor(b).double() - torch.tensor(a).double())
    assert alone < 0.001


@pytest.mark.parametrize(
    "changes",
    [
        {"data.split_hash": "other"},
        {"data.test_set": "MSRVTT full"},
        {"data.paragraph": True},
        {"data.videos": 3},
        {"settings.coverage": "available"},
        {"settings.ties": "optimistic"},
        {"settings.k": 16},
    ],
)
def test_different_protocols_are_refused(results, capsys, changes):
    paths = results([0, 1], [0, 1], [0, 1], changes)
    assert main(paths) == 2
    error = capsys.readouterr().err
    (name,) = changes
    assert "were not measured alike" in error and name.partition(".")[2] in error


def test_one_of_two_may_lack_re_ranking(results, capsys):
    assert main(results([0, 1], [0, 1], [0, 1], {"settings.k": None})) == 0
    assert "re-ranked: the best 128 per query | no" in capsys.readouterr().out


def test_a_file_that_is_no_result_is_one_line(tmp_path, capsys, results):
    good, _ = results([0], [0], [0])
    assert main([good, str(tmp_path / "gone.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    bad = json.loads((tmp_path / "a.json").read_text())
    bad["queries"]["dual"]["t2v"].pop("tied")
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    assert main([good, str(tmp_path / "bad.json")]) == 2
    assert "holds no t2v ranks of dual" in capsys.readouterr().err


def test_the_p_value_is_that_of_all_swaps():
    gain = torch.tensor([1.0, 1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    swaps = torch.tensor(list(product((-1.0, 1.0), repeat=8))) * gain
    exact = (swaps.sum(1).abs() >= gain.sum().abs()).double().mean().item()
    assert permutation_p(gain) == pytest.approx(exact, abs=0.01)
    assert permutation_p(gain) == permutation_p(gain)  # deterministic
    assert permutation_p(torch.zeros(3)) == 1
    with pytest.raises(ValueError, match="at least one"):
        permutation_p(torch.zeros(0))
    with pytest.raises(ValueError, match="same number"):
        permutation_p(torch.zeros(3), torch.zeros(2, dtype=torch.int64))
