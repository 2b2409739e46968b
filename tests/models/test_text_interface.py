"""What every text encoder must do; a new subclass is tested as soon as it is imported here."""

import pytest
import torch
from torch import nn

from tests.models.bag_of_words import BagOfWords
from vmm.models.answer import AnswerModel
from vmm.models.library_text import LibraryTextEncoder
from vmm.models.lora import Lora, adaptable_layers, add_adapters, merge_adapters
from vmm.models.open_clip_text import OpenClipTextEncoder
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.text_interface import TextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

TEXTS = ["a red circle moves to the left", "a blue bar", "a blue bar " * 20]


@pytest.fixture
def make(root):
    bert = {"name": str(root / "recipes/encoders/bert_demo"), "pretrained": False, "max_words": 16}
    clip = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"width": 16, "heads": 2, "layers": 1}}
    settings = {
        BagOfWords: {},
        BertTextEncoder: {**bert, "fusion_layer": 2},
        LibraryTextEncoder: {**bert, "num_fusion_layers": 1},
        OpenClipTextEncoder: {"architecture": clip, "max_words": 16},
    }
    return lambda kind, **changes: kind(32, **settings[kind] | changes).eval()


def leaves(base):
    below = [kind for child in base.__subclasses__() for kind in leaves(child)]
    return below or [base]


KINDS = leaves(TextEncoder)


def test_all_kinds_are_tested():
    assert {BagOfWords, BertTextEncoder, LibraryTextEncoder, OpenClipTextEncoder} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_tokens(make, kind):
    encoder = make(kind)
    ids, mask = encoder.tokenize(TEXTS)
    assert ids.shape == mask.shape == (3, encoder.max_words) and ids.dtype == torch.int64
    assert ids.min() >= 0 and ids.max() < encoder.vocab_size
    states = encoder.encode(encoder.tokenize(TEXTS))
    assert states.shape == (3, encoder.max_words, encoder.embed_dim)
    assert encoder.pool(states, mask).shape == (3, encoder.embed_dim)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_pooled_the_same_whatever_else_is_in_the_batch(make, kind):
    encoder = make(kind)

    def vector(texts):
        tokens = encoder.tokenize(texts)
        return encoder.pool(encoder.encode(tokens), tokens.attention_mask)

    alone, among = vector(TEXTS[1:2])[0], vector(TEXTS)
    torch.testing.assert_close(alone, among[1])
    assert not torch.allclose(among[0], among[1], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_encoder_is_built_again(make, kind, tmp_path):
    encoder = make(kind)
    stated = encoder.exported_arguments({"embed_dim": 16} if kind is BagOfWords else {})
    encoder.save_vocabulary(tmp_path)
    arguments = kind.arguments_in(tmp_path, stated)
    sizes = arguments.get("architecture")
    if kind is BertTextEncoder:
        arguments["architecture"] = type(encoder.architecture)(**sizes)
    again = kind(32, **arguments)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.tokenize(TEXTS).input_ids, encoder.tokenize(TEXTS).input_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_beside_every_layer_learns_and_merges(make, kind):
    model = nn.ModuleDict({"text_encoder": make(kind)}).double()
    if not adaptable_layers(model):
        with pytest.raises(ValueError, match="is the whole name of no linear layer"):
            add_adapters(model, Lora())
        return
    add_adapters(model, Lora(rank=2))
    ups = {n: p for n, p in model.named_parameters() if "lora_B" in n}
    for up in ups.values():
        nn.init.normal_(up, std=0.1)
    states = model["text_encoder"].encode(model["text_encoder"].tokenize(TEXTS))
    states.square().sum().backward()
    assert any(up.grad is not None for up in ups.values())
    merged = nn.ModuleDict({"text_encoder": make(kind)}).double()
    merged.load_state_dict(merge_adapters(model.state_dict()))
    wanted = merged["text_encoder"].encode(merged["text_encoder"].tokenize(TEXTS))
    torch.testing.assert_close(states, wanted, rtol=1e-10, atol=1e-10)


@pytest.fixture
def video():
    return VideoMamba(embed_dim=32, depth=2, num_frames=4, image_size=32)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (BagOfWords, {}),
        (OpenClipTextEncoder, {}),
        (BertTextEncoder, {"fusion_layer": None}),
        (LibraryTextEncoder, {"num_fusion_layers": 0}),
    ],
)
def test_an_encoder_without_fusion_layers_says_what_it_cannot_do(make, video, kind, changes):
    model = VideoTextModel(video, make(kind, **changes))
    assert not model.text_encoder.fuses
    tokens = model.text_encoder.tokenize(TEXTS)
    text = model.encode_text(*tokens)
    clips = model.encode_video(torch.randn(3, 4, 3, 32, 32))
    similarity = model.similarity(
        model.project_video(clips.pooled), model.project_text(text.pooled)
    )
    assert similarity.shape == (3, 3)
    for ask in (
        lambda: model.fuse(text.tokens, tokens.attention_mask, clips.tokens),
        lambda: model.mlm_logits(text.tokens),
        lambda: model.fusion,
    ):
        with pytest.raises(ValueError, match=r"no layer .* looks at a video; compare the joint"):
            ask()


def test_answers_need_a_bert(make, video):
    with pytest.raises(ValueError, match=r"BagOfWords is none; name vmm\.models\.text_encoder"):
        AnswerModel(video, make(BagOfWords))


@pytest.mark.parametrize("kind", KINDS)
def test_uncut_tokens_are_those_that_are_read(make, kind):
    encoder = make(kind)
    texts = ["A Red, red CIRCLE; it's a circle"]
    whole = encoder.whole_tokens(texts)
    if whole is None:
        assert encoder.check_captions(texts) is None
        return
    assert len(whole[0]) <= encoder.max_words
    assert encoder.tokenize(texts).input_ids[0][: len(whole[0])].tolist() == whole[0]
    assert encoder.check_captions(["a 漢 circle"]).unknown == 1  # no word of this vocabulary
