"""Oracle: sort every possible order of the tied candidates and average."""

import math
from itertools import permutations

import pytest
import torch

from vmm.metrics import (
    bootstrap_interval,
    choice_probability,
    dual_softmax,
    expected_rank,
    hit_probability,
    mean_average_precision,
    multiple_choice_scores,
    pair_accuracy,
    published_names,
    retrieval_metrics,
    text_to_video_ranks,
    video_to_text_ranks,
)


def all_ranks(scores, targets):
    """Rank of the best target in every order that sorts the scores, one entry per order."""
    ranks = []
    for order in permutations(range(len(scores))):
        ordered = [scores[i] for i in order]
        if ordered == sorted(scores, reverse=True):
            ranks.append(1 + min(order.index(t) for t in targets))
    return ranks


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
@pytest.mark.parametrize("video_of_text", [[0, 1, 2, 3, 4], [3, 0, 0, 1, 1, 1], [2, 2, 2, 2, 0, 1]])
def test_equals_the_average_over_all_orders_of_tied_candidates(levels, video_of_text):
    generator = torch.Generator().manual_seed(levels)
    num_texts, num_videos = len(video_of_text), 5
    similarity = torch.randint(levels, (num_texts, num_videos), generator=generator).float()
    rows = [all_ranks(similarity[t].tolist(), [v]) for t, v in enumerate(video_of_text)]
    columns = [
        all_ranks(similarity[:, v].tolist(), [t for t in range(num_texts) if video_of_text[t] == v])
        for v in sorted(set(video_of_text))
    ]
    owner = torch.tensor(video_of_text)
    got = retrieval_metrics(similarity, owner)
    ranked = {
        "t2v": text_to_video_ranks(similarity, owner), "v2t": video_to_text_ranks(similarity, owner)
    }  # fmt: skip
    recalls = {}
    for name, queries in {"t2v": rows, "v2t": columns}.items():
        for k in (1, 2, 3, 5, 10):
            want = 100 * mean(mean(r <= k for r in ranks) for ranks in queries)
            assert 100 * hit_probability(ranked[name], k).mean() == pytest.approx(want)
            if f"{name}_recall_{k}" in got:
                recalls[f"{name}_recall_{k}"] = want
                assert got[f"{name}_recall_{k}"] == pytest.approx(want)
        expected = [mean(ranks) for ranks in queries]
        assert got[f"{name}_mean_rank"] == pytest.approx(mean(expected))
        assert got[f"{name}_median_rank"] == pytest.approx(median(expected))
        own = mean(value for key, value in recalls.items() if key.startswith(name))
        assert sum(key.startswith(name) for key in recalls) == 3
        assert got[f"{name}_recall_mean"] == pytest.approx(own)
    assert got["recall_mean"] == pytest.approx(mean(recalls.values()))


