"""The protocol, on a toy world where the right answers are known (conftest.py)."""

import pytest
import torch
import torch.nn.functional as F

from tests.evaluation.contents import KINDS
from vmm.evaluation.common.models import ClipVectors
from vmm.ops.similarity import Mixture


@pytest.mark.parametrize("k", [None, 3, 128])
def test_a_model_that_sees_the_order_finds_everything(toys, tmp_path, k):
    numbers = toys.evaluate(tmp_path, toys.Encoder(), toys.world(), k=k).numbers
    for scores in KINDS[: 2 if k is None else 4]:
        assert numbers["scores"][scores]["recall_mean"] == 100
        assert numbers["interval"][scores]["t2v_recall_1"] == [100, 100]
    assert numbers["direction"]["dual"] == 100
    assert numbers["direction"]["match"] == (None if k is None else 100)
    for scores in ("mixed", "reranked"):
        assert (numbers["scores"][scores] is None) == (k is None)


def test_reversed_frames_make_it_find_the_twins(toys, tmp_path):
    world = toys.world(reversed_order=True)
    numbers = toys.evaluate(tmp_path, toys.Encoder(), world).numbers
    for scores in KINDS:
        assert (
            numbers["scores"][scores]["t2v_recall_1"]
            == numbers["scores"][scores]["v2t_recall_1"]
            == 0
        )
        assert numbers["scores"][scores]["t2v_median_rank"] == 2
    sides = dict.fromkeys(("dual", "vectors", "mixed", "match"), 0)
    assert numbers["direction"] == {"pairs": 2 * toys.NUM_ITEMS} | sides


def test_a_model_that_ignores_the_order_is_at_chance_among_twins(toys, tmp_path):
    numbers = toys.evaluate(tmp_path, toys.Encoder(sees_order=False), toys.world()).numbers
    for scores in KINDS:
        assert numbers["scores"][scores]["t2v_recall_1"] == pytest.approx(50)
    sides = dict.fromkeys(("dual", "vectors", "mixed", "match"), 50)
    assert numbers["direction"] == {"pairs": 2 * toys.NUM_ITEMS} | sides


def test_a_model_that_ignores_the_text_is_at_chance(toys, tmp_path):
    numbers = toys.evaluate(tmp_path, toys.Encoder(reads_text=False), toys.world()).numbers
    assert numbers["scores"]["dual"]["v2t_recall_1"] == pytest.approx(
        numbers["scores"]["chance"]["v2t_recall_1"]
    )
    assert numbers["scores"]["dual"]["t2v_recall_1"] == pytest.approx(
        numbers["scores"]["chance"]["t2v_recall_1"]
    )
    assert numbers["direction"]["match"] == 50


def broken_world(toys):
    samples = list(toys.world())
    samples[3] = toys.sample(1, -1, problem="truncated")
    samples[8] = toys.sample(4, 1, problem="truncated")
    return toys.world(samples)


def test_unreadable_clips_stay_in_the_gallery_and_their_queries_are_misses(toys, tmp_path):
    evaluation = toys.evaluate(tmp_path, toys.Encoder(), broken_world(toys), batch_size=5)
    for scores in KINDS:
        metrics = evaluation.numbers["scores"][scores]
        assert metrics["t2v_recall_10"] == metrics["v2t_recall_1"] == pytest.approx(1000 / 12)
        assert metrics["t2v_mean_rank"] == pytest.approx((10 * 1 + 2 * 12) / 12)
    assert evaluation.scores[:, [3, 8]].eq(-torch.inf).all()
    assert evaluation.scores.argmax(1).tolist()[4:8] == [4, 5, 6, 7]
    assert evaluation.numbers["direction"]["pairs"] == 10
    assert evaluation.coverage == {
        "rule": "strict", "listed": 12, "readable": 10, "unreadable": 2,
        "problems": {"truncated": 2},
        "lost": {},
    }  # fmt: skip


def test_or_they_and_their_queries_are_dropped(toys, tmp_path):
    world = broken_world(toys)
    evaluation = toys.evaluate(tmp_path, toys.Encoder(), world, coverage="available")
    for scores in KINDS:
        assert evaluation.numbers["scores"][scores]["recall_mean"] == 100
    assert evaluation.numbers["scores"]["chance"]["t2v_recall_1"] == pytest.approx(10)
    assert evaluation.encoded.numbers == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    assert evaluation.scores.shape == (10, 10)
    assert evaluation.coverage["listed"] == 12


def test_no_readable_clip_is_an_error(toys, tmp_path):
    with pytest.raises(ValueError, match=r"not one of 12 clips could be read \(truncated\)"):
        toys.evaluate(tmp_path, toys.Encoder(), toys.world(problem="truncated"))


def test_one_clip_alone_is_found(toys, tmp_path):
    world = toys.world([toys.sample(0, 1)])
    metrics = toys.evaluate(tmp_path, toys.Encoder(), world).numbers["scores"]["reranked"]
    assert metrics["recall_mean"] == 100 and metrics["t2v_mean_rank"] == 1


