"""What every teacher must do, and each kind against its own library."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel

pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")
import open_clip

from vmm.models.clip_vit import ClipTeacher
from vmm.models.library_teacher import FAMILIES, LibraryTeacher
from vmm.models.self_distillation import EncoderTeacher
from vmm.models.several_teachers import SeveralTeachers
from vmm.models.teacher import renormalised
from vmm.models.tower_teacher import TowerTeacher
from vmm.models.videomamba import VideoMamba

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TIMM = {"test_vit": True, "test_vit3": False}
"""Small towers of timm, as DINOv2's and SigLIP's are, and whether they have a class token."""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Folder of a small image model of a family, with random weights."""
    made = tmp_path_factory.mktemp("teachers")

    def folder(family):
        path = made / family
        if not path.is_dir():
            sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
            sizes |= {"intermediate_size": 48, "image_size": 32, "patch_size": 16}
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
                for parameter in model.parameters():
                    torch.nn.init.normal_(parameter, std=0.3)
            model.save_pretrained(path)
            statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            (path / "preprocessor_config.json").write_text(json.dumps(statistics))
        return path

    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """Path of an open_clip config whose image tower timm builds."""
    folder = tmp_path_factory.mktemp("towers")

    def path(name):
        vision = {"timm_model_name": name, "timm_model_pretrained": False, "image_size": 160}
        pools = {"test_vit": "token", "test_vit3": "map", "test_resnet": "avg"}
        vision |= {"timm_pool": pools.get(name, ""), "timm_proj": "none"}
        config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": {}}
        (folder / f"{name}.json").write_text(json.dumps(config))
        return str(folder / f"{name}.json")

    return path


def clips(side, frames=2):
    return torch.randn(2, frames, 3, side, side, generator=torch.Generator().manual_seed(0))


def pixels(video):
    """What a model that wants values from -1 to 1 sees of clips that ImageNet normalised."""
    return renormalised(video.flatten(0, 1), EncoderTeacher.clip_statistics, HALF)


def joined(x, count):
    """(B T, L, W) to what a teacher says: class tokens meant over frames, then patches."""
    x = x.unflatten(0, (2, -1))
    patches = x[:, :, -count:]
    first = x[:, :, 0] if x.shape[2] > count else patches.mean(2)
    return torch.cat([first.mean(1, keepdim=True), patches.flatten(1, 2)], 1)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- transformers


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_tokens_are_those_of_transformers(library, family):
    teacher = LibraryTeacher(str(library(family)), num_layers=2, saliency="received")
    assert not teacher.built and teacher.output_dim == 32 and teacher.layers == [1, 2]
    teacher.load()
    video = clips(32)
    found = teacher(video)
    theirs = AutoModel.from_pretrained(library(family), attn_implementation="eager").eval()
    outputs = theirs(pixels(video), output_hidden_states=True, output_attentions=True)
    names = ("layernorm", "post_layernorm", "norm")
    norm = next(getattr(theirs, name) for name in names if hasattr(theirs, name))
    last = outputs.last_hidden_state
    close(found.tokens[:, 1], joined(norm(last) if family == "clip_vision_model" else last, 4))
    close(found.tokens[:, 0], joined(norm(outputs.hidden_states[2]), 4))
    received = outputs.attentions[-1].mean((1, 2))[:, -4:]
    close(found.attention, received.view(2, 2, 4))
    assert teacher.parts[0].class_token == FAMILIES[family]


@torch.no_grad()
def test_a_class_token_looks_and_other_sizes_are_seen(library):
    folder = library("dinov2")
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    teacher = LibraryTeacher(str(folder), image_size=64, saliency="class", **plain)
    teacher.load()
    video = clips(48)
    found = teacher(video)
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    frames = F.interpolate(video.flatten(0, 1), size=64, mode="bicubic")
    frames = renormalised(frames, teacher.clip_statistics, ((0, 0, 0), (1, 1, 1)))
    outputs = theirs(frames, output_attentions=True)
    close(found.tokens[:, 0], joined(outputs.last_hidden_state, 16))
    close(found.attention, outputs.attentions[-1].mean(1)[:, 0, 1:].view(2, 2, 16))


# ---------------------------------------------------------------- open_clip's towers of timm


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_tokens_are_those_of_timm(tower, name, tmp_path):
    config = json.loads(Path(tower(name)).read_text())
    whole = open_clip.model._build_vision_tower(64, config["vision_cfg"])
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({f"visual.{k}": v for k, v in whole.state_dict().items()}, tmp_path / "tower.pt")
    weights = str(tmp_path / "tower.pt")
    teacher = TowerTeacher(tower(name), weights, num_layers=2, saliency="received")
    teacher.load()
    video = clips(160, 1)
    found = teacher(video)
    trunk = whole.eval().trunk
    wanted = trunk.pretrained_cfg["mean"], trunk.pretrained_cfg["std"]
    frames = renormalised(video.flatten(0, 1), teacher.clip_statistics, wanted)
    last = trunk.forward_features(frames)
    want = joined(last if TIMM[name] else last[:, 1:], 100)  # a register is no class token
    close(found.tokens[:, 1], want)
    assert teacher.class_token == TIMM[name] and teacher.output_dim == trunk.embed_dim
    seen = []
    block = trunk.blocks[-1].attn
    block.fused_attn = False
    block.attn_drop.register_forward_hook(lambda module, inputs, out: seen.append(out))
    trunk.forward_features(frames)
    close(found.attention, seen[0].mean((1, 2))[:, -100:].view(2, 1, 100))


