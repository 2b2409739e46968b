import argparse
import collections
import math
import os
import pickle
import random
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.global_state import STATES
from tests.models import published as make
from vmm.models.checkpoints import load_published, save_published
from vmm.models.published_shapes import ShapeError, text_encoder_arguments
from vmm.models.weight_files import load_plain, read_weight_file

GOLDEN = Path(__file__).parents[1] / "golden"
STAGE1 = GOLDEN / "stage1_checkpoint-latest.pth"
STAGE2 = GOLDEN / "model_state.safetensors"
SMALL = {"width": 32, "depth": 2, "grid": 2, "frames": 4}
TEXT = (64, 3, 2, 96, 60, 20)
HEADS = 4


def small_video_text(**settings):
    return make.video_text(**SMALL, text=TEXT, output=24, joint=20, **settings)


FAMILIES = {
    "image_classifier": lambda: make.classifier(**SMALL | {"frames": None}, classes=7).tensors(),
    "video_classifier": lambda: make.classifier(**SMALL, classes=7).tensors(),
    "masked_pretrain": lambda: make.masked_pretrain(**SMALL, output=24).tensors(),
    "video_text": small_video_text,
    "clip_visual": lambda: make.clip_visual(width=64).tensors(),
}


def save(content, path):
    torch.save(content, path)
    return path


def equal(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(left[key], right[key]) for key in left)


# ------------------------------------------------------------------------- what loads, and as what


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_import_export_import_is_bit_identical(family, suffix, tmp_path):
    state = FAMILIES[family]()
    heads = {"text_num_heads": HEADS} if family == "video_text" else {}
    first = load_published(save(state, tmp_path / "first.pth"), **heads)
    assert first.family == family
    assert set(first.report.used) | set(first.report.dropped) == set(state)
    again = tmp_path / f"again{suffix}"
    save_published(first.model.state_dict(), family, again, **heads)
    written = load_file(again) if suffix == ".safetensors" else torch.load(again)
    if family == "video_text" and suffix == ".pth":  # beside the heads, which no shape tells
        written = written["model"]
    assert equal(written, state)
    second = load_published(again)
    assert equal(second.model.state_dict(), first.model.state_dict())
    assert second.config == first.config


@pytest.mark.smoke
def test_the_recorded_stage_2_file_computes_what_was_recorded(golden, relative_error):
    model = load_published(STAGE2, text_num_heads=4).model
    vision, text = golden("c_vision"), golden("d_text")
    video = vision["video_i8"].float().div(32).transpose(1, 2)
    for case, mask, keep in (
        ("video.keepT", None, True),
        ("video.masked_random", vision["mask_random"], False),
        ("video.masked_tube_keepT", vision["mask_tube"], True),
    ):
        got = model.encode_video(video, mask, keep_temporal=keep)
        for name, value in (
            ("tokens", got.tokens),
            ("pooled", got.pooled),
            ("x_clip", got.aligned),
        ):
            if f"{case}.{name}" in vision:
                assert relative_error(value, vision[f"{case}.{name}"]) < 1e-5, f"{case}.{name}"
    encoded = model.encode_text(text["input_ids"], text["attention_mask"])
    assert relative_error(encoded.tokens, text["text.last_hidden_state"]) < 1e-5
    assert relative_error(encoded.pooled, text["text.pooled"]) < 1e-5


def test_scores_follow_the_published_formulas():
    """Similarity, matching and word scores against the formulas written out."""
    model = load_published(STAGE2, text_num_heads=4).model
    state = load_file(STAGE2)
    video = torch.randn(3, 4, 3, 64, 64)
    ids, mask = torch.randint(104, 120, (3, 7)), torch.ones(3, 7, dtype=torch.int64)
    with torch.no_grad():
        clips, texts = model.encode_video(video), model.encode_text(ids, mask)
        v, t = model.project_video(clips.pooled), model.project_text(texts.pooled)
        got = model.similarity(v, t, 0.5)
        fused = model.fuse(texts.tokens, mask, clips.tokens)
        match, words = model.match_logits(fused), model.mlm_logits(fused)
    for i in range(3):
        for j in range(3):
            b = state["text_proj.weight"] @ texts.pooled[j] + state["text_proj.bias"]
            cosines = []
            for frame in clips.pooled[i]:
                a = state["vision_proj.weight"] @ frame + state["vision_proj.bias"]
                cosines.append(a @ b / (a.norm() * b.norm()))
            assert got[i, j].item() == pytest.approx(sum(cosines).item() / 4 / 0.5, abs=1e-5)
    expected = fused[:, 0] @ state["itm_head.weight"].T + state["itm_head.bias"]
    torch.testing.assert_close(match, expected)
    assert words.shape == (3, 7, 120)


