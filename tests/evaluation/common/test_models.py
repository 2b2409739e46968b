"""Other people's models on the same track, with random weights."""

import json

import numpy as np
import pytest
import torch

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.models import Matcher, VmmEncoder, load_encoder
from vmm.models.bert import BertArchitecture
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

CAPTIONS = ["a red circle", "a large blue square moves to the left", "circle"]


@pytest.fixture(scope="module")
def encoder(root):
    torch.manual_seed(0)
    name = str(root / "recipes/encoders/bert_demo")
    vocabulary = json.loads((root / "recipes/encoders/bert_demo/config.json").read_text())
    sizes = BertArchitecture(vocabulary["vocab_size"], 24, 3, 2, 48, 32)
    text = BertTextEncoder(16, name, 1, pretrained=False, architecture=sizes)
    video = VideoMamba(embed_dim=16, depth=1, num_frames=2, image_size=32)
    model = VideoTextModel(video, text, proj_dim=8).eval()
    torch.nn.init.normal_(model.itm_head.weight)
    return VmmEncoder(model, ClipSettings(2, 32), {"encoder": "tiny"})


def test_matching_many_captions_at_once_is_matching_each_alone(encoder, monkeypatch):
    assert isinstance(encoder, Matcher)
    video = torch.randn(2, 2, 3, 32, 32)
    with torch.inference_mode():
        clips, texts = encoder.encode_videos(video), encoder.encode_texts(CAPTIONS)
        lengths = [len(state) for state in texts.states]
        assert len(set(lengths)) == 3
        want = []
        for caption in CAPTIONS:  # the ordinary way: no padding, no sharing
            tokens = encoder.model.text_encoder.tokenize([caption])
            text = encoder.model.encode_text(*tokens)
            fused = encoder.model.fuse(text.tokens, tokens.attention_mask, clips.tokens[1:])
            want.append(encoder.model.match_logits(fused)[0, 1])
        for limit in (4096, 12, 1):  # one batch, several, each alone
            monkeypatch.setattr("vmm.evaluation.common.models._TOKENS_AT_ONCE", limit)
            got = encoder.match(texts.states, clips.tokens[1])
            torch.testing.assert_close(got, torch.stack(want), rtol=1e-5, atol=1e-5)
    assert want[0] != want[1]


