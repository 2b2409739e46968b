import pytest
import torch

from vmm.evaluation.common.features import Clip
from vmm.evaluation.retrieval.scoring import match_scores, relate, rerank, top_k


def test_broken_weights_are_an_error(toys, tmp_path):
    class Broken(toys.Encoder):
        def encode_videos(self, video):
            found = super().encode_videos(video)
            found.projected[1] = torch.nan
            return found

    class BrokenHead(toys.Encoder):
        def match(self, states, tokens):
            return super().match(states, tokens) * torch.nan

    with pytest.raises(ValueError, match="vectors of 1 of 12 clips hold NaN"):
        toys.evaluate(tmp_path, Broken(), toys.world())
    with pytest.raises(ValueError, match="matching head gives NaN"):
        toys.evaluate(tmp_path / "head", BrokenHead(), toys.world())


def test_a_caption_may_be_of_several_clips(toys, tmp_path):
    clips = [Clip("a", ["x", "y"], None, None), Clip("b", ["x"], None, None)]
    captions, relevant = relate(clips, shared_captions=True)
    assert captions == ["x", "y"]
    assert relevant.tolist() == [[True, True], [True, False]]
    assert relate(clips, shared_captions=False)[1].sum() == 3
    # Two clips of one item: either is right for the caption that both have.
    samples = [toys.sample(i, 1, captions=[f"{i // 2 * 2} up"]) for i in range(4)]
    world = toys.world(samples)
    alone, shared = (
        toys.evaluate(tmp_path, toys.Encoder(), world, k=None, dataset=dataset).numbers
        for dataset in (None, "ssv2-template")
    )
    assert alone["scores"]["dual"]["t2v_recall_1"] == 50
    assert shared["scores"]["dual"]["t2v_recall_1"] == 100
    assert len(shared["queries"]["dual"]["t2v"]["better"]) == 2


def test_every_clip_is_matched_at_once_however_many_captions_look_at_it(toys, tmp_path):
    encoder, world = toys.Encoder(), toys.world()
    toys.evaluate(tmp_path, encoder, world, k=4)
    seen = torch.cat(encoder.matched)
    want = torch.cat([encoder.encode_videos(s.video[None]).tokens[0] for s in world])
    assert torch.equal(seen, want)


def test_a_model_without_a_matching_head_is_not_reranked(toys, tmp_path):
    class Dual:
        """Two methods, a name and the form of its input are all that a model needs."""

        name, clip = "dual", toys.Encoder.clip
        identity = encode_texts = encode_videos = None

    inner, dual = toys.Encoder(), Dual()
    dual.identity, dual.encode_texts = inner.identity, inner.encode_texts
    dual.encode_videos = inner.encode_videos
    numbers = toys.evaluate(tmp_path, dual, toys.world()).numbers
    assert numbers["scores"]["reranked"] is None and numbers["scores"]["dual"]["recall_mean"] == 100


def test_rerank_equals_sorting_by_hand():
    torch.manual_seed(0)
    dual, match = torch.rand(7, 9), torch.randn(7, 9)
    for dim, k in ((1, 3), (0, 2), (1, 100)):
        top = top_k(dual, k, dim)
        got = rerank(dual, match.where(top, torch.nan), top, dim)
        assert got.isfinite().all()
        rows = zip(dual, match, got, strict=True)
        if dim == 0:
            rows = zip(dual.T, match.T, got.T, strict=True)
        for d, m, order in rows:
            candidates = sorted(range(len(d)), key=lambda i, d=d: -d[i])
            first, rest = candidates[:k], candidates[k:]
            first.sort(key=lambda i, m=m: -m[i])
            assert order.argsort(descending=True).tolist() == first + rest


def test_rerank_keeps_close_cosines_apart():
    dual = torch.tensor([[0.9, 0.5, 0.5 + 6e-8, 0.5 - 6e-8]])
    got = rerank(dual, torch.tensor([[1000.0, 0, 0, 0]]), top_k(dual, 1, 1), 1)
    assert got.argsort(descending=True).tolist() == [[0, 2, 1, 3]]


def test_only_the_wanted_pairs_are_matched(toys):
    encoder = toys.Encoder()
    states = encoder.encode_texts([f"{i} up" for i in range(5)]).states
    tokens = encoder.encode_videos(torch.stack([s.video for s in toys.world()[:4]])).tokens
    wanted = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    got = match_scores(encoder, states, tokens, wanted)
    assert torch.equal(got.isnan(), ~wanted)
    for t, v in wanted.nonzero().tolist():
        assert got[t, v] == encoder.match([states[t]], tokens[v])[0]
