import pytest
import yaml

from tests.models.bag_of_words import BagOfWords
from vmm.models.run_text import TEXT_FILES, keep_text_files, with_own_text
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.runs import build

TEXTS = ["a red circle moves to the left", "a blue bar"]


@pytest.fixture
def recipe(root):
    """Of a run of stage 2; what it names is there."""
    node = {
        "class_path": "vmm.models.text_encoder.BertTextEncoder",
        "init_args": {
            "name": str(root / "recipes/encoders/bert_demo"),
            "fusion_layer": 2,
            "pretrained": True,
            "max_words": 32,
        },
    }
    encoder = yaml.safe_load((root / "recipes/encoders/videomamba_demo.yaml").read_text())
    arguments = {"video_encoder": encoder, "text_encoder": node, "proj_dim": 8}
    return {"model": {"init_args": arguments}, "data": {"init_args": {}}}


def named(config):
    return config["model"]["init_args"]["text_encoder"]["init_args"]


def test_a_bert_is_built_from_its_own_files(recipe, tmp_path):
    encoder = build(recipe, VideoTextModel).text_encoder
    keep_text_files(tmp_path, encoder)
    named(recipe)["name"] = "nowhere"
    own = with_own_text(recipe, tmp_path)
    assert named(own) == named(recipe) | {"name": str(tmp_path / TEXT_FILES), "pretrained": False}
    again = build(own, VideoTextModel).text_encoder
    assert again.architecture == encoder.architecture and again.load_pretrained() is None
    assert again.tokenize(TEXTS).input_ids.tolist() == encoder.tokenize(TEXTS).input_ids.tolist()
    again.check_vocabulary(tmp_path / TEXT_FILES)


def test_runs_without_such_files_are_as_they_were(recipe, tmp_path):
    assert with_own_text(recipe, tmp_path) is recipe
    keep_text_files(tmp_path, BagOfWords(8))
    classifier = {"model": {"init_args": {"num_classes": 3}}}
    assert with_own_text(classifier, tmp_path) is classifier


def test_what_a_killed_process_left_is_no_encoder(recipe, tmp_path, monkeypatch):
    encoder = build(recipe, VideoTextModel).text_encoder

    def stop(self, folder):
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(BertTextEncoder, "save_sources", stop)
    with pytest.raises(KeyboardInterrupt):
        keep_text_files(tmp_path, encoder)
    assert not list(tmp_path.iterdir())


def test_a_foreign_class_of_a_run_is_not_looked_up(recipe, tmp_path):
    keep_text_files(tmp_path, BagOfWords(8))
    recipe["model"]["init_args"]["text_encoder"]["class_path"] = "tests.models.evil.Evil"
    with pytest.raises(ValueError, match=r"names tests\.models\.evil\.Evil, which is no TextEnc"):
        with_own_text(recipe, tmp_path)