@pytest.mark.parametrize("seed", range(6))
def test_a_text_may_be_about_several_videos(seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(3, (5, 6), generator=generator).float()
    similarity[:, seed] = -torch.inf  # unreadable
    relevant = torch.rand(5, 6, generator=generator) < 0.35
    relevant[torch.arange(5), torch.randint(6, (5,), generator=generator)] = True
    got = retrieval_metrics(similarity, relevant)
    ranks = {
        "t2v": [(similarity[t].tolist(), relevant[t]) for t in range(5)],
        "v2t": [(similarity[:, v].tolist(), relevant[:, v]) for v in range(6)],
    }
    for name, queries in ranks.items():
        expected, hits = [], []
        for scores, right in queries:
            targets = [i for i in right.nonzero().flatten().tolist() if scores[i] > -math.inf]
            if not right.any():
                continue
            every = all_ranks(scores, targets) if targets else [len(scores)]
            expected.append(mean(every))
            hits.append(mean(r <= 2 for r in every) if targets else 0)
        assert got[f"{name}_mean_rank"] == pytest.approx(mean(expected))
        found = {"t2v": text_to_video_ranks, "v2t": video_to_text_ranks}[name]
        assert hit_probability(found(similarity, relevant), 2).mean() == pytest.approx(mean(hits))


def test_one_video_per_text_is_a_special_case_of_several():
    similarity, owner = torch.rand(30, 12), torch.randint(12, (30,))
    relevant = torch.nn.functional.one_hot(owner, 12).bool()
    assert retrieval_metrics(similarity, owner) == retrieval_metrics(similarity, relevant)


def test_agrees_with_torchmetrics_and_ranx_without_ties(monkeypatch):
    """They break ties by position."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes a minute, this a second
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    ranx = pytest.importorskip("ranx")
    similarity, owner = torch.rand(40, 25), torch.randint(25, (40,))
    relevant = torch.nn.functional.one_hot(owner, 25).bool()
    got = retrieval_metrics(similarity, owner)
    rank = expected_rank(text_to_video_ranks(similarity, owner))
    names = [str(i) for i in range(40)]
    qrels = ranx.Qrels({q: {str(int(v)): 1} for q, v in zip(names, owner, strict=True)})
    run = ranx.Run(
        {q: {str(v): s for v, s in enumerate(row)}
         for q, row in zip(names, similarity.tolist(), strict=True)}
    )  # fmt: skip
    for k in (1, 5, 10):
        theirs = mean(
            retrieval.retrieval_hit_rate(scores, right, k).item()
            for scores, right in zip(similarity, relevant, strict=True)
        )
        assert got[f"t2v_recall_{k}"] == pytest.approx(100 * theirs)
        assert got[f"t2v_recall_{k}"] == pytest.approx(
            100 * ranx.evaluate(qrels, run, f"hit_rate@{k}")
        )
    assert (1 / rank).mean().item() == pytest.approx(ranx.evaluate(qrels, run, "mrr"))
    # Videos look for their captions: the best of several counts, as in a hit rate.
    columns = relevant.any(0)
    theirs = mean(
        retrieval.retrieval_hit_rate(scores, right, 5).item()
        for scores, right in zip(similarity.T[columns], relevant.T[columns], strict=True)
    )
    assert got["v2t_recall_5"] == pytest.approx(100 * theirs)


def test_published_names_follow_what_is_retrieved():
    got = retrieval_metrics(torch.rand(30, 12), torch.randint(12, (30,)))
    named = published_names(got)
    assert len(named) == 9
    for k in (1, 5, 10):
        assert named[f"img_r{k}"] == got[f"t2v_recall_{k}"]  # "img" is text-to-video
        assert named[f"txt_r{k}"] == got[f"v2t_recall_{k}"]
    assert named["img_r_mean"] == got["t2v_recall_mean"]
    assert named["txt_r_mean"] == got["v2t_recall_mean"]
    assert named["r_mean"] == pytest.approx((named["img_r_mean"] + named["txt_r_mean"]) / 2)


@pytest.mark.parametrize("dim", [0, 1])
def test_dual_softmax_by_the_formula(dim):
    similarity = torch.rand(4, 3)
    similarity[:, 2] = -torch.inf
    got = dual_softmax(similarity, dim, scale=7.0)
    assert got.dtype == torch.float64 and got[:, 2].eq(-torch.inf).all()
    for text in range(4):
        for video in range(2):
            others = similarity[:, video] if dim == 1 else similarity[text, :2]
            weights = [math.exp(7 * s) for s in others.tolist()]
            own = similarity[text, video].item()
            assert got[text, video].item() == pytest.approx(
                own * math.exp(7 * own) / sum(weights), rel=1e-5
            )


def test_dual_softmax_changes_nothing_for_a_single_query():
    similarity = torch.rand(1, 9)
    assert torch.equal(dual_softmax(similarity, 1).argsort(), similarity.argsort())


def test_the_chosen_option_is_drawn_among_the_best():
    scores = torch.tensor([[1.0, 3.0, 3.0], [0.0, 1.0, -torch.inf], [2.0, 1.0, 0.0]])
    assert choice_probability(scores, torch.tensor([1, 0, 0])).tolist() == [0.5, 0, 1]
    constant = choice_probability(torch.zeros(6, 5), torch.arange(6) % 5)
    assert constant.mean().item() == pytest.approx(0.2)
    for bad, message in (
        (torch.tensor([0, 2, 0]), "does not have"),
        (torch.tensor([0, 3, 0]), r"0\.\.2"),
        (torch.tensor([0, 1]), "questions"),
    ):
        with pytest.raises(ValueError, match=message):
            choice_probability(scores, bad)
    with pytest.raises(ValueError, match="NaN"):
        choice_probability(scores * torch.nan, torch.zeros(3, dtype=torch.int64))


def test_constant_scores_give_chance_and_are_reported_as_ties():
    got = retrieval_metrics(torch.zeros(1000, 1000), torch.arange(1000))
    for k in (1, 5, 10):
        assert got[f"t2v_recall_{k}"] == pytest.approx(k / 10)
        assert got[f"v2t_recall_{k}"] == pytest.approx(k / 10)
    assert got["t2v_median_rank"] == got["v2t_mean_rank"] == pytest.approx(500.5)
    assert got["ties"] == 2000


def test_perfect_and_worst_scores():
    eye = torch.eye(20)
    best = retrieval_metrics(eye, torch.arange(20))
    assert best["recall_mean"] == 100
    assert best["t2v_median_rank"] == 1
    assert best["ties"] == 0
    worst = retrieval_metrics(-eye, torch.arange(20))
    assert worst["recall_mean"] == 0
    assert worst["v2t_mean_rank"] == 20


def test_video_to_text_takes_the_best_caption_and_text_to_video_every_one():
    # One video, liked by its second caption only; the other video has one caption.
    similarity = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    got = retrieval_metrics(similarity, torch.tensor([0, 0, 1]))
    assert got["t2v_recall_1"] == pytest.approx(200 / 3)
    assert got["v2t_recall_1"] == pytest.approx(50)  # the second video prefers a wrong caption
    assert got["v2t_mean_rank"] == pytest.approx(1.5)


def test_unscored_targets_are_misses_with_the_last_rank_and_never_crowd_out_others():
    similarity = torch.eye(4)
    similarity[:, 2:] = -torch.inf  # two unreadable clips
    ids = torch.arange(4)
    for ranks in (text_to_video_ranks(similarity, ids), video_to_text_ranks(similarity, ids)):
        assert hit_probability(ranks, 4).tolist() == [1, 1, 0, 0]
        assert expected_rank(ranks).tolist() == [1, 1, 4, 4]
    assert retrieval_metrics(similarity, ids)["ties"] == 0


def test_videos_without_caption_are_distractors_not_queries():
    ranks = video_to_text_ranks(torch.rand(2, 5), torch.tensor([4, 1]))
    assert ranks.better.shape == (2,)


def test_double_scores_separate_what_float_cannot():
    close = torch.tensor([[1.0, 1.0 + 1e-12], [0.0, 1.0]], dtype=torch.float64)
    assert retrieval_metrics(close, torch.arange(2))["t2v_recall_1"] == 50


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_low_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="float32"):
        retrieval_metrics(torch.zeros(2, 2, dtype=dtype), torch.arange(2))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        retrieval_metrics(torch.tensor([[float("nan")]]), torch.arange(1))
    with pytest.raises(ValueError, match=r"got -1\.\.0"):
        retrieval_metrics(torch.zeros(2, 2), torch.tensor([0, -1]))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        retrieval_metrics(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="num_texts"):
        retrieval_metrics(torch.zeros(2, 2), torch.arange(3))
    with pytest.raises(ValueError, match="nothing to rank"):
        retrieval_metrics(torch.zeros(0, 2), torch.arange(0))
    with pytest.raises(ValueError, match="bool like similarity"):
        retrieval_metrics(torch.zeros(3, 2), torch.ones(2, 3, dtype=torch.bool))


def test_pair_accuracy_counts_a_tie_half():
    right, wrong = torch.tensor([2.0, 1.0, 0.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert pair_accuracy(right, wrong) == 62.5
    with pytest.raises(ValueError, match="NaN"):
        pair_accuracy(right, wrong * float("nan"))
    with pytest.raises(ValueError, match="at least one"):
        pair_accuracy(right[:0], wrong[:0])


def test_multiple_choice_scores_by_hand():
    logits = torch.tensor([[[0.0, 1.0], [2.0, 0.5]]])
    similarity = torch.tensor([[3.0, 4.0]])
    sigmoid = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(1.5))]
    softmax = [1 / (1 + math.e), math.e / (1 + math.e)]
    expected = [0.7 * m + 0.3 * s for m, s in zip(sigmoid, softmax, strict=True)]
    assert multiple_choice_scores(logits, similarity)[0].tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="two classes"):
        multiple_choice_scores(logits[0], similarity)


def test_bootstrap_interval_has_the_textbook_width():
    hits = 100.0 * (torch.arange(1000) < 350)
    low, high = bootstrap_interval(hits)
    standard_error = 100 * (0.35 * 0.65 / 1000) ** 0.5
    assert low == pytest.approx(35 - 1.96 * standard_error, abs=0.4)
    assert high == pytest.approx(35 + 1.96 * standard_error, abs=0.4)
    assert bootstrap_interval(hits) == (low, high)  # deterministic


def test_bootstrap_draws_whole_videos():
    # 20 equal captions per video carry the information of one.
    per_video = 100.0 * (torch.arange(50) % 2)
    values, videos = per_video.repeat_interleave(20), torch.arange(50).repeat_interleave(20)
    low, high = bootstrap_interval(values, videos)
    alone = bootstrap_interval(per_video)
    assert (low, high) == pytest.approx(alone)
    naive = bootstrap_interval(values)
    assert high - low > 3 * (naive[1] - naive[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    scores = torch.eye(3)
    scores[2, 1] = value
    own, said = torch.arange(3), "1 of 9 scores are NaN or infinite"
    for use in (text_to_video_ranks, video_to_text_ranks, retrieval_metrics, choice_probability):
        with pytest.raises(ValueError, match=said):
            use(scores, own)
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite"):
        pair_accuracy(scores[0], scores[2])
    scores[2, 1] = -torch.inf  # what could not be scored
    assert retrieval_metrics(scores, own)["t2v_recall_1"] == 100


def test_average_precision_is_that_of_torchmetrics_also_with_ties():
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (40, 5), generator=generator).float()
    relevant = torch.rand(40, 5, generator=generator) < 0.3
    expected = oracle.multilabel_average_precision(scores / 6, relevant.int(), 5)
    assert mean_average_precision(scores, relevant) == pytest.approx(100 * expected.item())
    relevant[:, 1] = False  # a class without samples does not count
    rest = [0, 2, 3, 4]
    expected = oracle.multilabel_average_precision(scores[:, rest] / 6, relevant[:, rest].int(), 4)
    assert mean_average_precision(scores, relevant) == pytest.approx(100 * expected.item())
    with pytest.raises(ValueError, match="with a sample of at least one class"):
        mean_average_precision(scores, torch.zeros_like(relevant))
