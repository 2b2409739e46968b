import numpy as np
import pytest
import torch

from vmm.tasks.mixing import Mixing

TARGETS = torch.eye(4)
"""The colour of clip i is i / 10, so pixels tell which clips they are of."""


def clips(size=20):
    return (torch.arange(4) / 10).view(4, 1, 1, 1, 1).expand(4, 2, 3, size, size).clone()


def mixed(seed, **settings):
    return Mixing(**settings)(clips(), TARGETS, np.random.default_rng(seed))


def test_mixup_blends_pictures_and_targets_by_one_share():
    shares = []
    for seed in range(200):
        video, targets = mixed(seed, mixup_alpha=0.8)
        share = targets[0, 0].item()
        shares.append(share)
        expected = torch.tensor([[share, 0, 0, 1 - share], [0, share, 1 - share, 0]])
        torch.testing.assert_close(targets, torch.cat([expected, expected.flip(0, 1)]))
        colours = share * torch.arange(4) / 10 + (1 - share) * torch.arange(4).flip(0) / 10
        torch.testing.assert_close(video, colours.view(4, 1, 1, 1, 1).expand_as(video))
    beta = np.random.default_rng(0).beta(0.8, 0.8, 10000)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.07)
    assert np.std(shares) == pytest.approx(beta.std(), rel=0.15)


def test_cutmix_exchanges_a_box_alike_in_all_frames_and_its_share_of_the_target():
    shares = []
    for seed in range(200):
        video, targets = mixed(seed, cutmix_alpha=1.0)
        from_other = video[0, 0, 0] == 0.3
        assert torch.equal(video[0] == 0.3, from_other.expand(2, 3, -1, -1))
        assert torch.equal(video[3] == 0, from_other.expand(2, 3, -1, -1))
        assert torch.equal(video[1] == 0.2, from_other.expand(2, 3, -1, -1))
        share = 1 - from_other.float().mean().item()
        assert targets[0].tolist() == pytest.approx([share, 0, 0, 1 - share], abs=1e-6)
        rows, columns = from_other.any(1).sum(), from_other.any(0).sum()
        assert from_other.sum() == rows * columns
        shares.append(share)
    assert max(shares) == 1 and min(shares) < 0.35 and 0.5 < np.mean(shares) < 0.75


def test_half_of_the_batches_are_cut_where_both_are_asked():
    kinds = [
        mixed(seed, mixup_alpha=0.8, cutmix_alpha=1.0)[0][0].unique().numel() for seed in range(300)
    ]
    assert 0.4 < np.mean([kind == 2 for kind in kinds]) < 0.55  # a few boxes are empty


def test_some_batches_are_left_as_they_are():
    left = [mixed(seed, mixup_alpha=0.8, prob=0.25)[1] is TARGETS for seed in range(300)]
    assert 0.65 < np.mean(left) < 0.85
    assert not Mixing() and not Mixing(mixup_alpha=0.8, prob=0.0) and Mixing(cutmix_alpha=1.0)
    video = clips()
    assert Mixing()(video, TARGETS, np.random.default_rng(0))[0] is video


@pytest.mark.parametrize("wrong", [{"mixup_alpha": -1}, {"prob": 2}, {"switch_prob": -0.1}])
def test_wrong_numbers_are_one_sentence(wrong):
    with pytest.raises(ValueError, match="must be 0 or more, prob and switch_prob from 0 to 1"):
        Mixing(**wrong)
