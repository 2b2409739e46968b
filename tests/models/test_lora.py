"""LoRA computes what the merged weights compute, in every encoder and in every way through it."""

import re

import pytest
import torch
from torch import nn

from vmm.models.clip_vit import FrameViT
from vmm.models.long_video import encode_long_video
from vmm.models.lora import Lora, adaptable_layers, add_adapters, merge_adapters
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

SIZES = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 32}
ENCODERS = {
    "all paths": {"scan_order": "st_v2"},
    "in pieces": {"num_checkpointed": 2, "piece_length": 5},
}


@pytest.fixture
def make(root):
    name = str(root / "recipes/encoders/bert_demo")

    def make(encoder="all paths", seed=0):
        torch.manual_seed(seed)
        text = BertTextEncoder(32, name=name, fusion_layer=2, pretrained=False)
        return (
            VideoTextModel(VideoMamba(**SIZES, **ENCODERS[encoder]), text, proj_dim=16)
            .double()
            .eval()
        )

    return make


def adapted(model, **settings):
    layers = add_adapters(model, Lora(**{"rank": 3, "alpha": 5} | settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return layers


def said(model):
    """What a model says of clips and captions, its matching and its guesses of words."""
    g = torch.Generator().manual_seed(1)
    video = torch.randn(2, 4, 3, 32, 32, generator=g, dtype=torch.float64)
    tokens = model.text_encoder.tokenize(["a red circle", "a blue bar moves"])
    seen, read = model.encode_video(video), model.encode_text(*tokens)
    fused = model.fuse(read.tokens, tokens.attention_mask, seen.tokens)
    return seen.pooled, read.pooled, model.match_logits(fused), model.mlm_logits(fused)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_merged_equals_unmerged_and_every_adapter_learns(make, encoder):
    model, plain, before = make(encoder), make(encoder, seed=1), make(encoder)
    layers = adapted(model)
    assert layers == adaptable_layers(before) and len(layers) > 20
    plain.load_state_dict(merge_adapters(model.state_dict()))
    outputs = said(model)
    for got, wanted, old in zip(outputs, said(plain), said(before), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
        assert (got - old).abs().max() > 1e-3
    sum(x.square().sum() for x in outputs).backward()
    for name, parameter in model.named_parameters():
        inside = name.startswith(("video_encoder", "text_encoder"))
        assert parameter.requires_grad == ("lora_" in name or not inside), name
        if "lora_" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_long_video_is_encoded_with_adapters(make):
    model = make("in pieces")
    adapted(model)
    video = torch.randn(1, 8, 3, 32, 32, dtype=torch.float64)
    long = encode_long_video(model.video_encoder, list(video), 8, dtype=torch.float64)
    with torch.no_grad():
        whole = model.video_encoder(video)
    torch.testing.assert_close(long.pooled.double(), whole.pooled[0], rtol=0, atol=1e-6)


def test_the_sum_is_that_of_peft(make):
    model = make()
    adapted(model)
    state = merge_adapters(model.state_dict())
    layer = model.get_submodule("video_encoder.layers.0.mixer.in_proj")
    layer.merge()
    name = "video_encoder.layers.0.mixer.in_proj"
    torch.testing.assert_close(state[f"{name}.weight"], layer.base_layer.weight, rtol=0, atol=1e-15)


def test_targets_choose_layers_and_rank_their_size(make):
    model = make()
    layers = adapted(model, targets=r"video_encoder\..*\.(in|out)_proj", rank=2)
    assert layers == [
        f"video_encoder.layers.{i}.mixer.{n}_proj" for i in (0, 1) for n in ("in", "out")
    ]
    sizes = {tuple(p.shape) for n, p in model.named_parameters() if "lora_" in n}
    assert sizes == {(2, 32), (128, 2), (2, 64), (32, 2)}
    learning = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    heads = {"vision_proj", "text_proj", "itm_head", "temperature"}
    assert learning == {"video_encoder", *heads}


@pytest.fixture
def clip(root):
    """Four frames through a ViT whose attention is PyTorch's."""

    def make(seed):
        torch.manual_seed(seed)
        vit = FrameViT(
            str(root / "recipes/encoders/clip_vit_demo.json"), num_frames=4, image_size=32
        )
        return nn.ModuleDict({"video_encoder": vit}).double().eval()

    return make


@pytest.mark.parametrize("targets", [".*", r".*attn\.in_proj_weight"])
def test_the_joint_projection_of_attention_is_adapted(clip, targets):
    model, plain, before = clip(0), clip(1), clip(0)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    layers = adapted(model, targets=targets)
    attentions = [n for n in layers if n.endswith(".attn.in_proj_weight")]
    assert len(attentions) == len(model.video_encoder.visual.transformer.resblocks)
    assert (layers != attentions) == (targets == ".*")
    plain.load_state_dict(merge_adapters(model.state_dict()))
    video = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    tokens = [m.video_encoder(video).tokens for m in (model, plain, before)]
    torch.testing.assert_close(tokens[0], tokens[1], rtol=1e-12, atol=1e-12)
    assert (tokens[0] - tokens[2]).abs().max() > 1e-3
    tokens[0].square().sum().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    parts = [name.removesuffix(".in_proj_weight") for name in layers]
    assert learned == {f"{part}.lora_{x}.default.weight" for part in parts for x in "AB"}
    for name, value in model.state_dict().items():  # not a bit of what is frozen has changed
        if ".lora_" not in name and not name.endswith(".alpha"):
            assert torch.equal(value, kept[name.replace(".base_layer", "")]), name


def test_layers_that_are_read_without_being_called_are_no_targets(clip):
    model = clip(0)
    inside = [n for n, m in model.named_modules() if n.endswith("attn.out_proj")]
    assert inside and not set(inside) & set(adaptable_layers(model))
    said = r"is the whole name of no linear layer; there are .*attn\.in_proj_weight, .*mlp\.c_fc"
    with pytest.raises(ValueError, match=said):
        add_adapters(model, Lora(".*out_proj"))
    with pytest.raises(ValueError, match=r"lora.dropout is 0.1, .*attn\.in_proj_weight"):
        add_adapters(model, Lora(dropout=0.1))
    assert add_adapters(model, Lora(r".*mlp.*", dropout=0.1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": "in_proj"}, "lora.targets 'in_proj' is the whole name of no linear layer"),
        ({"targets": "in_proj("}, "is no regular expression"),
        ({"rank": 0}, "lora.rank is 0; set it from 1 to 256"),
        ({"alpha": 512}, "lora.alpha is 512"),
        ({"dropout": 1.0}, "lora.dropout is 1.0"),
    ],
)
def test_settings_that_cannot_be(make, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        add_adapters(make(), Lora(**settings))


def test_weights_without_adapters_stay_and_broken_adapters_are_refused(make):
    state = make().state_dict()
    assert all(merge_adapters(state)[name] is value for name, value in state.items())
    model = make()
    adapted(model)
    good = model.state_dict()
    name = "video_encoder.layers.0.mixer.in_proj"
    for part in ("alpha", "lora_B.default.weight", "base_layer.weight"):
        with pytest.raises(ValueError, match=rf"{name}: a part of its LoRA is missing"):
            merge_adapters({k: v for k, v in good.items() if k != f"{name}.{part}"})
        with pytest.raises(ValueError, match=rf"{name}: its LoRA has other shapes"):
            merge_adapters(good | {f"{name}.{part}": torch.ones(3, 4, 5)})