def test_keys_and_values_are_projected_once_per_clip(encoder, monkeypatch):
    calls = []
    original = encoder.model.text_encoder.project_vision
    monkeypatch.setattr(
        encoder.model.text_encoder, "project_vision", lambda x: calls.append(x) or original(x)
    )
    monkeypatch.setattr("vmm.evaluation.common.models._TOKENS_AT_ONCE", 1)
    with torch.inference_mode():
        clips = encoder.encode_videos(torch.randn(1, 2, 3, 32, 32))
        encoder.match(encoder.encode_texts(CAPTIONS).states, clips.tokens[0])
    assert [x.shape[0] for x in calls] == [1]


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8,
                       "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2,
                     "layers": 1},
    }  # fmt: skip
    (folder / "tiny-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return load_encoder("open_clip:tiny-test", 3, "cpu")


def test_a_model_config_is_built_with_the_weights_of_a_file(tiny_clip, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    torch.save(tiny_clip._model.state_dict(), tmp_path / "weights.pt")
    whole = {"model_cfg": open_clip.get_model_config("tiny-test"), "preprocess_cfg": {}}
    for name, config in (("own.json", whole["model_cfg"]), ("of_the_hub.json", whole)):
        (tmp_path / name).write_text(json.dumps(config))
        other = load_encoder(f"open_clip:{tmp_path / name}:{tmp_path / 'weights.pt'}", 3, "cpu")
        assert other.identity()["sha256"] == tiny_clip.identity()["sha256"]
        mine, theirs = (one.encode_texts(["a dog"]).projected for one in (tiny_clip, other))
        assert torch.equal(mine, theirs)


def test_a_clip_of_open_clip_is_the_mean_of_its_frames(tiny_clip):
    assert not isinstance(tiny_clip, Matcher)
    assert (tiny_clip.clip.image_size, tiny_clip.clip.num_frames) == (32, 3)
    assert tiny_clip.clip.fit == "crop" and tiny_clip.clip.mean[0] == pytest.approx(
        0.4815, abs=1e-4
    )
    video = torch.randn(2, 3, 3, 32, 32)
    with torch.inference_mode():
        got = tiny_clip.encode_videos(video).projected
        frames = tiny_clip._model.encode_image(video[1])
        texts = tiny_clip.encode_texts(CAPTIONS).projected
    mean = torch.nn.functional.normalize(frames, dim=-1).mean(0)
    torch.testing.assert_close(got[1, 0], mean / mean.norm())
    assert got.shape == (2, 1, 8) and texts.shape == (3, 8)
    # The order of frames is invisible to it.
    with torch.inference_mode():
        torch.testing.assert_close(tiny_clip.encode_videos(video.flip(1)).projected, got)


def test_weights_are_told_apart_by_their_hash(tiny_clip):
    first, again = tiny_clip.identity(), tiny_clip.identity()
    assert first == again and len(first["sha256"]) == 64
    assert first["checkpoint"] == "random weights" and first["parameters"] > 1000
    other = load_encoder("open_clip:tiny-test", 3, "cpu").identity()
    assert other["sha256"] != first["sha256"]


MODULE = '''
import torch
from sentence_transformers.base.modules import InputModule

class Colours(InputModule):
    """A clip is its mean colour, a text its first letters."""

    modalities = ["text", "video"]

    def preprocess(self, inputs, prompt=None, **_):
        if isinstance(inputs[0], str):
            return {"x": torch.tensor([[float(ord(c)) for c in text[:3]] for text in inputs])}
        return {"x": torch.stack([torch.as_tensor(v["video"]).float().mean((0, 1, 2))
                                  for v in inputs])}

    def forward(self, features, **_):
        return {**features, "sentence_embedding": features["x"]}

    def get_embedding_dimension(self):
        return 3

    def save(self, *_, **__):
        pass

    @classmethod
    def load(cls, *_, **__):
        return cls()
'''


@pytest.fixture
def colours(tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = tmp_path / "colours"
    folder.mkdir()
    (folder / "colours.py").write_text(MODULE)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "colours.Colours"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"})
    )
    return folder


def test_a_video_model_of_sentence_transformers(colours):
    encoder = load_encoder(f"sentence-transformers:{colours}", 4, "cpu", trust_remote_code=True)
    assert (encoder.name, encoder.clip.num_frames) == ("colours", 4)
    video = torch.rand(2, 4, 3, 8, 8)
    got = encoder.encode_videos(video).projected
    assert got.shape == (2, 1, 3)
    want = (video * 255).round().mean((1, 3, 4))
    assert np.allclose(got[:, 0], want, rtol=1e-4)
    assert encoder.encode_texts(["abc", "xyz"]).projected[1].tolist() == [120, 121, 122]
    with pytest.raises(ValueError, match="cannot load"):
        load_encoder(f"sentence-transformers:{colours}", 4, "cpu")  # its code is not trusted


def test_a_text_model_is_refused(colours):
    text_only = MODULE.replace('["text", "video"]', '["text"]')
    (colours / "colours.py").write_text(text_only)
    with pytest.raises(ValueError, match="does not encode videos"):
        load_encoder(f"sentence-transformers:{colours}", 4, "cpu", trust_remote_code=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip:ViT-B-32", "is no model; give open_clip:NAME"),
        ("open_clip:", "is no model"),
        ("open_clip:no-such-model", "open_clip cannot build 'no-such-model'.* give a name and"),
        ("open_clip:ViT-B-32:no-such-tag", "open_clip cannot build 'ViT-B-32'.* give a name and"),
        ("sentence-transformers:no/such", "sentence-transformers cannot load"),
    ],
)
def test_unknown_models_are_a_sentence(name, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(name, None, "cpu")


def test_weights_that_cannot_be_fetched_are_not_taken_for_unknown_ones(monkeypatch):
    def create(name, pretrained):
        raise RuntimeError("failed to download")

    monkeypatch.setattr("open_clip.create_model", create)
    with pytest.raises(ValueError, match="failed to download; it knows both: try again with a net"):
        load_encoder("open_clip:ViT-B-32:openai", None, "cpu")
