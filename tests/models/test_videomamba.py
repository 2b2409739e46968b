import pytest
import torch
import yaml

from vmm.models.alignment_head import AlignmentHead
from vmm.models.layers import sinusoid_table
from vmm.models.videomamba import VideoMamba

OUTPUT, GRADIENT = 1e-5, 1e-4


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("c_vision")


@pytest.fixture(scope="module")
def state(golden):
    state = golden("model_state")
    return {
        key.removeprefix("vision_encoder."): value
        for key, value in state.items()
        if key.startswith("vision_encoder.")
    }


def small(state, **changes):
    settings = {"embed_dim": 40, "depth": 4, "num_frames": 4, "image_size": 64, "patch_size": 16}
    encoder = VideoMamba(**(settings | changes))
    encoder.load_state_dict({k: v for k, v in state.items() if not k.startswith("clip_decoder.")})
    return encoder.eval()


def head(state, extra=None, num_taps=1):
    head = AlignmentHead(40, 32, num_taps)
    weights = {k: v for k, v in state.items() if k.startswith("clip_decoder.")} | (extra or {})
    head.load_state_dict({k.replace("clip_decoder", "decoders"): v for k, v in weights.items()})
    return head


def clip(recorded):
    return recorded["video_i8"].float().div(32).transpose(1, 2)


def image(recorded):
    return clip(recorded)[:, :1]


def check(relative_error, features, recorded, case):
    for name in ("tokens", "pooled"):
        if f"{case}.{name}" in recorded:
            error = relative_error(getattr(features, name), recorded[f"{case}.{name}"])
            assert error < OUTPUT, f"{case}.{name}"


@pytest.mark.parametrize(
    ("case", "kind", "mask", "keep"),
    [
        ("video.keepT", clip, None, True),
        ("video.flatT", clip, None, False),
        ("image.flatT", image, None, False),
        ("image.keepT", image, None, True),
        ("image.masked", image, "mask_image", False),
        ("video.masked_random", clip, "mask_random", False),
        ("video.masked_tube_keepT", clip, "mask_tube", True),
    ],
)
def test_matches_the_published_encoder(recorded, state, relative_error, case, kind, mask, keep):
    dropped = recorded[mask] if mask else None
    features = small(state)(kind(recorded), dropped, keep_temporal=keep, with_taps=True)
    check(relative_error, features, recorded, case)
    if f"{case}.x_clip" in recorded:
        aligned = head(state)(features.taps, dropped)
        assert relative_error(aligned, recorded[f"{case}.x_clip"]) < OUTPUT


@pytest.mark.parametrize("pooling", ["cls", "avg", "cls_cat_avg"])
def test_matches_the_published_pooling(recorded, state, relative_error, pooling):
    encoder = small(state, pooling=pooling)
    case = f"pool.{pooling}"
    for keep, name in ((False, "flatT"), (True, "keepT")):
        features = encoder(clip(recorded), keep_temporal=keep)
        check(relative_error, features, recorded, f"{case}.{name}")
    features = encoder(clip(recorded), recorded["mask_random"])
    check(relative_error, features, recorded, f"{case}.masked_random")


def test_matches_two_published_taps(recorded, state, relative_error):
    encoder = small(state, num_taps=2, tap_interval=2)
    mask = recorded["mask_random"]
    extra = {
        key.removeprefix("ret2.state."): value
        for key, value in recorded.items()
        if key.startswith("ret2.state.")
    }
    aligned = head(state, extra, 2)(encoder(clip(recorded), mask, with_taps=True).taps, mask)
    assert relative_error(aligned, recorded["ret2.masked_random.x_clip"]) < OUTPUT


def test_the_other_tap_is_the_unfused_variant(recorded, state, relative_error):
    encoder = small(state, tap="after_last_mixer")
    mask = recorded["mask_random"]
    aligned = head(state)(encoder(clip(recorded), mask, with_taps=True).taps, mask)
    assert relative_error(aligned, recorded["unfused.masked_random.x_clip"]) < OUTPUT
    assert relative_error(aligned, recorded["video.masked_random.x_clip"]) > 0.1


