import json
from copy import deepcopy
from functools import partial

import pytest
import torch

pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")

from tests.models.image_text import CLIP, MODELS, SIGLIP, write_model
from vmm.drawing import uniform_rows
from vmm.masking import Patches, draw_mask
from vmm.models.clip_vit import FrameViT
from vmm.models.frame_mamba import FrameMamba
from vmm.models.image_tower import build_image_tower
from vmm.models.long_video import encode_long_video
from vmm.models.open_clip_text import OpenClipTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.tasks.start import load_encoder, load_published

SMALL = {"num_frames": 4, "image_size": 32, "d_state": 4}
TEXTS = ["a red circle moves to the left", "a blue bar"]


@pytest.fixture(scope="module", params=MODELS)
def published(request, tmp_path_factory, root):
    """A model of open_clip, its config and its weights."""
    return write_model(request.param, tmp_path_factory.mktemp("published"), root)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, root):
    return write_model("clip", tmp_path_factory.mktemp("clip"), root)


def make(published, **changes):
    """An encoder with the weights of a model."""
    _, name, weights = published
    encoder = FrameMamba(name, weights, **SMALL | {"time_depth": 2} | changes)
    encoder.load_pretrained()
    return encoder.eval()


def learnt(encoder):
    """Let the blocks over time do something, as after training."""
    for block in encoder.time_blocks:
        torch.nn.init.normal_(block.mixer.out_proj.weight, std=0.3)
    return encoder


def joined(published, **changes):
    """A video-text model with both towers, before any training."""
    _, name, weights = published
    encoder = FrameMamba(name, weights, **SMALL | {"time_depth": 2} | changes)
    text = OpenClipTextEncoder(encoder.embed_dim, name, weights)
    model = VideoTextModel(encoder, text, MODELS_WIDTH[published[1].rpartition("/")[2]])
    load_published(model)
    return model.eval()


MODELS_WIDTH = {f"{kind}.json": config["embed_dim"] for kind, config in MODELS.items()}


