import copy

import pytest
import torch

from vmm.models.video_vit import DividedViT, JointViT

STEPS, PATCHES = 3, 4
SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_frames": STEPS, "image_size": 32}
KINDS = [JointViT, DividedViT]


@pytest.fixture
def make():
    def filled(kind, **options):
        torch.manual_seed(0)
        encoder = kind(**SIZES | options).eval()
        for parameter in encoder.parameters():  # of which some begin at zero
            parameter.data += 0.2 * torch.randn_like(parameter)
        return encoder

    return filled


def clip(steps=STEPS):
    return torch.randn(2, steps, 3, 32, 32)


def masks():
    """Frames that hide unequal numbers, and other places in either row."""
    hidden = torch.zeros(2, 1 + STEPS * PATCHES, dtype=torch.bool)
    hidden[0, [2, 3, 5, 9, 12]] = True
    hidden[1, [1, 4, 7, 8, 10]] = True
    return hidden


def divided(block, x, visible):
    """What a divided block makes of one row (1, V, D), set by set."""
    places = [divmod(i - 1, PATCHES) for i in visible[1:]]
    change = torch.zeros_like(x)
    normed = block.temporal_norm1(x)
    for patch in range(PATCHES):
        same = [1 + i for i, place in enumerate(places) if place[1] == patch]
        if same:
            change[:, same] = block.temporal_fc(block.temporal_attn(normed[:, same]))
    normed, mixed = block.norm1(x + change), torch.zeros_like(x)
    for step in range(STEPS):
        frame = [1 + i for i, place in enumerate(places) if place[0] == step]
        out = block.attn(normed[:, [0, *frame]])
        mixed[:, frame] = out[:, 1:]
        mixed[:, :1] += out[:, :1] / STEPS
    return mlp(block, x + change + mixed)


def joint(block, x, visible):
    return mlp(block, x + block.attn(block.norm1(x)))


def mlp(block, x):
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize(("kind", "layer"), [(JointViT, joint), (DividedViT, divided)])
def test_tokens_and_taps_are_those_of_sets_written_out(make, kind, layer, masked):
    encoder, video = make(kind), clip()
    dropped = masks() if masked else torch.zeros(2, 1 + STEPS * PATCHES, dtype=torch.bool)
    with torch.no_grad():
        features = encoder(video, dropped if masked else None, with_taps=True)
        for i, x in enumerate(encoder.embed(video)):
            visible = (~dropped[i]).nonzero().flatten().tolist()
            x = x[None, visible]
            for block in encoder.blocks:
                x = layer(block, x, visible)
            torch.testing.assert_close(features.taps[0, i], x[0], rtol=1e-4, atol=1e-5)
            tokens = encoder.norm(x)[0, 1:]
            torch.testing.assert_close(features.tokens[i], tokens, rtol=1e-4, atol=1e-5)


def test_a_fresh_divided_encoder_sees_each_frame_alone():
    encoder = DividedViT(**SIZES).eval()
    video = clip()
    with torch.no_grad():
        alone = [encoder(video[:, i : i + 1]).tokens for i in range(STEPS)]
        first = encoder.blocks[0]
        equal = encoder(video[:, :1].expand(-1, STEPS, -1, -1, -1)).tokens
    torch.testing.assert_close(equal.unflatten(1, (STEPS, -1))[:, 1], alone[0])
    assert not first.temporal_fc.weight.any() and first.temporal_attn.qkv.weight.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_checkpointed_blocks_give_the_same_gradients(make, kind, masked):
    gradients = []
    for number in (0, 1):
        encoder, runs = make(kind, num_checkpointed=number), []
        for block in encoder.blocks:
            block.norm2.register_forward_hook(lambda *x, runs=runs: runs.append(x[0]))
        torch.manual_seed(1)
        encoder(clip(), masks() if masked else None).pooled.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
        assert len(runs) == 2 + number  # the first block runs again
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_drop_path_is_for_training_only(make, kind):
    encoder, video = make(kind, drop_path_rate=0.5), clip().repeat(8, 1, 1, 1, 1)
    with torch.no_grad():
        assert torch.equal(encoder(video).pooled, make(kind)(video).pooled)
        encoder.train()
        assert not torch.allclose(encoder(video).pooled, encoder(video).pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_stills_and_other_sizes_start_clips_of_tubelets(make, kind):
    image = make(kind, num_frames=1)
    torch.nn.init.zeros_(image.temporal_pos_embedding)
    encoder = kind(**SIZES | {"num_frames": 6, "tubelet_size": 2, "image_size": 48}).eval()
    encoder.load_state_dict(encoder.adapt_state(copy.deepcopy(image.state_dict())))
    assert encoder.temporal_pos_embedding.shape == (1, 3, 24)
    still = torch.randn(2, 1, 3, 32, 32)
    smaller = kind(**SIZES | {"num_frames": 6, "tubelet_size": 2}).eval()
    smaller.load_state_dict(smaller.adapt_state(image.state_dict()))
    with torch.no_grad():
        tokens = smaller(still.expand(-1, 2, -1, -1, -1)).tokens
        torch.testing.assert_close(tokens, image(still).tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unread_is_named(make, kind):
    encoder = make(kind, num_taps=2)
    assert encoder.no_weight_decay() <= {name for name, _ in encoder.named_parameters()}
    assert encoder.unread(tokens=False, pooled=False) == [encoder.norm]
    assert encoder.unread(tokens=True, pooled=False) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "5 attention heads do not divide the width 24"),
        ({"num_taps": 3}, "do not fit into 2 blocks"),
        ({"tap_interval": 0}, "tap_interval 0"),
        ({"depth": 10**9}, "must be 0 to 1000 blocks"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        JointViT(**SIZES | change)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_another_grid_is_refused(make, kind):
    with pytest.raises(ValueError, match="draw the mask for 3 steps of 4 patches"):
        make(kind)(clip(), torch.zeros(2, 17, dtype=torch.bool))
