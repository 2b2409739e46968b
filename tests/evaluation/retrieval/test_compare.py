import re
from itertools import product

import pytest
import torch

from tests.evaluation.contents import write_pair
from vmm.evaluation.retrieval.compare import compare, comparison_text, permutation_p
from vmm.evaluation.retrieval.compare_command import main
from vmm.evaluation.retrieval.results import RetrievalResult


def results(*pair):
    return [RetrievalResult.read(path) for path in write_pair(*pair)]


def test_the_interval_and_the_p_value_move_whole_videos(tmp_path):
    # Ten videos with 20 captions each: the gain of one video is no proof.
    video = [i for i in range(10) for _ in range(20)]
    a = [1] * 200
    b = [0] * 20 + [1] * 180
    by_video = compare(*results(tmp_path, a, b, video))[0]
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
def test_different_protocols_are_refused(tmp_path, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"were not measured alike.*{name.partition('.')[2]}"):
        compare(*results(tmp_path, [0, 1], [0, 1], [0, 1], changes))


def test_one_of_two_may_lack_re_ranking(tmp_path):
    a, b = results(tmp_path, [0, 1], [0, 1], [0, 1], {"settings.k": None})
    assert "re-ranked: the best 128 per query | no" in comparison_text(a, b, compare(a, b))


def test_that_nothing_is_a_difference_is_said_where_it_is_so(tmp_path):
    half, none = [0] * 20 + [1] * 20, [0] * 40
    for a, b, luck in (
        (half, [*none[:19], 1, 0, *half[21:]], True),
        (half, none, False),
        (none, half, False),  # a loss is a difference, too
    ):
        pair = results(tmp_path, a, b, [*range(40)])
        said = comparison_text(*pair, compare(*pair))
        assert ("Nothing here is a difference: every interval holds 0" in said) == luck


def test_columns_have_names_also_where_both_results_have_one(tmp_path):
    a, b = results(tmp_path, [0, 1], [0, 1], [1, 1], {})
    header = comparison_text(a, b, compare(a, b)).splitlines()[0]
    names = (a.name, b.name) if a.name != b.name else (f"{a.name} (1)", f"{b.name} (2)")
    expected = ["direction", "scores", "recall", *names, f"{names[1]} - {names[0]} (95 %)"]
    assert re.split(r"  +", header.strip()) == [*expected, "p-value"]


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


def test_a_result_and_itself_are_told(tmp_path, capsys):
    a, b = write_pair(tmp_path, [0, 1], [1, 0], [0, 1])
    assert main([str(a), str(a)]) == 0
    assert f"{a} and {a} are the same result" in capsys.readouterr().out
    assert main([str(a), str(b)]) == 0
    assert "the same result" not in capsys.readouterr().out
