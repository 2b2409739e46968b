import json

import pytest
import torch

pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")

from tests.models.image_text import CLIP, MODELS, SIGLIP, write_model
from vmm.models.open_clip_text import OpenClipTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

TEXTS = ["a red circle moves to the left", "a blue bar", "a blue bar, " * 20, "Übergröße & more!"]


@pytest.fixture(scope="module", params=MODELS)
def published(request, tmp_path_factory, root):
    """A model of open_clip, its config and its weights."""
    return write_model(request.param, tmp_path_factory.mktemp("published"), root)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, root):
    return write_model("clip", tmp_path_factory.mktemp("clip"), root)


def load(published, **changes):
    encoder = OpenClipTextEncoder(8, published[1], published[2], **changes)
    encoder.load_pretrained()
    return encoder.eval()


def vectors(encoder, texts):
    """What the library model's projection makes of captions, one by one."""
    found, projection = [], encoder.joint_projection()
    for text in texts:
        tokens = encoder.tokenize([text])
        with torch.no_grad():
            pooled = encoder.pool(encoder.encode(tokens), tokens.attention_mask)
        bias = 0 if projection.bias is None else projection.bias
        found.append(pooled @ projection.weight.T + bias)
    return torch.cat(found)


def test_vectors_are_those_of_the_library(published):
    encoder = load(published)
    with torch.no_grad():
        theirs = published[0].encode_text(encoder.tokenizer(TEXTS))
    torch.testing.assert_close(vectors(encoder, TEXTS), theirs, rtol=1e-5, atol=1e-5)
    assert (theirs[0] - theirs[1]).abs().max() > 0.1


def test_tokens_are_those_of_the_library(clip):
    import open_clip

    encoder = load(clip)
    want = open_clip.get_tokenizer("ViT-B-32", context_length=16)(TEXTS)
    ids, mask = encoder.tokenize(TEXTS)
    assert torch.equal(ids, want) and mask.sum(1).tolist() == [9, 5, 16, 12]
    short = encoder.tokenize(TEXTS[:2])
    assert torch.equal(short.input_ids, want[:2, :9])


def test_long_captions_are_cut_where_asked(clip):
    encoder = load(clip, max_words=6)
    ids = encoder.tokenize(TEXTS).input_ids
    assert ids.shape == (4, 6) and (ids[0, -1], ids[2, -1]) == (49407, 49407)
    whole = load(clip)
    torch.testing.assert_close(vectors(encoder, TEXTS[1:2]), vectors(whole, TEXTS[1:2]))


def test_no_captions(clip):
    assert load(clip).tokenize([]).input_ids.shape[0] == 0


def test_gradients_reach_all_of_it(published):
    encoder = load(published).train()
    tokens = encoder.tokenize(TEXTS)
    encoder.pool(encoder.encode(tokens), tokens.attention_mask).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_it_fuses_nothing_and_says_so(clip):
    text = load(clip)
    model = VideoTextModel(VideoMamba(8, 1, 2, 16), text)
    with pytest.raises(ValueError, match="no layer of this text encoder looks at a video"):
        model.fusion.project_vision(torch.zeros(1, 1, 8))


def test_a_moved_folder_is_enough(published, tmp_path, monkeypatch):
    encoder = load(published)
    folder = tmp_path / "files"
    folder.mkdir()
    encoder.save_sources(folder)
    folder = folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    recipe = {"name": "gone.json", "pretrained": "gone.pt", "max_words": None}
    again = OpenClipTextEncoder(8, **OpenClipTextEncoder.arguments_in(folder, recipe))
    assert again.load_pretrained() is None
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.tokenize(TEXTS).input_ids, encoder.tokenize(TEXTS).input_ids)
    torch.testing.assert_close(
        again.encode(again.tokenize(TEXTS)), encoder.encode(encoder.tokenize(TEXTS))
    )
    again.check_vocabulary(folder)


def test_other_words_are_refused(tmp_path, root):
    model = write_model("siglip", tmp_path, root)
    words = (root / "recipes/encoders/bert_demo/vocab.txt").read_text().splitlines()
    other = tmp_path / "other"
    other.mkdir()
    (other / "vocab.txt").write_text("\n".join(words[:5] + words[5:][::-1]))
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    load(model).save_vocabulary(tmp_path)
    with pytest.raises(ValueError, match="other words"):
        load(model, tokenizer=str(other)).check_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ({"hf_model_name": "roberta-base"}, {}, "roberta-base of transformers"),
        ({"embed_cls": True}, {}, "CoCa's text tower is not supported"),
        ({"width": 15}, {}, "open_clip cannot build this tower"),
        ({"tokenizer_kwargs": {"trust_remote_code": True}}, {}, "trust_remote_code"),
        ({"layers": 10**9}, {}, "depth 1000000000 must be 0 to 1000"),
        ({}, {"max_words": 2}, r"max_words 2 is not in 3\.\.16"),
        ({}, {"max_words": 17}, r"max_words 17 is not in 3\.\.16"),
        ({"no_causal_mask": True, "pool_type": "last"}, {"max_words": 8}, "with their padding"),
    ],
)
def test_towers_and_settings_that_are_refused(tmp_path, text, changes, message):
    config = CLIP | {"text_cfg": CLIP["text_cfg"] | text}
    (tmp_path / "clip.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        OpenClipTextEncoder(8, str(tmp_path / "clip.json"), **changes)


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path):
    config = CLIP | {"text_cfg": CLIP["text_cfg"] | {"vocab_size": 512}}
    (tmp_path / "clip.json").write_text(json.dumps(config))
    encoder = OpenClipTextEncoder(8, str(tmp_path / "clip.json"))
    with pytest.raises(ValueError, match=r"gives token 49407, and .* knows only 512"):
        encoder.tokenize(TEXTS)


def test_files_that_are_missing(tmp_path, clip):
    config = SIGLIP | {"text_cfg": SIGLIP["text_cfg"] | {"hf_tokenizer_name": "no/where"}}
    (tmp_path / "siglip.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot read the tokenizer no/where; give the folder"):
        OpenClipTextEncoder(8, str(tmp_path / "siglip.json")).tokenize(TEXTS)
    with pytest.raises(ValueError, match="no weight file"):
        OpenClipTextEncoder(8, clip[1], "nowhere.pt").load_pretrained()
    torch.save({"visual.proj": torch.zeros(1)}, tmp_path / "image.pt")
    with pytest.raises(ValueError, match="has no text tower; name a file of a whole CLIP"):
        OpenClipTextEncoder(8, clip[1], str(tmp_path / "image.pt")).load_pretrained()
