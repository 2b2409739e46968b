"""The protocol, on a toy world where the right answers are known.

A toy clip shows one of many items, brighter or darker from frame to frame; its caption names the
item and the direction. The toy model reads both off the pixels, unless it is told to ignore the
order of frames or the text.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from eval.evaluation import evaluate
from eval.scoring import encode_captions, match_scores, rerank, top_k
from vmm.models.text_encoder import VisionKV
from vmm.models.video_text import TextEncoding, VideoEncoding
from vmm.types import TextTokens

NUM_ITEMS, NUM_FRAMES = 6, 4
SLOPE = 0.3  # small beside the distance of two items


def toy_video(item, direction):
    angle = 2 * math.pi * item / NUM_ITEMS
    video = torch.empty(NUM_FRAMES, 3, 2, 2)
    video[:, 0], video[:, 1] = math.cos(angle), math.sin(angle)
    video[:, 2] = direction * torch.linspace(0, SLOPE, NUM_FRAMES)[:, None, None]
    return video


def caption(item, direction):
    return f"{item} {'up' if direction > 0 else 'down'}"


def sample(item, direction, problem=None, captions=None, reversed_order=False):
    video = toy_video(item, direction)
    return SimpleNamespace(
        video=None if problem else (video.flip(0) if reversed_order else video),
        captions=captions or [caption(item, direction)],
        key=f"shard/{item}{direction}",
        metadata={"reversed_caption": caption(item, -direction)},
        problem=problem,
    )


def world(**options):
    return [sample(item, sign, **options) for item in range(NUM_ITEMS) for sign in (1, -1)]


class ToyModel(nn.Module):
    def __init__(self, sees_order=True, reads_text=True):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.sees_order, self.reads_text = sees_order, reads_text
        self.text_encoder = self  # the toy is its own text encoder
        self.projected_clips = []

    def encode_video(self, video):
        vector = video.mean((3, 4))  # (B, T, 3)
        slope = vector[:, -1, 2] - vector[:, 0, 2] if self.sees_order else 0 * vector[:, 0, 2]
        vector = torch.stack([vector[:, 0, 0], vector[:, 0, 1], slope], 1)[:, None]
        return VideoEncoding(vector, vector, None)

    def project_video(self, pooled):
        return pooled

    def tokenize(self, texts, device):
        ids = [[int(t.split()[0]), int(t.split()[1] == "up")] for t in texts]
        return TextTokens(torch.tensor(ids), torch.ones(len(texts), 2))

    def encode_text(self, input_ids, attention_mask):
        angle = 2 * math.pi * input_ids[:, 0] / NUM_ITEMS
        vector = torch.stack([angle.cos(), angle.sin(), SLOPE * (2 * input_ids[:, 1] - 1)], 1)
        if not self.reads_text:
            vector = torch.ones_like(vector)
        return TextEncoding(vector[:, None], vector)

    def project_text(self, pooled):
        return pooled

    def project_vision(self, tokens):
        self.projected_clips.append(tokens)
        return VisionKV((tokens,), (tokens,))

    def fuse(self, text_tokens, attention_mask, vision):
        return text_tokens * vision.keys[0][:, :1]

    def match_logits(self, fused):
        score = 10 * fused[:, 0].sum(-1)
        return torch.stack([-score, score], 1)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.mark.parametrize("k", [None, 3, 128])
def test_a_model_that_sees_the_order_finds_everything(k):
    numbers = evaluate(ToyModel(), world(), k).numbers
    for scores in ("dual", "reranked")[: 1 if k is None else 2]:
        assert numbers[scores]["recall_mean"] == 100
        assert numbers["interval"][scores]["t2v_recall_1"] == (100, 100)
    assert numbers["direction"]["dual"] == 100
    assert numbers["direction"]["match"] == (None if k is None else 100)
    assert (numbers["reranked"] is None) == (k is None)


def test_reversed_frames_make_it_find_the_twins():
    numbers = evaluate(ToyModel(), world(reversed_order=True)).numbers
    for scores in ("dual", "reranked"):
        assert numbers[scores]["t2v_recall_1"] == numbers[scores]["v2t_recall_1"] == 0
        assert numbers[scores]["t2v_median_rank"] == 2
    assert numbers["direction"] == {"pairs": 2 * NUM_ITEMS, "dual": 0, "match": 0}


def test_a_model_that_ignores_the_order_is_at_chance_among_twins():
    numbers = evaluate(ToyModel(sees_order=False), world()).numbers
    for scores in ("dual", "reranked"):
        assert numbers[scores]["t2v_recall_1"] == pytest.approx(50)
    assert numbers["direction"] == {"pairs": 2 * NUM_ITEMS, "dual": 50, "match": 50}


def test_a_model_that_ignores_the_text_is_at_chance():
    numbers = evaluate(ToyModel(reads_text=False), world()).numbers
    assert numbers["dual"]["v2t_recall_1"] == pytest.approx(numbers["chance"]["v2t_recall_1"])
    assert numbers["dual"]["t2v_recall_1"] == pytest.approx(numbers["chance"]["t2v_recall_1"])
    assert numbers["direction"]["match"] == 50


def test_unreadable_clips_stay_in_the_gallery_and_their_queries_are_misses():
    samples = world()
    samples[3] = sample(1, -1, problem="truncated")
    samples[8] = sample(4, 1, problem="truncated")
    evaluation = evaluate(ToyModel(), samples, batch_size=5)
    for scores in ("dual", "reranked"):
        metrics = evaluation.numbers[scores]
        assert metrics["t2v_recall_10"] == metrics["v2t_recall_1"] == pytest.approx(1000 / 12)
        assert metrics["t2v_mean_rank"] == pytest.approx((10 * 1 + 2 * 12) / 12)
    assert evaluation.scores[:, [3, 8]].eq(-torch.inf).all()
    assert evaluation.scores.argmax(1).tolist()[4:8] == [4, 5, 6, 7]
    assert evaluation.numbers["direction"]["pairs"] == 10


def test_no_readable_clip_is_an_error():
    with pytest.raises(ValueError, match="not one clip"):
        evaluate(ToyModel(), world(problem="truncated"))


def test_several_captions_per_clip():
    samples = [sample(0, 1, captions=["3 up", "0 up"]), sample(1, 1), sample(3, -1)]
    evaluation = evaluate(ToyModel(), samples, k=None)
    assert evaluation.captions == ["3 up", "0 up", "1 up", "3 down"]
    assert evaluation.owner.tolist() == [0, 0, 1, 2]
    assert evaluation.numbers["dual"]["v2t_recall_1"] == 100  # by its second caption
    assert evaluation.numbers["dual"]["t2v_recall_1"] == 75
    # The first caption of a clip is set against the reversed one: "3 up" is wrong, "0 down" too.
    assert evaluation.numbers["direction"]["pairs"] == 3


def test_clips_without_a_reversed_caption_have_no_direction():
    samples = world()
    for item in samples[2:]:
        item.metadata = {"reversed_caption": 7}  # not a caption: ignored
    assert evaluate(ToyModel(), samples).numbers["direction"]["pairs"] == 2
    for item in samples:
        item.metadata = {}
    assert evaluate(ToyModel(), samples).numbers["direction"] is None


def test_every_clip_is_projected_once_however_many_captions_look_at_it():
    model = ToyModel()
    samples = world()
    evaluate(model, samples, k=4)
    assert all(len(tokens) == 1 for tokens in model.projected_clips)
    seen = torch.cat(model.projected_clips).squeeze(1)
    want = torch.stack([model.encode_video(s.video[None]).pooled[0, 0] for s in samples])
    assert torch.equal(seen, want)


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


class WaywardHead(ToyModel):
    """A matching head with opinions of its own, so that re-ranking changes the order."""

    def fuse(self, text_tokens, attention_mask, vision):
        return text_tokens * vision.keys[0][:, :1].roll(1, -1)

    def match_logits(self, fused):
        score = torch.sin(40 * fused[:, 0].sum(-1))
        return torch.stack([-score, score], 1)


def test_reranked_metrics_equal_sorting_by_hand_in_each_direction():
    model, samples, k = WaywardHead(), world(), 3
    generator = torch.Generator().manual_seed(0)
    for item in samples:  # no symmetry, no ties
        item.video = torch.randn(NUM_FRAMES, 3, 2, 2, generator=generator)
    got = evaluate(model, samples, k).numbers["reranked"]
    clips = model.encode_video(torch.stack([s.video for s in samples])).pooled[:, 0]
    text = model.encode_text(*model.tokenize([s.captions[0] for s in samples], "cpu"))
    n = len(samples)
    dual = torch.nn.functional.normalize(text.pooled) @ torch.nn.functional.normalize(clips).T
    vision = VisionKV((clips[:, None].repeat(n, 1, 1),), ())
    pairs = text.tokens.repeat_interleave(n, 0)
    match = model.match_logits(model.fuse(pairs, None, vision))[:, 1].view(n, n)
    for name, d, m in (("t2v", dual, match), ("v2t", dual.T, match.T)):
        ranks = []
        for query in range(n):
            candidates = sorted(range(n), key=lambda i: -d[query, i])
            first = sorted(candidates[:k], key=lambda i: -m[query, i])
            ranks.append(1 + (first + candidates[k:]).index(query))
        assert got[f"{name}_mean_rank"] == pytest.approx(sum(ranks) / n)
        assert got[f"{name}_recall_1"] == pytest.approx(100 * ranks.count(1) / n)


def test_rerank_keeps_close_cosines_apart():
    dual = torch.tensor([[0.9, 0.5, 0.5 + 6e-8, 0.5 - 6e-8]])
    got = rerank(dual, torch.tensor([[1000.0, 0, 0, 0]]), top_k(dual, 1, 1), 1)
    assert got.argsort(descending=True).tolist() == [[0, 2, 1, 3]]


def test_match_scores_are_those_of_each_pair_alone(monkeypatch):
    monkeypatch.setattr("eval.scoring._MAX_PAIRS", 2)  # several parts per clip
    model = ToyModel()
    text = encode_captions(model, [caption(i, 1) for i in range(5)], 2)
    tokens = model.encode_video(torch.stack([s.video for s in world()[:4]])).tokens
    wanted = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    got = match_scores(model, text, tokens, wanted)
    assert torch.equal(got.isnan(), ~wanted)
    for t, v in wanted.nonzero().tolist():
        vision = VisionKV((tokens[v : v + 1],), ())
        alone = model.match_logits(model.fuse(text.tokens[t : t + 1], None, vision))
        assert got[t, v] == alone[0, 1]