@torch.no_grad()
def test_a_tower_sees_other_sizes(tower):
    teacher = TowerTeacher(tower("test_vit3"), None, image_size=32)
    teacher.load()
    assert teacher(clips(32)).tokens.shape == (2, 1, 1 + 2 * 4, 96)


# ---------------------------------------------------------------- all of them


@pytest.fixture
def kinds(library, tower, root):
    config = str(root / "recipes/encoders/clip_vit_demo.json")
    student = VideoMamba(embed_dim=16, depth=1, num_frames=2, image_size=32)
    return {
        "clip": ClipTeacher(config, None, 32),
        "library": LibraryTeacher(str(library("siglip_vision_model"))),
        "tower": TowerTeacher(tower("test_vit"), None, 32, saliency="class"),
        "encoder": EncoderTeacher(student),
    }


def test_all_are_frozen_and_give_a_token_for_each_patch(kinds):
    for name, teacher in kinds.items():
        teacher.load()
        torch.nn.Sequential(teacher).train()
        assert not any(module.training for module in teacher.modules()), name
        assert not any(p.requires_grad for p in teacher.parameters()), name
        found = teacher(clips(32).requires_grad_())
        assert not found.tokens.requires_grad
        assert found.tokens.shape == (2, len(teacher.layers), 9, teacher.output_dim), name
        assert (found.attention is not None) == teacher.looks, name
        if teacher.looks:
            assert found.attention.shape == (2, 2, 4) and (found.attention >= 0).all()


def test_several_say_what_each_says(kinds):
    several = SeveralTeachers(kinds, {"library": 0.5}, looks_by="tower")
    several.clip_statistics = HALF
    several.load()
    found = several(clips(32))
    assert [part.name for part in several.parts] == ["clip", "encoder", "library", "tower"]
    alone = [kinds[part.name](clips(32)) for part in several.parts]
    widths = [part.width for part in several.parts]
    assert widths == [kinds[part.name].output_dim for part in several.parts]
    assert [part.weight for part in several.parts] == [1, 1, 0.5, 1]
    assert [part.class_token for part in several.parts] == [True, True, False, True]
    for got, want in zip(found.tokens.split(widths, -1), alone, strict=True):
        assert torch.equal(got, want.tokens)
    assert torch.equal(found.attention, alone[3].attention)
    assert all(one.clip_statistics == HALF for one in kinds.values())
    assert SeveralTeachers({"encoder": kinds["encoder"]}).looks is False


# ---------------------------------------------------------------- what cannot work


def test_what_several_teachers_cannot_be(kinds, tower):
    with pytest.raises(ValueError, match="no teacher is called 'clop'; members are clip, library"):
        SeveralTeachers(kinds, {"clop": 1.0})
    with pytest.raises(ValueError, match="there is no teacher"):
        SeveralTeachers({})
    with pytest.raises(ValueError, match="must be above 0"):
        SeveralTeachers(kinds, {"clip": 0.0})
    with pytest.raises(ValueError, match="teacher library does not say where it looks"):
        SeveralTeachers(kinds, looks_by="library")
    with pytest.raises(ValueError, match=r"the name 'a\.b' of a teacher must be"):
        SeveralTeachers({"a.b": kinds["clip"]})
    two = SeveralTeachers(kinds | {"two": TowerTeacher(tower("test_vit"), None, 32, num_layers=2)})
    with pytest.raises(
        ValueError, match=r"as many layers as the student has taps: clip 1, .* two 2"
    ):
        _ = two.layers
    other = SeveralTeachers(kinds | {"other": TowerTeacher(tower("test_vit"), None, 64)})
    other.load()
    with pytest.raises(
        ValueError, match=r"patches of other grids .*clip 9, .* other 33, tower 9\)"
    ):
        other(clips(32))


def test_a_saliency_that_there_is_not_is_refused(library, tower):
    said = "has no class token, so saliency cannot be class; set it to received"
    for make in (
        lambda: LibraryTeacher(str(library("siglip_vision_model")), saliency="class"),
        lambda: TowerTeacher(tower("test_vit3"), None, saliency="class"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_settings_that_cannot_be(library, tower, tmp_path, root):
    vit = str(library("vit"))
    with pytest.raises(ValueError, match="4 layers at interval 1 do not fit into the 3"):
        LibraryTeacher(vit, num_layers=4)
    with pytest.raises(ValueError, match="image_size 40 does not divide into patches of 16"):
        LibraryTeacher(vit, image_size=40)
    with pytest.raises(ValueError, match="give both or neither"):
        LibraryTeacher(vit, mean=(0, 0, 0))
    with pytest.raises(ValueError, match=r"call load\(\) first"):
        LibraryTeacher(vit)(clips(32))
    with pytest.raises(ValueError, match="cannot read the configuration of teacher"):
        LibraryTeacher(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is of type 'bert'; choose one of vit, dinov2"):
        LibraryTeacher(str(tmp_path))
    with pytest.raises(ValueError, match="none of timm's; for a plain CLIP"):
        TowerTeacher(str(root / "recipes/encoders/clip_vit_demo.json"), None)
    with pytest.raises(ValueError, match="is a ResNet, not a Vision Transformer"):
        TowerTeacher(tower("test_resnet"), None)
    with pytest.raises(ValueError, match="open_clip cannot build this tower"):
        TowerTeacher(tower("no_such_tower"), None)


def test_weights_that_do_not_fit_are_refused(library, tmp_path):
    config = json.loads((library("vit") / "config.json").read_text())
    model = AutoModel.from_config(AutoConfig.for_model(**config | {"num_hidden_layers": 2}))
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not fit: .* are missing or of another"):
        LibraryTeacher(str(tmp_path)).load()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the weights of teacher"):
        LibraryTeacher(str(tmp_path)).load()