def test_the_recorded_stage_1_file_loads():
    loaded = load_published(STAGE1)
    assert loaded.family == "masked_pretrain"
    encoder = loaded.config["init_args"]["video_encoder"]["init_args"]
    sizes = {"embed_dim": 20, "depth": 2, "num_frames": 4, "image_size": 64, "patch_size": 16}
    assert sizes.items() <= encoder.items()
    aligned = loaded.model(torch.randn(2, 4, 3, 64, 64))
    assert aligned.shape == (1, 2, 1 + 4 * 16, 32)


def test_a_downstream_file_has_a_bare_bert(tmp_path):
    state = small_video_text()
    bare = {
        key.replace("text_encoder.bert.", "text_encoder."): value
        for key, value in state.items()
        if not key.startswith("text_encoder.cls.")
    }
    loaded = load_published(save(bare, tmp_path / "zs.pth"), text_num_heads=HEADS)
    assert all(key.startswith("text_encoder.cls.") for key in loaded.report.new)
    assert "no language-model head" in next(iter(loaded.report.new.values()))
    whole = load_published(save(state, tmp_path / "pt.pth"), text_num_heads=HEADS)
    whole = whole.model.state_dict()
    for key, value in loaded.model.state_dict().items():
        if not key.startswith("text_encoder.cls."):
            assert torch.equal(value, whole[key]), key


def test_a_distilled_image_classifier_and_a_teacher_inside(tmp_path):
    state = FAMILIES["image_classifier"]()
    state |= {"distill_head.0.weight": torch.ones(32), "distill_head.1.weight": torch.ones(8, 32)}
    loaded = load_published(save({"model": state}, tmp_path / "m16.pth"))
    assert sorted(loaded.report.dropped) == ["distill_head.0.weight", "distill_head.1.weight"]
    assert loaded.report.changed == {
        "patch_embed.proj.weight": "inflated from (32, 3, 16, 16) to (32, 3, 1, 16, 16)"
    }
    assert loaded.model(torch.randn(2, 1, 3, 32, 32)).shape == (2, 7)
    teacher = {f"clip_teacher.{k}": v for k, v in FAMILIES["clip_visual"]().items()}
    file = save(small_video_text() | teacher, tmp_path / "st2.pth")
    loaded = load_published(file, text_num_heads=HEADS)
    assert set(teacher) <= set(loaded.report.dropped)


def test_an_image_model_becomes_a_video_model(tmp_path):
    file = save(FAMILIES["image_classifier"](), tmp_path / "image.pth")
    loaded = load_published(file, num_frames=6)
    encoder = loaded.model.video_encoder
    assert encoder.temporal_pos_embedding.shape == (1, 6, 32)
    assert not encoder.temporal_pos_embedding.any()
    assert "images have no time" in loaded.report.new["video_encoder.temporal_pos_embedding"]
    assert loaded.model(torch.randn(1, 6, 3, 32, 32)).shape == (1, 7)