def test_matches_every_recorded_gradient(recorded, state, relative_error):
    encoder, alignment = small(state), head(state)
    video = clip(recorded).requires_grad_()
    mask = recorded["mask_random"]
    features = encoder(video, mask, with_taps=True)
    loss = (features.tokens * recorded["grad.up.tokens"]).sum()
    loss += (features.pooled * recorded["grad.up.pooled"]).sum()
    loss += (alignment(features.taps, mask) * recorded["grad.up.x_clip"]).sum()
    loss.backward()
    checked = 0
    for name, parameter in encoder.named_parameters():
        if f"grad.{name}" in recorded:
            assert relative_error(parameter.grad, recorded[f"grad.{name}"]) < GRADIENT, name
            checked += 1
    assert checked == 13
    bias = alignment.get_parameter("decoders.0.head.bias")
    assert relative_error(bias.grad, recorded["grad.clip_decoder.0.head.bias"]) < GRADIENT
    assert abs(video.grad.norm().item() / 51.815479 - 1) < GRADIENT


def test_matches_recorded_internals(recorded, state, relative_error):
    encoder = small(state)
    sequence = encoder.embed(clip(recorded)[:1])
    assert relative_error(sequence, recorded["debug.embeddings"]) < OUTPUT
    assert relative_error(sinusoid_table(65, 40)[None], recorded["debug.clip_pos_embed"]) < 1e-6
    residual = sequence
    for i, layer in enumerate(encoder.layers):
        assert relative_error(residual, recorded["debug.residual"][i]) < OUTPUT
        hidden = layer(residual)
        assert relative_error(hidden, recorded["debug.hidden"][i]) < OUTPUT
        residual = residual + hidden


def test_key_names_are_the_published_ones(state):
    published = {key for key in state if not key.startswith("clip_decoder.")}
    assert set(small(state).state_dict()) == published


@pytest.mark.parametrize(
    ("size", "video", "block", "image_with_head"),
    [
        ("tiny", 6_956_544, 282_048, 7_148_008),
        ("small", 25_414_656, 1_043_328, 25_796_584),
        ("middle", 73_645_056, 2_283_840, 74_217_448),
        ("base", 96_835_584, 4_003_584, 97_598_440),
    ],
)
def test_parameter_counts_of_the_recipes(root, size, video, block, image_with_head):
    node = yaml.safe_load((root / f"recipes/encoders/videomamba_{size}.yaml").read_text())
    with torch.device("meta"):
        encoder = VideoMamba(**node["init_args"])
    count = sum(p.numel() for p in encoder.parameters())
    pool_norm = sum(p.numel() for p in encoder.pool_norm.parameters())
    assert count - pool_norm == video  # published trunks have no pooling norm
    assert sum(p.numel() for p in encoder.layers[0].parameters()) == block
    width = encoder.embed_dim
    temporal = encoder.temporal_pos_embedding.numel()
    assert video - temporal + 1000 * width + 1000 == image_with_head


def test_frame_order_changes_the_result(recorded, state):
    encoder = small(state)
    forward = encoder(clip(recorded)).pooled
    backward = encoder(clip(recorded).flip(1)).pooled
    assert (forward - backward).abs().max() > 0.01


def test_hidden_tokens_do_not_matter_and_visible_ones_do(recorded, state):
    encoder, mask = small(state), recorded["mask_tube"]
    video = clip(recorded)
    patches = mask[:, 1:].unflatten(1, (4, 4, 4))
    pixels = patches.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, :, None]
    hidden_changed = torch.where(pixels, torch.randn_like(video), video)
    visible_changed = torch.where(pixels, video, torch.randn_like(video))
    reference = encoder(video, mask).pooled
    torch.testing.assert_close(encoder(hidden_changed, mask).pooled, reference)
    assert (encoder(visible_changed, mask).pooled - reference).abs().max() > 0.01


