"""Only what a mask leaves visible is embedded."""

import pytest
import torch
from torch.testing import assert_close

from vmm.masking import gather_visible
from vmm.models.videomamba import VideoMamba

FRAMES, SIZE = 6, (32, 48)
PATCHES = 3 * 2 * 3
"""Of three tubelets of two frames."""


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = VideoMamba(24, 1, num_frames=4, image_size=64, tubelet_size=2, position_std=0.5)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return encoder


def clips():
    return torch.randn(2, FRAMES, 3, *SIZE)


def masks(hidden=11):
    return torch.nn.functional.pad(torch.rand(2, PATCHES).argsort(1) < hidden, (1, 0))


def test_tokens_are_those_of_the_whole_clip(encoder):
    video, dropped = clips().requires_grad_(), masks()
    leaves = [video, encoder.cls_token, encoder.pos_embed, encoder.temporal_pos_embedding]
    leaves += encoder.patch_embed.parameters()
    whole = gather_visible(encoder.embed(video), dropped)
    visible = encoder.embed(video, dropped)
    assert visible.shape == (2, 1 + PATCHES - 11, 24)
    assert_close(visible, whole, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(x.sin().sum(), leaves) for x in (visible, whole)]
    for ours, want in zip(*gradients, strict=True):
        assert want.abs().max() > 0
        assert_close(ours, want, rtol=1e-4, atol=1e-4)


def test_hidden_pixels_touch_nothing(encoder):
    video, dropped = clips(), masks()
    pixels = dropped[:, 1:].view(2, 3, 1, 1, 2, 1, 3, 1).expand(-1, -1, 2, 3, -1, 16, -1, 16)
    encoder(
        video.masked_fill(pixels.reshape(video.shape), torch.nan), dropped
    ).tokens.sum().backward()
    assert encoder.patch_embed.proj.weight.grad.isfinite().all()


def test_masks_that_do_not_fit_are_refused(encoder):
    with pytest.raises(ValueError, match=r"\(2, 18\).*3 steps of 6 patches"):
        encoder.embed(clips(), masks()[:, 1:])
    unequal = masks()
    unequal[0, 1:] = True
    with pytest.raises(ValueError, match="0 to 7 tokens visible"):
        encoder.embed(clips(), unequal)