def test_an_image_model_becomes_one_of_tubelets(tmp_path):
    file = save(FAMILIES["image_classifier"](), tmp_path / "image.pth")
    image, still = load_published(file).model, torch.randn(1, 1, 3, 32, 32)
    loaded = load_published(file, tubelet_size=2)
    sizes = loaded.config["init_args"]["video_encoder"]["init_args"]
    assert (sizes["num_frames"], sizes["tubelet_size"]) == (2, 2)
    changed = "inflated from (32, 3, 16, 16) to (32, 3, 2, 16, 16)"
    assert loaded.report.changed == {"patch_embed.proj.weight": changed}
    torch.testing.assert_close(loaded.model(still.expand(-1, 2, -1, -1, -1)), image(still))
    with pytest.raises(ValueError, match="sees 2 frames per token"):
        save_published(loaded.model.state_dict(), "image_classifier", tmp_path / "out.pth")
    longer = load_published(file, tubelet_size=2, num_frames=8).model.video_encoder
    assert longer.temporal_pos_embedding.shape == (1, 4, 32)
    with pytest.raises(ValueError, match="not a multiple of tubelet_size"):
        load_published(file, tubelet_size=2, num_frames=3)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder."])
@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
def test_wrappers_come_off(prefix, wrapper, tmp_path):
    state = FAMILIES["video_classifier"]()
    wrapped = {prefix + key: value for key, value in state.items()}
    content = {wrapper: wrapped, "epoch": 3} if wrapper else wrapped
    loaded = load_published(save(content, tmp_path / "wrapped.pth"))
    assert set(loaded.report.used) == set(state)


