import json
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")

from vmm.drawing import uniform_rows
from vmm.masking import Patches, draw_mask
from vmm.models.clip_tower import build_visual, load_visual, model_config
from vmm.models.clip_vit import ClipTeacher, FrameViT
from vmm.ops.quick_gelu import QuickGELU

UNIFORM = partial(uniform_rows, [0, 1])
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "model_state.safetensors"
DEMO = str(ROOT / "recipes" / "encoders" / "clip_vit_demo.json")


def _config(folder, **changes):
    """The recorded teacher's architecture as an open_clip model config."""
    vision = {"image_size": 64, "layers": 3, "width": 24, "head_width": 6, "patch_size": 16}
    config = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision | changes, "text_cfg": {}}
    path = folder / "tower.json"
    path.write_text(json.dumps(config))
    return str(path)


@pytest.fixture
def name(tmp_path):
    return _config(tmp_path)


@pytest.fixture(scope="module")
def weights():
    """The recorded teacher, without prefix; its patch kernel still has a time axis."""
    prefix = "clip_teacher."
    state = load_file(GOLDEN)
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.fixture
def teacher(name):
    teacher = ClipTeacher(name, str(GOLDEN), image_size=64)
    teacher.load()
    return teacher


def test_the_tower_has_the_activation_in_one_pass(teacher):
    found = [type(block.mlp.gelu) for block in teacher.visual.transformer.resblocks]
    assert found == [QuickGELU] * 3


def _video(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _clip(weights, frames, heads=4):
    """CLIP's image tower, written out: the blocks' outputs, and the last class row of attention."""

    def norm(x, key):
        return F.layer_norm(x, x.shape[-1:], weights[f"{key}.weight"], weights[f"{key}.bias"])

    def linear(x, key, kind="weight"):
        dot = "_" if "in_proj" in key else "."
        return x @ weights[f"{key}{dot}weight"].T + weights[f"{key}{dot}bias"]

    x = F.conv2d(frames, weights["conv1.weight"].squeeze(2), stride=16).flatten(2).mT
    x = torch.cat([weights["class_embedding"].expand(len(x), 1, -1), x], 1)
    x = norm(x + weights["positional_embedding"], "ln_pre")
    outputs = []
    for i in range(3):
        block = f"transformer.resblocks.{i}"
        qkv = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.in_proj")
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), f"{block}.attn.out_proj")
        y = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{block}.mlp.c_proj")
        outputs.append(x)
    return outputs, attention.mean(1)[:, 0, 1:]


# ---------------------------------------------------------------- the teacher


@pytest.mark.parametrize("norm", [False, True], ids=["videomamba", "umt"])
@pytest.mark.parametrize(
    ("layers", "interval", "expected"),
    [(1, 1, [2]), (2, 1, [1, 2]), (3, 1, [0, 1, 2]), (2, 2, [0, 2])],
)
def test_teacher_equals_the_written_out_tower(name, weights, layers, interval, expected, norm):
    teacher = ClipTeacher(name, str(GOLDEN), 64, layers, interval, final_norm=norm)
    teacher.load()
    video = _video(2, 4, 3, 64, 64)
    out = teacher(video)
    outputs, attention = _clip(weights, video.flatten(0, 1))
    assert out.tokens.shape == (2, layers, 65, 32)
    for k, layer in enumerate(expected):
        x = outputs[layer]
        if norm:
            x = F.layer_norm(x, (24,), weights["ln_post.weight"], weights["ln_post.bias"])
        x = (x @ weights["proj"]).view(2, 4, 17, 32)
        tokens = torch.cat([x[:, :, 0].mean(1, keepdim=True), x[:, :, 1:].flatten(1, 2)], 1)
        torch.testing.assert_close(out.tokens[:, k], tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.attention, attention.view(2, 4, 16), rtol=1e-4, atol=1e-6)


def test_teacher_sees_a_still_and_resizes_other_frames(teacher):
    video = _video(1, 1, 3, 96, 96)
    small = F.interpolate(video[0], size=(64, 64), mode="bicubic", align_corners=False)[None]
    torch.testing.assert_close(teacher(video), teacher(small))
    assert teacher(video).tokens.shape == (1, 1, 17, 32)


def test_teacher_is_frozen(teacher):
    student = torch.nn.Sequential(teacher)
    student.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    video = _video(1, 2, 3, 64, 64).requires_grad_()
    assert not teacher(video).tokens.requires_grad


def test_teacher_knows_its_width_before_it_is_loaded(name):
    teacher = ClipTeacher(name, "missing.pt")
    assert teacher.output_dim == 32
    assert not list(teacher.parameters())
    with pytest.raises(ValueError, match=r"call load\(\)"):
        teacher(_video(1, 1, 3, 64, 64))
    assert ClipTeacher().output_dim == 512