@pytest.mark.parametrize("time_over", ["frames", "tokens"])
def test_a_fresh_one_retrieves_as_the_image_text_model_does(published, time_over):
    theirs, ours = deepcopy(published[0]).double(), joined(published, time_over=time_over).double()
    video = torch.randn(3, 4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        frames = theirs.encode_image(video.flatten(0, 1)).view(3, 4, -1)
        texts = theirs.encode_text(ours.text_encoder.tokenizer(TEXTS))
        per_frame = ours.project_video(ours.encode_video(video).pooled)
        whole = ours.project_video(ours.encode_video(video, keep_temporal=False).pooled)
        words = ours.project_text(ours.encode_text(*ours.text_encoder.tokenize(TEXTS)).pooled)
    torch.testing.assert_close(per_frame, frames, rtol=0, atol=1e-9)
    torch.testing.assert_close(whole, frames.mean(1, keepdim=True), rtol=0, atol=1e-9)
    unit = torch.nn.functional.normalize
    cosines = torch.einsum("vpe,te->vpt", unit(frames, dim=-1), unit(texts, dim=-1)).mean(1)
    similarity = ours.similarity(per_frame, words)
    torch.testing.assert_close(similarity, cosines.to(similarity.dtype), rtol=0, atol=1e-6)
    assert ours.temperature.item() == pytest.approx(1 / theirs.logit_scale.exp().item(), rel=1e-5)


@pytest.mark.parametrize("time_over", ["frames", "tokens"])
def test_the_order_of_frames_counts_once_it_has_learnt(published, time_over):
    encoder = make(published, time_over=time_over)
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        fresh = encoder(video).pooled - encoder(video.flip(1)).pooled
        learnt(encoder)
        later = encoder(video).pooled - encoder(video.flip(1)).pooled
    assert fresh.abs().max() < 1e-5 and later.abs().max() > 1e-2


def test_what_all_frames_have_in_common_does_not_hide_what_moves(clip):
    """Also where it is a thousand times as large."""
    encoder = learnt(make(clip)).double()
    frames = torch.randn(2, 4, encoder.embed_dim, dtype=torch.float64)
    shared = 1e3 * torch.randn(2, 1, encoder.embed_dim, dtype=torch.float64)
    with torch.no_grad():
        said = encoder.over_time(frames) - frames
        torch.testing.assert_close(encoder.over_time(frames + shared) - frames - shared, said)
        assert said.std(1).mean() > 0.1  # it differs from frame to frame


@pytest.mark.parametrize("time_over", ["frames", "tokens"])
def test_masks_leave_patches_out_of_every_step(published, time_over):
    encoder = learnt(make(published, time_over=time_over))
    side, size = 4, 4 * encoder.patch_size
    dropped = draw_mask("tube", Patches(2, 3, side, side), 0.5, partial(uniform_rows, [0, 1]))
    video = torch.randn(2, 3, 3, size, size)
    hidden = dropped[:, 1:].reshape(2, 3, side, side)
    for axis in (2, 3):
        hidden = hidden.repeat_interleave(encoder.patch_size, axis)
    other = torch.where(hidden[:, :, None], torch.randn_like(video), video)
    with torch.no_grad():
        first, second = encoder(video, dropped, with_taps=True), encoder(other, dropped)
    torch.testing.assert_close(first.pooled, second.pooled)
    visible = 3 * side * side // 2
    assert first.tokens.shape == (2, visible, encoder.embed_dim)
    assert first.taps.shape == (1, 2, 1 + visible, encoder.embed_dim)
    assert first.cls.shape == (2, 1, encoder.embed_dim)


def test_the_control_is_the_frame_vit(clip):
    control, frames = make(clip, time_depth=0), FrameViT(clip[1], clip[2], 4, 32).eval()
    frames.load_pretrained()
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(
            control(video, with_taps=True), frames(video, with_taps=True), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_it_starts_from_a_run_that_knows_no_time(clip, tmp_path):
    frames = FrameViT(clip[1], clip[2], 1, 32).eval()
    frames.load_pretrained()
    state = {f"model.video_encoder.{k}": v for k, v in frames.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "run.ckpt")
    encoder = FrameMamba(clip[1], None, **SMALL | {"image_size": 48})
    load_encoder(encoder, tmp_path / "run.ckpt", "init_from")
    video = torch.randn(2, 4, 3, 32, 32)
    still = FrameMamba(clip[1], None, **SMALL).eval()
    load_encoder(still, tmp_path / "run.ckpt", "init_from")
    with torch.no_grad():
        torch.testing.assert_close(still(video).pooled, frames(video).pooled, rtol=0, atol=1e-6)
    assert encoder.visual.positional_embedding.shape == (37, 32)
    learnt(still)
    again = FrameMamba(clip[1], None, **SMALL).eval()
    again.load_state_dict(again.adapt_state(still.state_dict()))
    assert torch.equal(again(video).pooled, still(video).pooled)
    with pytest.raises(ValueError, match=r"time_blocks\.0.* is not known here"):
        state = {f"video_encoder.{k}": v for k, v in still.state_dict().items()}
        torch.save(state, tmp_path / "learnt.pt")
        load_encoder(FrameMamba(clip[1], None, 4, 32, 0), tmp_path / "learnt.pt", "init_from")


def kept_by(encoder, video):
    """Sizes of what backward needs beside the parameters."""
    own, found = {p.data_ptr() for p in encoder.parameters()}, []

    def keep(tensor):
        if tensor.data_ptr() not in own:
            found.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(video).pooled.sum().backward()
    return sum(found)


def test_a_frozen_tower_keeps_nothing_for_backward(clip):
    video = torch.randn(2, 4, 3, 32, 32)
    whole = kept_by(make(clip), video)
    partly = make(clip)
    for name, parameter in partly.named_parameters():
        parameter.requires_grad_(not name.startswith(("visual.conv1", "visual.transformer")))
    partly.visual.class_embedding.requires_grad_(False)
    partly.visual.positional_embedding.requires_grad_(False)
    partly.visual.ln_pre.requires_grad_(False)
    alone = make(clip)
    alone.visual.requires_grad_(False)
    kept = kept_by(partly, video), kept_by(alone, video)
    assert kept[1] < kept[0] < whole / 4
    assert all(p.grad is None for p in alone.visual.parameters())
    assert all(p.grad is not None for p in alone.time_blocks.parameters())


@pytest.mark.parametrize("time_over", ["frames", "tokens"])
def test_recomputed_blocks_give_the_same_gradients(clip, time_over):
    video = torch.randn(2, 4, 3, 32, 32)
    found = []
    for number in (0, 3):
        torch.manual_seed(0)
        encoder = learnt(make(clip, time_over=time_over, num_checkpointed=number))
        encoder(video).pooled.square().sum().backward()
        found.append({name: p.grad for name, p in encoder.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.parametrize("time_over", ["frames", "tokens"])
def test_long_videos_equal_one_pass(published, time_over):
    encoder = learnt(make(published, time_over=time_over, piece_length=7))
    video = torch.randn(21, 3, 32, 32)
    found = encode_long_video(encoder, iter(video.split([1, 17, 3])), 21, keep_tokens=True)
    with torch.no_grad():
        apart, whole = (encoder(video[None], keep_temporal=keep) for keep in (True, False))
    torch.testing.assert_close(found.per_step, apart.pooled[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.pooled, whole.pooled[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.tokens, whole.tokens[0], rtol=0, atol=1e-4)
    for frames, number in (([video], 20), ([video[:3]], 4), ([video[:2], video[2:, :, 8:]], 21)):
        with pytest.raises(ValueError, match=r"make them equal|all of one size"):
            encode_long_video(encoder, frames, number)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"layers": [1, 1, 1, 1]}, "is a ResNet; take a plain ViT .* not towers with convolutions"),
        ({"attentional_pool": True}, "CoCa's"),
        ({"timm_model_name": "test_vit2", "timm_pool": "avg"}, "is test_vit2; take a plain ViT"),
        ({"timm_model_name": "test_convnext"}, "is test_convnext; take a plain ViT"),
        ({"timm_model_name": "no_vit"}, "open_clip cannot build this tower"),
        ({"timm_model_name": "hf-hub:a/b"}, "no architecture of timm"),
        ({"head_width": 0}, "open_clip cannot build this tower"),
        ({"depth": 3}, "open_clip cannot build this tower"),
    ],
)
def test_towers_that_are_refused(tmp_path, vision, message):
    config = CLIP | {"vision_cfg": CLIP["vision_cfg"] | vision}
    (tmp_path / "tower.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        FrameMamba(str(tmp_path / "tower.json"), None, **SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_depth": -1}, "depth -1 must be 0 to 1000"),
        ({"image_size": 33}, "not a multiple of patch_size 8"),
        ({"image_size": 0}, "image_size 0 must be at least 1"),
        ({"d_state": 0}, "d_state 0 must be at least 1"),
        ({"name": "nowhere.json"}, "no model config nowhere.json"),
        ({"architecture": {"embed_dim": 8}}, "is no model config of open_clip"),
    ],
)
def test_settings_that_are_none(clip, changes, message):
    with pytest.raises(ValueError, match=message):
        FrameMamba(**{"name": clip[1], **SMALL} | changes)