@pytest.mark.parametrize("family", ["video_classifier", "masked_pretrain", "video_text"])
def test_position_tables_are_fitted_from_their_own_size(family, tmp_path):
    state = FAMILIES[family]()
    prefix = "vision_encoder." if family == "video_text" else ""
    file = save(state, tmp_path / "f.pth")
    loaded = load_published(file, num_frames=9, image_size=80, text_num_heads=HEADS)
    encoder = loaded.model.video_encoder
    table = state[f"{prefix}temporal_pos_embedding"].transpose(1, 2)
    time = torch.nn.functional.interpolate(table, 9, mode="linear").transpose(1, 2)
    assert torch.equal(encoder.temporal_pos_embedding, time)
    patches = state[f"{prefix}pos_embed"][:, 1:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
    space = torch.nn.functional.interpolate(patches, (5, 5), mode="bicubic", align_corners=False)
    assert torch.equal(encoder.pos_embed[:, 1:], space.flatten(2).transpose(1, 2))
    assert torch.equal(encoder.pos_embed[:, 0], state[f"{prefix}pos_embed"][:, 0])
    assert loaded.report.changed == {
        f"{prefix}pos_embed": "fitted from (1, 5, 32) to (1, 26, 32)",
        f"{prefix}temporal_pos_embedding": "fitted from (1, 4, 32) to (1, 9, 32)",
    }
    clip = torch.randn(1, 9, 3, 80, 80)
    tokens = encoder(clip).tokens
    assert tokens.shape == (1, 9 * 25, 32)


@pytest.mark.parametrize(
    ("variant", "trunk", "image"),
    [
        ("tiny", 6_956_544, 7_148_008),
        ("small", 25_414_656, 25_796_584),
        ("middle", 73_645_056, 74_217_448),
        ("base", 96_835_584, 97_598_440),
    ],
)
def test_parameter_counts_of_the_layout_are_the_published_ones(variant, trunk, image):
    width, depth = make.VARIANTS[variant]

    def count(shapes):
        return sum(math.prod(shape) for shape in shapes.values())

    assert count(make.trunk(width, depth)) == trunk
    assert count(make.classifier(width, depth, 1000, frames=None)) == image
    if variant == "middle":
        assert count(make.masked_pretrain(width, depth)) == 73_941_504
        assert count(make.video_text_shapes(width, depth)) == 190_354_621


@pytest.mark.parametrize("variant", make.VARIANTS)
def test_full_size_classifiers_import_and_run(variant, tmp_path):
    width, depth = make.VARIANTS[variant]
    shapes = make.classifier(width, depth, 400)
    loaded = load_published(save(shapes.tensors(torch.bfloat16), tmp_path / "k400.pth"))
    assert sum(p.numel() for p in loaded.model.parameters()) == sum(
        math.prod(shape) for shape in shapes.values()
    )
    with torch.no_grad():
        assert loaded.model(torch.randn(1, 8, 3, 64, 64)).isfinite().all()


@pytest.mark.slow
def test_a_full_size_stage_2_file_imports_and_runs(tmp_path):
    state = make.video_text(*make.VARIANTS["middle"], dtype=torch.bfloat16)
    loaded = load_published(save(state, tmp_path / "videomamba_m16_25M_f8_res224.pth"))
    assert sum(p.numel() for p in loaded.model.parameters()) == 190_354_621
    text = loaded.config["init_args"]["text_encoder"]["init_args"]
    assert text["fusion_layer"] == 9 and text["architecture"]["num_attention_heads"] == 12
    assert loaded.model.temperature.item() == 0.06982421875
    with torch.no_grad():
        got = loaded.model.encode_video(torch.randn(1, 1, 3, 224, 224))
    assert got.tokens.shape == (1, 196, 576) and got.aligned.shape == (1, 1, 197, 512)


# ------------------------------------------------------------------------------ how files are read


def training_file(state, easy_dict):
    numpy_scalar = np.float64(0.5)
    return {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
        "config": easy_dict(
            model=easy_dict(text_encoder=easy_dict(num_attention_heads=8), temp=0.07),
            epochs=[1, 2],
        ),
        "args": argparse.Namespace(lr=0.1, path=Path("runs"), best=numpy_scalar),
        "epoch": 9,
    }


@pytest.fixture
def upstream(monkeypatch):
    """A module of the training code, with the class that it pickles into its checkpoints."""
    module = types.ModuleType("utils.easydict")
    module.EasyDict = type("EasyDict", (dict,), {"__module__": "utils.easydict"})
    monkeypatch.setitem(sys.modules, "utils", types.ModuleType("utils"))
    monkeypatch.setitem(sys.modules, "utils.easydict", module)
    return module


def test_files_of_the_training_code_load_without_its_classes(upstream, monkeypatch, tmp_path):
    content = training_file(small_video_text(), upstream.EasyDict)
    file = save(content, tmp_path / "ckpt_latest.pth")
    monkeypatch.delitem(sys.modules, "utils.easydict")
    loaded = load_published(file)
    text = loaded.config["init_args"]["text_encoder"]["init_args"]
    assert text["architecture"]["num_attention_heads"] == 8  # from the file's own config
    assert loaded.model.text_encoder.bert.encoder.layer[0].attention.self.num_heads == 8
    other = load_published(file, text_num_heads=4)
    assert other.model.text_encoder.bert.encoder.layer[0].attention.self.num_heads == 4


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize("kind", ["PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"])
def test_paths_load_under_the_names_that_every_python_gives_them(
    module, kind, monkeypatch, tmp_path
):
    """Python 3.13 says ``pathlib._local``, 3.11 does not have it: written by hand, as both do."""
    made = types.ModuleType(module)
    path = type(kind, (), {"__module__": module, "__reduce__": lambda self: (path, ("runs", "a"))})
    setattr(made, kind, path)
    monkeypatch.setitem(sys.modules, module, made)
    content = {"model": FAMILIES["masked_pretrain"](), "args": {"out": path()}}
    file = save(content, tmp_path / "ckpt.pth")
    monkeypatch.undo()
    assert f"{module}\n{kind}".encode() in file.read_bytes()
    assert load_published(file).family == "masked_pretrain"
    assert read_weight_file(file).settings == {"out": "runs/a"}


def test_the_types_and_devices_of_the_caller_do_not_reach_the_model(tmp_path):
    file = save(FAMILIES["video_classifier"](), tmp_path / "k400.pth")
    want = load_published(file).model.state_dict()
    for state in ("default float64", "default bfloat16", "default device meta"):
        with STATES[state]():
            assert equal(load_published(file).model.state_dict(), want), state


def test_storages_from_a_gpu_load_on_the_cpu():
    names = re.findall(rb"cuda:0", STAGE1.read_bytes())
    assert names, "the recorded file is no longer tagged"
    assert load_published(STAGE1).model.align_head.decoders[0].head.weight.device.type == "cpu"


def test_a_hub_name_is_fetched_through_the_hub(monkeypatch, tmp_path):
    file = save(FAMILIES["masked_pretrain"](), tmp_path / "mask_pt.pth")
    asked = []

    def download(repo, name):
        asked.append((repo, name))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_published("OpenGVLab/VideoMamba:mask_pt.pth").family == "masked_pretrain"
    assert asked == [("OpenGVLab/VideoMamba", "mask_pt.pth")]

    def offline(repo, name):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"could not fetch mask_pt\.pth of OpenGVLab/VideoMamba"):
        load_published("OpenGVLab/VideoMamba:mask_pt.pth")