def test_layers_that_the_tower_does_not_have_are_refused(name):
    with pytest.raises(ValueError, match="2 layers at interval 3 do not fit into the 3"):
        ClipTeacher(name, None, 64, num_layers=2, layer_interval=3).load()
    with pytest.raises(ValueError, match="layer_interval 0 must be at least 1"):
        ClipTeacher(name, layer_interval=0)


def test_a_random_teacher_says_so(name, caplog):
    with caplog.at_level(logging.WARNING):
        ClipTeacher(name, None, 64).load()
    assert "RANDOM WEIGHTS" in caplog.text


# ---------------------------------------------------------------- names and files


def test_attention_of_the_demo_tower_is_that_of_its_own_module():
    visual = build_visual(DEMO, 64)
    teacher = ClipTeacher(DEMO, None, 64)
    teacher.load()
    teacher.visual = visual.eval()
    video = _video(1, 1, 3, 64, 64)
    seen = {}
    block = visual.transformer.resblocks[-1]
    block.ln_1.register_forward_hook(lambda _, args, out: seen.update(x=out))
    attention = teacher(video).attention
    _, expected = block.attn(seen["x"], seen["x"], seen["x"], need_weights=True)
    torch.testing.assert_close(attention[0], expected[:, 0, 1:])


@pytest.mark.parametrize("prefix", ["", "visual.", "clip_teacher.", "model.video_encoder.visual."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prefixes_and_formats(name, weights, tmp_path, prefix, suffix):
    file = tmp_path / f"weights{suffix}"
    state = {prefix + key: value for key, value in weights.items()}
    others = {"logit_scale": torch.ones(()), "text_projection": torch.ones(2)} if prefix else {}
    if suffix == ".pt":
        torch.save({"state_dict": state | others}, file)
    else:
        save_file(state | others, file)
    visual = build_visual(name, 64)
    report = load_visual(visual, name, str(file))
    assert sorted(report.loaded) == sorted(weights)
    assert report.dropped.keys() == others.keys()
    for key, value in visual.state_dict().items():
        expected = weights[key].squeeze(2) if key == "conv1.weight" else weights[key]
        assert torch.equal(value, expected)


def test_position_table_is_resized(name, weights):
    visual = build_visual(name, 96)
    load_visual(visual, name, str(GOLDEN))
    table = weights["positional_embedding"]
    grid = table[1:].T.reshape(1, 24, 4, 4)
    grid = F.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    expected = torch.cat([table[:1], grid.reshape(24, 36).T])
    torch.testing.assert_close(visual.positional_embedding.data, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ln_pre.bias": None}, "ln_pre.bias is missing"),
        ({"surprise": torch.ones(1)}, "surprise is not known"),
        ({"proj": torch.ones(24, 31)}, r"proj has shape \(24, 31\)"),
        ({"a.visual.proj": torch.ones(1), "b.visual.proj": torch.ones(1)}, "several image towers"),
    ],
)
def test_files_that_do_not_fit(name, weights, tmp_path, change, message):
    state = {k: v for k, v in (weights | change).items() if v is not None}
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=message):
        load_visual(build_visual(name, 64), name, str(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        (DEMO, "nowhere/clip.pt", "no weight file"),
        ("ViT-B-16-quickgelu", "nowhere.pt", "no weight file"),
        ("ViT-B-16-quickgelu", "oopenai", "neither a file nor a tag.*openai"),
        ("ViT-B-16", "openai", "with QuickGELU; use the model ViT-B-16-quickgelu"),
    ],
)
def test_missing_weights_say_what_to_do(model, pretrained, message):
    visual = build_visual(DEMO, 64)
    with pytest.raises(ValueError, match=message):
        load_visual(visual, model, pretrained)


def test_a_tag_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    import open_clip

    def offline(entry):
        raise FileNotFoundError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(ValueError, match="set pretrained to the file"):
        load_visual(build_visual(DEMO, 64), "ViT-B-16-quickgelu", "openai")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ViT-B-61", "knows no model"),
        ("nowhere.json", "no model config"),
        ("RN50", "not a plain ViT"),
        ("ViT-B-16-SigLIP", "not a plain ViT"),
    ],
)
def test_models_that_are_no_clip_vit(model, message):
    with pytest.raises(ValueError, match=message):
        model_config(model)


def test_a_foreign_attention_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not CLIP's"):
        build_visual(_config(tmp_path, qk_norm=True, block_type="custom"), 64)


# ---------------------------------------------------------------- the frame-only encoder


@pytest.fixture
def encoder(name):
    torch.manual_seed(0)
    encoder = FrameViT(name, str(GOLDEN), num_frames=4, image_size=64)
    encoder.load_pretrained()
    return encoder.eval()


