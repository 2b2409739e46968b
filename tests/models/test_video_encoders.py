"""What every video encoder must do; a new subclass is tested as soon as it is imported here."""

import inspect
from functools import partial

import pytest
import torch
from torch import nn

from vmm.drawing import uniform_rows
from vmm.masking import Patches, draw_mask
from vmm.models.clip_vit import FrameViT
from vmm.models.frame_mamba import FrameMamba
from vmm.models.lora import Lora, adaptable_layers, add_adapters, merge_adapters
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_vit import DividedViT, JointViT
from vmm.models.videomamba import VideoMamba

SIZES = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 64}


@pytest.fixture
def make(root):
    name = str(root / "recipes/encoders/clip_vit_demo.json")
    frames = {"name": name, "num_frames": 4, "image_size": 64}
    settings = {
        VideoMamba: SIZES,
        JointViT: SIZES | {"num_heads": 2},
        DividedViT: SIZES | {"num_heads": 2},
        FrameMamba: frames | {"time_depth": 1},
        FrameViT: frames,
    }
    return lambda kind, **more: kind(**settings[kind], **more).eval()


def kinds(base):
    below = [kind for child in base.__subclasses__() for kind in kinds(child)]
    whole = not inspect.isabstract(base) and not base.__name__.startswith("_")
    return [*below, base] if whole else below


KINDS = kinds(VideoEncoder)


def test_all_kinds_are_tested():
    assert {VideoMamba, FrameMamba, FrameViT, JointViT, DividedViT} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 4, 6])
def test_shapes(make, kind, frames):
    encoder = make(kind)
    width = encoder.embed_dim
    features = encoder(torch.randn(2, frames, 3, 64, 64), keep_temporal=True, with_taps=True)
    assert features.tokens.shape == (2, frames * 16, width)
    assert features.pooled.shape == (2, frames, width)
    assert features.taps.shape == (1, 2, 1 + frames * 16, width)
    assert features.cls is None or features.cls.shape == (2, 1, width)
    whole = encoder(torch.randn(2, frames, 3, 64, 64))
    assert whole.pooled.shape == (2, 1, width) and whole.taps is None


def test_the_class_token_is_the_normed_one(make):
    video = torch.randn(2, 4, 3, 64, 64)
    encoder = VideoMamba(32, 2, 4, 64, pooling="cls", pool_norm=False).eval()
    features = encoder(video)
    assert torch.equal(features.cls, features.pooled)
    features = make(FrameViT)(video)
    torch.testing.assert_close(features.cls, features.pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_patches_are_not_seen(make, kind):
    encoder = make(kind)
    dropped = draw_mask("tube", Patches(2, 4, 4, 4), 0.5, partial(uniform_rows, [0, 1]))
    video = torch.randn(2, 4, 3, 64, 64)
    hidden = dropped[:, 1:].reshape(2, 4, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    other = torch.where(hidden[:, :, None], torch.randn_like(video), video)
    first, second = encoder(video, dropped), encoder(other, dropped)
    torch.testing.assert_close(first.pooled, second.pooled)
    torch.testing.assert_close(first.tokens, second.tokens)
    assert first.tokens.shape[1] == 32
    assert not torch.allclose(encoder(video).pooled, encoder(other).pooled, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_weights_get_gradients(make, kind):
    encoder = make(kind)
    video = torch.randn(2, 4, 3, 64, 64, requires_grad=True)
    encoder(video).pooled.square().sum().backward()
    assert (video.grad.abs().sum((0, 2, 3, 4)) > 0).all()
    learning = [p for p in encoder.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learning)


@pytest.mark.parametrize("kind", KINDS)
def test_state_survives_a_round_trip(make, kind):
    encoder, other = make(kind), make(kind)
    other.load_state_dict(other.adapt_state(encoder.state_dict()))
    video = torch.randn(1, 4, 3, 64, 64)
    assert torch.equal(encoder(video).pooled, other(video).pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_frame_vit_does_not_see_the_order_of_frames(make, kind):
    encoder, sees_order = make(kind), kind is not FrameViT
    if kind is FrameMamba:
        torch.nn.init.normal_(encoder.time_blocks[0].mixer.out_proj.weight)
    elif sees_order:
        torch.nn.init.normal_(encoder.temporal_pos_embedding)
    video = torch.randn(2, 4, 3, 64, 64)
    change = (encoder(video).pooled - encoder(video.flip(1)).pooled).abs().max()
    assert (change > 1e-2) == sees_order
    assert sees_order or change < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_named_from_the_input_on(make, kind):
    encoder = make(kind)
    names = encoder.layer_names()
    starts = [start for layer in names for start in layer]
    found = {}
    for name, _ in encoder.named_parameters():
        at = [i for i, layer in enumerate(names) if name.startswith(layer)]
        assert len(at) <= 1, name
        found.setdefault(at[0] if at else None, []).append(name)
    assert set(found) >= set(range(len(names))) and len(names) >= 2
    after = [name for name in found[None] if not name.startswith("time_blocks.")]
    after = {name.rpartition(".")[0].rpartition(".")[2] for name in after}
    assert after <= {"norm", "pool_norm", "ln_post", "visual", ""}
    assert len(starts) == len(set(starts))


# The tower of a FrameMamba has learnt its positions before.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not FrameMamba])
def test_positions_begin_as_large_as_wished(make, kind):
    tables = [name for name in make(kind).no_weight_decay() if "pos" in name]
    assert tables
    for name in tables:
        assert make(kind).get_parameter(name).detach().std() < 0.2
        drawn = make(kind, position_std=0.5).get_parameter(name).detach()
        assert drawn.std() == pytest.approx(0.5, rel=0.2)
    with pytest.raises(ValueError, match=r"position_std 0 must be above 0"):
        make(kind, position_std=0)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_beside_every_layer_learns_and_merges(make, kind):
    torch.manual_seed(0)
    model = nn.ModuleDict({"video_encoder": make(kind)})
    torch.manual_seed(0)
    merged = nn.ModuleDict({"video_encoder": make(kind)})
    assert add_adapters(model, Lora(rank=2)) == adaptable_layers(merged)
    ups = [p for name, p in model.named_parameters() if "lora_B" in name]
    for up in ups:
        nn.init.normal_(up, std=0.1)
    video = torch.randn(2, 4, 3, 64, 64)
    before, features = merged["video_encoder"](video), model["video_encoder"](video)
    (features.tokens.square().sum() + features.pooled.square().sum()).backward()
    assert all(up.grad is not None and up.grad.abs().sum() > 0 for up in ups)
    merged.load_state_dict(merge_adapters(model.state_dict()))
    after = merged["video_encoder"](video)
    torch.testing.assert_close(features[:2], after[:2], rtol=1e-5, atol=2e-6)
    assert (before.tokens - after.tokens).abs().max() > 1e-3