def test_heads_that_no_one_knows_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="give text_num_heads"):
        load_published(STAGE2)
    tower = save(make.clip_visual(width=24).tensors(), tmp_path / "clip.pth")
    with pytest.raises(ValueError, match="give clip_num_heads"):
        load_published(tower)
    assert load_published(tower, clip_num_heads=4, image_size=64).model.output_dim == 32


def test_a_whole_clip_gives_its_image_tower(tmp_path):
    tower = FAMILIES["clip_visual"]()
    whole = {f"visual.{k}": v for k, v in tower.items()}
    whole |= {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.ones(())}
    loaded = load_published(save(whole, tmp_path / "open_clip.pth"))
    assert loaded.report.dropped == dict.fromkeys(
        ("transformer.resblocks.0.ln_1.weight", "logit_scale"), "not part of visual"
    )
    tokens = loaded.model(torch.randn(1, 2, 3, 48, 48)).tokens
    assert tokens.shape == (1, 1, 1 + 2 * 9, 32)


# --------------------------------------------------------------------- damaged, foreign and hostile


class Malicious:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def without(state, pattern):
    kept = {key: value for key, value in state.items() if not re.search(pattern, key)}
    assert len(kept) < len(state)
    return kept


def middle():
    return make.trunk(*make.VARIANTS["middle"], norm="norm_f") | {
        "head.weight": (4, 576),
        "head.bias": (4,),
    }


def published_size(change):
    shapes = make.Shapes(middle())
    return {key: torch.zeros(()).expand(shape).clone() for key, shape in change(shapes).items()}


def extra_layer(shapes):
    return make.Shapes(
        shapes
        | {
            key.replace("layers.31.", "layers.32."): shape
            for key, shape in shapes.items()
            if key.startswith("layers.31.")
        }
    )