def test_input_that_does_not_fit(clip):
    encoder = make(clip)
    with pytest.raises(ValueError, match="33x32 pixels do not divide"):
        encoder(torch.zeros(1, 2, 3, 33, 32))
    with pytest.raises(ValueError, match=r"must be \(B, T, C, H, W\)"):
        encoder(torch.zeros(2, 3, 32, 32))
    dropped = torch.zeros(1, 33, dtype=torch.bool)
    dropped[0, 1:3] = True
    with pytest.raises(ValueError, match="frames hide unequal numbers"):
        encoder(torch.zeros(1, 2, 3, 32, 32), dropped)
    with pytest.raises(ValueError, match="a mask of 33 tokens does not fit 3 frames of 16"):
        encoder(torch.zeros(1, 3, 3, 32, 32), dropped)


@pytest.mark.parametrize("kind", [FrameMamba, FrameViT])
def test_exported_arguments_name_no_file(clip, kind):
    given = {"name": clip[1], "pretrained": clip[2], "num_frames": 4, "image_size": 32}
    encoder = kind(**given)
    stated = json.loads(json.dumps(encoder.exported_arguments(given)))
    assert stated["name"] == "clip.json" and stated["pretrained"] is None
    again = kind(**stated)
    again.load_state_dict(encoder.state_dict())
    assert again.load_pretrained() is None and again.num_frames == 4


def test_another_joint_space_is_refused(clip):
    _, name, weights = clip
    encoder = FrameMamba(name, weights, **SMALL)
    model = VideoTextModel(encoder, OpenClipTextEncoder(32, name), proj_dim=16)
    with pytest.raises(ValueError, match=r"width 24, that of the recipe 16; set proj_dim to 24"):
        load_published(model)


def test_weights_of_another_model_are_refused(clip, tmp_path, root):
    siglip = write_model("siglip", tmp_path, root)
    with pytest.raises(ValueError, match="does not fit"):
        FrameMamba(clip[1], siglip[2], **SMALL).load_pretrained()
    with pytest.raises(ValueError, match="no weight file"):
        FrameMamba(clip[1], "nowhere.pt", **SMALL).load_pretrained()
    assert FrameMamba(clip[1], None, **SMALL).load_pretrained() is None


def test_parts_that_no_loss_reaches(clip):
    encoder = make(clip)
    unread = encoder.unread(tokens=False, pooled=False)
    video = torch.randn(1, 2, 3, 32, 32)
    encoder(video, with_taps=True).taps.sum().backward()
    without = {p for p in encoder.parameters() if p.grad is None}
    assert without == {p for part in unread for p in part.parameters()} and without


def test_towers_of_other_sizes_are_built_for_theirs():
    visual = build_image_tower(SIGLIP, 48)
    assert visual.trunk.pos_embed.shape == (1, 10, 64)