def test_encoder_equals_the_written_out_tower(encoder, weights):
    video = _video(2, 4, 3, 64, 64)
    (*_, x), _ = _clip(weights, video.flatten(0, 1))
    normed = F.layer_norm(x, (24,), weights["ln_post.weight"], weights["ln_post.bias"])
    normed = normed.view(2, 4, 17, 24)
    out = encoder(video, keep_temporal=True, with_taps=True)
    torch.testing.assert_close(out.pooled, normed[:, :, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.tokens, normed[:, :, 1:].flatten(1, 2), rtol=1e-4, atol=1e-5)
    taps = x.view(2, 4, 17, 24)
    taps = torch.cat([taps[:, :, 0].mean(1, keepdim=True), taps[:, :, 1:].flatten(1, 2)], 1)
    torch.testing.assert_close(out.taps, taps[None], rtol=1e-4, atol=1e-5)
    assert encoder(video).taps is None


def test_frames_have_no_order(encoder):
    video = _video(2, 4, 3, 64, 64)
    order = torch.tensor([2, 0, 3, 1])
    for masked in (False, True):
        dropped = (
            draw_mask("attention", Patches(2, 4, 4, 4, torch.rand(2, 4, 16)), 0.5, UNIFORM)
            if masked
            else None
        )
        shuffled = None
        if dropped is not None:
            patches = dropped[:, 1:].view(2, 4, 16)[:, order].flatten(1)
            shuffled = torch.cat([dropped[:, :1], patches], 1)
        out, other = encoder(video, dropped), encoder(video[:, order], shuffled)
        per_frame = out.tokens.view(2, 4, -1, 24)[:, order].flatten(1, 2)
        torch.testing.assert_close(other.tokens, per_frame)
        torch.testing.assert_close(other.pooled, out.pooled, rtol=1e-6, atol=1e-6)


def test_hidden_patches_are_never_seen(encoder):
    video = _video(2, 4, 3, 64, 64)
    dropped = draw_mask("attention", Patches(2, 4, 4, 4, torch.rand(2, 4, 16)), 0.75, UNIFORM)
    out = encoder(video, dropped, with_taps=True)
    assert out.tokens.shape == (2, 4 * 4, 24)
    assert out.taps.shape == (1, 2, 1 + 4 * 4, 24)
    hidden = dropped[:, 1:].view(2, 4, 1, 4, 4)
    pixels = hidden.repeat_interleave(16, 3).repeat_interleave(16, 4)
    noise = torch.randn_like(video) * pixels
    torch.testing.assert_close(encoder(video + noise, dropped, with_taps=True), out)
    assert not torch.allclose(encoder(video + noise).pooled, encoder(video).pooled)


def test_masking_nothing_changes_nothing(encoder):
    video = _video(2, 4, 3, 64, 64)
    nothing = torch.zeros(2, 65, dtype=torch.bool)
    torch.testing.assert_close(encoder(video, nothing), encoder(video))


def test_masks_that_cannot_be_batched_are_refused(encoder):
    video = _video(2, 4, 3, 64, 64)
    unequal = draw_mask("random", Patches(2, 4, 4, 4), 0.5, UNIFORM)
    with pytest.raises(ValueError, match="attention, tube or frame_row"):
        encoder(video, unequal)
    with pytest.raises(ValueError, match="does not fit 4 frames of 16"):
        encoder(video, unequal[:, :-1])


def test_other_lengths_and_sizes(encoder):
    assert encoder(_video(1, 1, 3, 64, 64), keep_temporal=True).pooled.shape == (1, 1, 24)
    assert encoder(_video(1, 7, 3, 96, 64)).tokens.shape == (1, 7 * 24, 24)
    with pytest.raises(ValueError, match="60x64"):
        encoder(_video(1, 2, 3, 60, 64))


def test_every_trainable_parameter_is_used(encoder):
    out = encoder.train()(_video(1, 2, 3, 64, 64))
    (out.tokens.square().sum() + out.pooled.sum()).backward()
    unused = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    assert encoder.no_weight_decay() <= {n for n, _ in encoder.named_parameters()}


def test_a_trained_encoder_becomes_a_teacher(encoder, name, tmp_path):
    file = tmp_path / "last.ckpt"
    state = {f"model.video_encoder.{k}": v for k, v in encoder.state_dict().items()}
    torch.save({"state_dict": state | {"model.temperature": torch.ones(())}}, file)
    teacher = ClipTeacher(name, str(file), image_size=64)
    teacher.load()
    video = _video(1, 2, 3, 64, 64)
    taps = encoder(video, with_taps=True).taps
    torch.testing.assert_close(teacher(video).tokens[:, 0], taps[0] @ encoder.visual.proj)


def test_weights_of_another_image_size_are_adapted(encoder, name):
    larger = FrameViT(name, image_size=96)
    larger.load_state_dict(larger.adapt_state(encoder.state_dict()))
    video = _video(1, 2, 3, 96, 96)
    torch.testing.assert_close(larger.eval()(video), encoder(video))  # resized on the fly there
