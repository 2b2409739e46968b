from functools import partial

import pytest
import torch
from torch import tensor

from vmm.drawing import uniform_rows
from vmm.losses.matching import matching_loss, sample_hard_negatives


def _uniform(rows, seed=0):
    return partial(uniform_rows, range(seed * rows, (seed + 1) * rows))


def _draws(similarity, idx, how="hard", n=4000):
    b = len(idx)
    videos, texts = torch.zeros(b, b), torch.zeros(b, b)
    for seed in range(n):
        drawn = sample_hard_negatives(similarity, idx, _uniform(b, seed), how)
        videos[torch.arange(b), drawn.video_for_text] += 1 / n
        texts[torch.arange(b), drawn.text_for_video] += 1 / n
    return videos, texts


def test_hard_negatives_follow_the_softmax_without_the_positives():
    g = torch.Generator().manual_seed(1)
    similarity = torch.randn(4, 4, generator=g) * 2
    idx = tensor([0, 1, 0, 2])  # videos and texts 0 and 2 belong together
    videos, texts = _draws(similarity, idx)
    wrong = idx[:, None] != idx
    for drawn, scores in ((videos, similarity.T), (texts, similarity)):
        weights = scores.softmax(1) * wrong
        torch.testing.assert_close(drawn, weights / weights.sum(1, keepdim=True), atol=0.03, rtol=0)


def test_random_negatives_ignore_the_similarity():
    videos, texts = _draws(torch.randn(4, 4) * 100, tensor([0, 1, 0, 2]), how="random")
    expected = tensor([[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]])
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(videos, expected, atol=0.03, rtol=0)
    torch.testing.assert_close(texts, expected, atol=0.03, rtol=0)


def test_a_confident_model_still_finds_negatives():
    # softmax(1000) is exactly one-hot in float32: zeroing the positive after it leaves nothing.
    drawn = sample_hard_negatives(torch.eye(5) * 1000, torch.arange(5), _uniform(5))
    assert drawn.valid.all()
    assert (drawn.video_for_text != torch.arange(5)).all()
    assert (drawn.text_for_video != torch.arange(5)).all()


@pytest.mark.parametrize("how", ["hard", "random"])
@pytest.mark.parametrize(
    ("idx", "valid"),
    [([0], [False]), ([5, 5, 5], [False] * 3), ([5, 5, 6], [True] * 3)],
)
def test_rows_without_a_wrong_partner_are_marked(how, idx, valid):
    rows = len(idx)
    drawn = sample_hard_negatives(torch.randn(rows, rows), tensor(idx), _uniform(rows), how)
    assert drawn.valid.tolist() == valid
    assert drawn.video_for_text.shape == drawn.text_for_video.shape == (len(idx),)


def test_not_a_number_does_not_stop_the_run():
    drawn = sample_hard_negatives(torch.full((3, 3), torch.nan), torch.arange(3), _uniform(3))
    assert (drawn.video_for_text != torch.arange(3)).all()


def test_loss_is_the_mean_cross_entropy_of_class_one():
    logits = tensor([[0.0, 2.0], [1.0, -1.0], [0.5, 0.5]])
    p = logits.softmax(1)
    expected = -(p[0, 1].log() + p[1, 0].log() + p[2, 0].log()) / 3
    torch.testing.assert_close(matching_loss(logits, tensor([True, False, False])), expected)
    assert matching_loss(logits.bfloat16(), tensor([True, False, False])).dtype == torch.float32