def test_several_captions_per_clip(toys, tmp_path):
    world = toys.world(
        [toys.sample(0, 1, captions=["3 up", "0 up"]), toys.sample(1, 1), toys.sample(3, -1)]
    )
    evaluation = toys.evaluate(tmp_path, toys.Encoder(), world, k=None)
    assert evaluation.encoded.captions == ["3 up", "0 up", "1 up", "3 down"]
    assert evaluation.encoded.relevant.byte().argmax(1).tolist() == [0, 0, 1, 2]
    assert evaluation.numbers["queries"]["video"] == [0, 0, 1, 2]
    assert evaluation.numbers["scores"]["dual"]["v2t_recall_1"] == 100  # by its second caption
    assert evaluation.numbers["scores"]["dual"]["t2v_recall_1"] == 75
    # The first caption of a clip is set against the reversed one: "3 up" is wrong, "0 down" too.
    assert evaluation.numbers["direction"]["pairs"] == 3


def test_clips_without_a_reversed_caption_have_no_direction(toys, tmp_path):
    world = toys.world()
    # Not a caption: ignored.
    rest = [sample._replace(metadata={"reversed_caption": 7}) for sample in world[2:]]
    some = toys.world([*world[:2], *rest])
    assert toys.evaluate(tmp_path, toys.Encoder(), some).numbers["direction"]["pairs"] == 2
    none = toys.world([sample._replace(metadata={}) for sample in world])
    assert toys.evaluate(tmp_path / "b", toys.Encoder(), none).numbers["direction"] is None


def test_dual_softmax_is_asked_for_and_has_a_name_of_its_own(toys, tmp_path):
    plain = toys.evaluate(tmp_path, toys.Encoder(), toys.world()).numbers
    assert "dual+dsl" not in plain["scores"]
    weighted = toys.evaluate(tmp_path, toys.Encoder(), toys.world(), dual_softmax=True).numbers
    assert weighted["scores"]["dual+dsl"]["recall_mean"] == 100
    assert weighted["scores"]["dual"] == plain["scores"]["dual"]


def test_numbers_also_have_their_published_names(toys, tmp_path):
    world = toys.world([toys.sample(0, 1, captions=["3 up", "0 up"]), toys.sample(1, 1)])
    metrics = toys.evaluate(tmp_path, toys.Encoder(), world, k=None).numbers["scores"]["dual"]
    assert metrics["img_r1"] == metrics["t2v_recall_1"] != metrics["v2t_recall_1"]
    assert metrics["txt_r1"] == metrics["v2t_recall_1"]
    assert metrics["r_mean"] == metrics["recall_mean"]


@pytest.mark.parametrize("by", ["mixed", "reranked"])
def test_reranked_metrics_equal_sorting_by_hand_in_each_direction(toys, tmp_path, by):
    class Framewise(toys.WaywardEncoder):
        """Clips of several vectors, so that the two similarities differ."""

        mixture = Mixture(0.5, 2.0)

        def encode_videos(self, video):
            vectors = video.mean((3, 4))
            return ClipVectors(vectors, vectors)

    encoder, k = Framewise(), 3
    generator = torch.Generator().manual_seed(0)
    shape = (toys.NUM_FRAMES, 3, 2, 2)  # no symmetry, no ties
    world = toys.world(
        [s._replace(video=torch.randn(shape, generator=generator)) for s in toys.world()]
    )
    numbers = toys.evaluate(tmp_path, encoder, world, k=k).numbers
    got = numbers["scores"][by]
    clips = encoder.encode_videos(torch.stack([s.video for s in world]))
    text = encoder.encode_texts([s.captions[0] for s in world])
    frames = F.normalize(clips.projected, dim=-1).mean(1)
    nearest = frames if by == "reranked" else F.normalize(frames, dim=-1)
    dual = F.normalize(text.projected, dim=-1) @ nearest.T
    match = torch.stack([encoder.match(text.states, tokens) for tokens in clips.tokens], 1)
    if by == "mixed":
        match = dual / 0.5 + 2.0 * match
    n = len(world)
    for name, d, m in (("t2v", dual, match), ("v2t", dual.T, match.T)):
        ranks = []
        for query in range(n):
            candidates = sorted(range(n), key=lambda i: -d[query, i])
            first = sorted(candidates[:k], key=lambda i: -m[query, i])
            ranks.append(1 + (first + candidates[k:]).index(query))
        assert got[f"{name}_mean_rank"] == pytest.approx(sum(ranks) / n)
        assert got[f"{name}_recall_1"] == pytest.approx(100 * ranks.count(1) / n)
    assert numbers["scores"]["mixed"] != numbers["scores"]["reranked"]
    assert numbers["scores"]["vectors"] != numbers["scores"]["dual"]