def test_other_frame_counts_and_sizes_are_interpolated(state):
    encoder = small(state)
    features = encoder(torch.randn(1, 6, 3, 96, 80), keep_temporal=True)
    assert features.tokens.shape == (1, 6 * 6 * 5, 40)
    assert features.pooled.shape == (1, 6, 40)


def test_state_of_other_sizes_is_adapted(state):
    larger = VideoMamba(embed_dim=40, depth=4, num_frames=8, image_size=96)
    weights = {k: v for k, v in state.items() if not k.startswith("clip_decoder.")}
    larger.load_state_dict(larger.adapt_state(weights))
    assert larger.temporal_pos_embedding.shape == (1, 8, 40)
    assert larger.pos_embed.shape == (1, 37, 40)
    video = torch.randn(1, 8, 3, 96, 96)
    on_the_fly = small(state)(video).pooled
    torch.testing.assert_close(larger.eval()(video).pooled, on_the_fly, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tubelet", [1, 2, 3])
@pytest.mark.parametrize("published", [True, False], ids=["2-D kernel", "trained on images"])
def test_weights_of_an_image_model_see_a_still_as_it_did(tubelet, published):
    sizes = {"embed_dim": 40, "depth": 2, "image_size": 32}
    image = VideoMamba(**sizes, num_frames=1).eval()
    torch.nn.init.normal_(image.cls_token)
    weights = image.state_dict()
    if published:
        weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].squeeze(2)
        del weights["temporal_pos_embedding"]
    video = VideoMamba(**sizes, num_frames=4 * tubelet, tubelet_size=tubelet).eval()
    torch.nn.init.normal_(video.temporal_pos_embedding)
    video.load_state_dict(video.adapt_state(weights))
    assert video.temporal_pos_embedding.shape == (1, 4, 40)
    assert not video.temporal_pos_embedding.any()
    still = torch.randn(2, 1, 3, 32, 32)
    tokens = video(still.expand(-1, tubelet, -1, -1, -1)).tokens
    torch.testing.assert_close(tokens, image(still).tokens)
    other = torch.randn(2, tubelet, 3, 32, 32)
    other[:, tubelet // 2] = still[:, 0]  # the published inflation sees the middle frame alone
    torch.testing.assert_close(video(other).tokens, image(still).tokens)


def test_checkpointed_blocks_give_the_same_gradients(recorded, state):
    gradients = []
    for num_checkpointed in (0, 3):
        encoder = small(state, num_checkpointed=num_checkpointed)
        encoder(clip(recorded)).pooled.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_drop_path_drops_whole_samples_in_training_only(recorded, state):
    encoder = small(state, drop_path_rate=0.9)
    video = clip(recorded)
    torch.testing.assert_close(encoder(video).pooled, small(state)(video).pooled)
    encoder.train()
    assert not torch.allclose(encoder(video).pooled, encoder(video).pooled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 60}, "not a multiple of patch_size"),
        ({"num_frames": 5, "tubelet_size": 2}, "not a multiple of tubelet_size"),
        ({"depth": 2, "num_taps": 3}, "do not fit into 2 blocks"),
        ({"depth": 10**9}, "must be 0 to 1000 blocks"),
        ({"tap_interval": 0}, "tap_interval 0 must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VideoMamba(**({"embed_dim": 32, "depth": 2, "image_size": 64} | change))


def test_bad_shapes_are_refused(state):
    encoder = small(state)
    with pytest.raises(ValueError, match=r"must be \(B, T, C, H, W\)"):
        encoder(torch.randn(2, 3, 64, 64))
    with pytest.raises(ValueError, match="resize the clip"):
        encoder(torch.randn(1, 4, 3, 60, 64))
    with pytest.raises(ValueError, match="class token included"):
        encoder(torch.randn(1, 4, 3, 64, 64), torch.zeros(1, 64, dtype=torch.bool))