DAMAGED = {
    "a layer missing in the middle": (
        lambda p: save(without(FAMILIES["masked_pretrain"](), r"^layers\.0\."), p),
        "no whole masked_pretrain file",
    ),
    "the last layer missing": (
        lambda p: save(published_size(lambda s: without(s, r"^layers\.31\.")), p),
        "31 blocks of width 576, where VideoMamba-middle has 32",
    ),
    "an extra layer": (
        lambda p: save(published_size(extra_layer), p),
        "33 blocks of width 576",
    ),
    "one tensor missing": (
        lambda p: save(without(FAMILIES["video_classifier"](), r"^layers\.1\.mixer\.D_b$"), p),
        r"layers\.1\.mixer\.D_b is missing",
    ),
    "one tensor of another width": (
        lambda p: save(small_video_text() | {"text_proj.weight": torch.ones(20, 63)}, p),
        r"text_proj\.weight has shape \(20, 63\), wanted \(20, 64\)",
    ),
    "a surplus tensor": (
        lambda p: save(FAMILIES["masked_pretrain"]() | {"layers.1.gamma": torch.ones(32)}, p),
        r"layers\.1\.gamma is not known",
    ),
    "a part that no stage-2 file has": (
        lambda p: save(small_video_text() | {"audio_proj.weight": torch.ones(2)}, p),
        r"audio_proj\.weight belongs to no part",
    ),
    "no cross-attention in one layer": (
        lambda p: save(without(small_video_text(), r"layer\.2\.crossattention"), p),
        "cross-attention in the text layers",
    ),
    "no cross-attention in the last layer": (
        lambda p: save(
            without(
                make.video_text(**SMALL, text=(64, 4, 2, 96, 60, 20), output=24, joint=20),
                r"layer\.3\.crossattention",
            ),
            p,
        ),
        r"cross-attention in the text layers \[2\] of 4",
    ),
    "a text layer missing": (
        lambda p: save(without(small_video_text(), r"encoder\.layer\.1\."), p),
        "missing",
    ),
    "a base BERT beside the encoder": (
        lambda p: save(without(small_video_text(), "crossattention"), p),
        "cross-attention in the text layers",
    ),
    "no text tower": (
        lambda p: save(without(small_video_text(), r"^text_encoder\."), p),
        "of no published family",
    ),
    "an untied output layer": (
        lambda p: save(
            small_video_text()
            | {"text_encoder.cls.predictions.decoder.weight": torch.ones(60, 64)},
            p,
        ),
        "differs from",
    ),
    "other position ids": (
        lambda p: save(
            small_video_text()
            | {"text_encoder.bert.embeddings.position_ids": torch.arange(20).flip(0)[None]},
            p,
        ),
        "positions are counted here",
    ),
    "not a number": (
        lambda p: save(
            FAMILIES["masked_pretrain"]() | {"norm.weight": torch.full((32,), torch.nan)}, p
        ),
        r"norm\.weight is not finite",
    ),
    "whole numbers": (
        lambda p: save(FAMILIES["masked_pretrain"]() | {"norm.weight": torch.ones(32).int()}, p),
        r"norm\.weight is not finite",
    ),
    "more numbers claimed than stored": (
        lambda p: save(
            FAMILIES["masked_pretrain"]() | {"norm.weight": torch.ones(1).expand(10**12)}, p
        ),
        r"norm\.weight claims 1000000000000 numbers",
    ),
    "another model": (
        lambda p: save(
            {"blocks.0.attn.qkv.weight": torch.ones(9, 3), "cls_token": torch.ones(3)}, p
        ),
        r"of no published family \(its 2 keys start with blocks\.0",
    ),
    "UMT's stage 2": (
        lambda p: save(
            {
                "vision_encoder.blocks.0.attn.qkv.weight": torch.ones(9, 3),
                "text_encoder.bert.embeddings.word_embeddings.weight": torch.ones(9, 3),
            },
            p,
        ),
        "of no published family",
    ),
    "no tensors": (lambda p: save({"epoch": 3}, p), "epoch is a int, not a tensor"),
    "a list": (lambda p: save([torch.ones(2)], p), "holds a list"),
    "nothing": (lambda p: (p.touch(), p)[1], "is empty"),
    "a web page": (lambda p: p.write_text("<!DOCTYPE html><html>") and p, "is a web page"),
    "a Git LFS pointer": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n") and p,
        "Git LFS pointer",
    ),
    "half a file": (
        lambda p: p.write_bytes(STAGE1.read_bytes()[: STAGE1.stat().st_size // 2]) and p,
        "damaged or no weight file",
    ),
    "half a safetensors file": (
        lambda p: (
            (q := p.with_suffix(".safetensors")).write_bytes(STAGE2.read_bytes()[:5000]) and q
        ),
        "damaged or no weight file",
    ),
    "noise": (lambda p: p.write_bytes(bytes(range(256)) * 9) and p, "damaged or no weight file"),
    "a tensor without numbers": (
        lambda p: save({"norm.weight": torch.empty(3, device="meta")}, p),
        r"norm\.weight is a tensor of another kind .* on meta|damaged or no weight file",
    ),
    "a sparse tensor": (
        lambda p: save({"norm.weight": torch.eye(3).to_sparse()}, p),
        r"norm\.weight is a tensor of another kind .*sparse|damaged or no weight file",
    ),
    "a nameless tensor": (lambda p: save({None: torch.ones(3)}, p), "None is no name of a tensor"),
    "an unknown class": (
        lambda p: save(FAMILIES["masked_pretrain"]() | {"x": collections.Counter(a=1)}, p),
        "x is a Counter",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_foreign_files_give_one_clear_error(name, tmp_path):
    damage, message = DAMAGED[name]
    file = damage(tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message) as caught:
        load_published(file, text_num_heads=HEADS)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_mutants_of_a_file_give_one_clear_error(tmp_path, zipped):
    """Found by fuzzing: torch.load raises ten kinds of errors for damaged files."""
    file, rng = tmp_path / "file.pth", random.Random(0)
    content = {"state_dict": {"w": torch.ones(3)}, "epoch": 1, "callbacks": {"x": {"best": "a"}}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data) or 1)
            kind = rng.random()
            if kind < 0.1:
                del data[at:]
            elif kind < 0.5 and data:
                data[at] = rng.randrange(256)
            else:
                data[at : at + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
        file.write_bytes(data)
        for read in (load_plain, read_weight_file):
            try:
                read(file)
            except ValueError as error:
                assert str(error)  # and no other kind of error


@pytest.mark.parametrize("wrapper", ["_orig_mod.{}", "module.{}", "_forward_module.{}"])
def test_a_wrapped_published_file_is_used(wrapper, tmp_path):
    file = tmp_path / "mask_pt.pth"
    state = FAMILIES["masked_pretrain"]()
    torch.save({"model": {wrapper.format(key): value for key, value in state.items()}}, file)
    assert load_published(file).family == "masked_pretrain"


SIZES = {
    "video_classifier": ["patch_embed.proj.weight", "pos_embed", "layers.0.mixer.A_log",
                         "temporal_pos_embedding", "head.weight"],
    "masked_pretrain": ["clip_decoder.0.head.weight", "layers.0.mixer.conv1d.weight"],
    "video_text": ["vision_proj.weight", "temp", "vision_encoder.temporal_pos_embedding",
                   "text_encoder.bert.embeddings.word_embeddings.weight"],
    "clip_visual": ["conv1.weight", "positional_embedding", "proj"],
}  # fmt: skip
"""Keys of tensors that tell sizes, by family."""


@pytest.mark.parametrize("family", SIZES)
def test_tensors_of_no_size_or_of_other_dimensions_are_named(family, tmp_path):
    state = FAMILIES[family]()
    for key in SIZES[family]:
        for shape in ((), (0,), (1, 1), (3, 0), (2, 2, 2), (0,) * 4, (0,) * 5):
            if shape == state[key].shape:
                continue
            file = save(state | {key: torch.full(shape, 0.5)}, tmp_path / "file.pth")
            with pytest.raises(ValueError, match=r"file\.pth") as caught:
                load_published(file, text_num_heads=HEADS)
            assert type(caught.value) is ValueError, (key, shape)


def test_a_published_text_encoder_must_see_the_video_from_its_ninth_layer_on():
    shapes = make.bert(768, 12, 9, 576, 3072, 30522, 512)
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert text_encoder_arguments(state, None)["fusion_layer"] == 9
    with pytest.raises(ShapeError, match=r"text layers \[10, 11\] of 12; .* from layer 9"):
        text_encoder_arguments(without(state, r"layer\.9\.crossattention"), None)


@pytest.mark.parametrize("how", ["torch", "pickle", "legacy"])
def test_code_in_a_file_is_named_and_not_run(how, tmp_path):
    marker, file = tmp_path / "sprung", tmp_path / "evil.pth"
    content = {"model": {"norm.weight": Malicious(marker)}}
    if how == "torch":
        torch.save(content, file)
    elif how == "legacy":
        torch.save(content, file, _use_new_zipfile_serialization=False)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"run code of .*mkdir|damaged or no weight file"):
        load_published(file)
    assert not marker.exists()
    if how != "legacy":
        with pytest.raises(ValueError, match=r"run code of \w+\.mkdir"):
            load_published(file)


def test_a_model_without_a_published_layout_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="published layouts are those of VideoMamba"):
        save_published(
            {"video_encoder.visual.proj": torch.ones(2)}, "video_text", tmp_path / "x.pth"
        )
    assert not list(tmp_path.iterdir())


def test_safetensors_files_need_no_pickle(tmp_path):
    file = tmp_path / "mask_pt.safetensors"
    save_file(FAMILIES["masked_pretrain"](), file)
    assert load_published(file).family == "masked_pretrain"
