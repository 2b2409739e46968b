import json

import pytest
import torch

from tests.export.runs import write_run
from vmm.evaluation.retrieval.mixing import CHOICE_CANDIDATES, WEIGHTS, best_weight, choose_weight
from vmm.evaluation.retrieval.scoring import top_k
from vmm.models.match_weight import read_match_weight
from vmm.ops.similarity import MATCH_WEIGHT, Mixture
from vmm.runs import load_run


class Encoded:
    """Of as many captions as clips, each about its own."""

    def __init__(self, number):
        self.captions = self.clips = [str(i) for i in range(number)]
        self.relevant = torch.eye(number, dtype=torch.bool)


class Scores:
    def __init__(self, vectors, match):
        self.pairs = {"vectors": vectors, "match": match}


def noisy(number, of_vectors, of_match, seed=0):
    """Cosines and logits of which each tells the right one by itself, with errors of its own."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.eye(number)
    cosines = 0.1 * (right + of_vectors * torch.randn(number, number, generator=generator))
    logits = right + of_match * torch.randn(number, number, generator=generator)
    return Scores(cosines.clamp(-1, 1), logits)


@pytest.mark.parametrize(
    ("of_vectors", "of_match", "lowest", "highest"),
    [(0.4, 0.4, 0.3, 3.0), (0.1, 3.0, 0.0, 0.3), (2.0, 0.1, 2.0, 10.0)],
)
def test_who_is_more_often_right_counts_more(of_vectors, of_match, lowest, highest):
    encoded, scores = Encoded(200), noisy(200, of_vectors, of_match)
    choice = best_weight(encoded, scores, Mixture(0.1))
    assert lowest <= choice.weight <= highest and choice.clips == 200
    assert choice.curve[choice.weight] > max(choice.curve.values()) - 0.02
    if lowest > 0:
        assert choice.curve[choice.weight] > choice.curve[0.0]
    assert list(choice.curve) == list(WEIGHTS)


def test_of_equally_good_weights_the_usual_one_is_taken():
    encoded, scores = Encoded(3), Scores(torch.eye(3), torch.eye(3))
    assert best_weight(encoded, scores, Mixture()).weight == MATCH_WEIGHT


def test_few_clips_do_not_move_it_far():
    few, many = (
        best_weight(Encoded(n), noisy(n, 0.4, 1.2, seed=3), Mixture(0.1)) for n in (6, 300)
    )
    assert many.weight < MATCH_WEIGHT  # the head is the weaker one
    best = max(few.curve, key=few.curve.get)
    assert few.curve[MATCH_WEIGHT] < few.curve[best] and few.weight != best


def test_pairs_that_nobody_looked_at_are_not_needed():
    cosines = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    looked_at = top_k(cosines, CHOICE_CANDIDATES, 1) | top_k(cosines, CHOICE_CANDIDATES, 0)
    match = torch.zeros(40, 40).masked_fill(~looked_at, torch.nan)
    curve = best_weight(Encoded(40), Scores(cosines, match), Mixture()).curve
    assert len(set(curve.values())) == 1  # a head that says nothing changes nothing


def test_a_run_gets_a_weight_of_its_validation_clips(demo_shards, tmp_path):
    run = tmp_path / "run"
    write_run(run, seed=0, val_videos=f"{demo_shards.folder}/val-*.tar")
    before = load_run(run).model
    assert before.match_weight == MATCH_WEIGHT
    choice = choose_weight(run, clips=6)
    assert choice.clips == 6 and choice.weight in WEIGHTS
    assert load_run(run).model.match_weight == choice.weight == read_match_weight(run)
    kept = json.loads((run / "match_weight.json").read_text())
    assert kept["clips"] == 6 and len(kept["mean_reciprocal_rank"]) == len(WEIGHTS)
    assert sorted(path.name for path in run.iterdir()) == [
        "bert", "checkpoints", "config.yaml", "match_weight.json",
    ]  # fmt: skip
    other = choose_weight(run, shards=f"{demo_shards.folder}/test-*.tar")
    assert other.clips == 16


def test_a_run_without_validation_clips_is_told_so(tmp_path):
    write_run(tmp_path / "run", seed=0)
    with pytest.raises(ValueError, match=r"names no data\.init_args\.val_videos .*--shards"):
        choose_weight(tmp_path / "run")
