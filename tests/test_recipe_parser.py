import json

import pytest
import yaml
from jsonargparse import Namespace

from vmm.models.clip_vit import FrameViT
from vmm.recipe_parser import RecipeParser, with_model_configs


def recipe(name, **arguments):
    encoder = Namespace(
        class_path="vmm.models.clip_vit.FrameViT", init_args=Namespace(name=name, **arguments)
    )
    return Namespace(init_args=Namespace(video_encoder=encoder, proj_dim=8, teacher=None))


def test_a_recipe_holds_the_model_config_that_it_names(root, monkeypatch, tmp_path):
    pytest.importorskip("open_clip", reason="the package open-clip-torch is not installed")
    file = root / "recipes/encoders/clip_vit_demo.json"
    settings = recipe(str(file), architecture=None, image_size=64)
    with_model_configs(settings)
    found = settings.init_args.video_encoder.init_args
    assert found.name == "clip_vit_demo" and found.architecture == json.loads(file.read_text())
    monkeypatch.chdir(tmp_path)  # where no recipe is
    assert FrameViT(**vars(found)).embed_dim == 128
    again = settings.clone()
    with_model_configs(again)
    assert again == settings
    found.name = str(root / "recipes/ablations/clip_vit_tiny.json")  # asked for anew
    with_model_configs(settings)
    assert found.architecture != again.init_args.video_encoder.init_args.architecture


def test_other_names_stay(root):
    for settings in (recipe("ViT-B-16", architecture=None), recipe("x.json", image_size=64)):
        before = settings.clone()
        with_model_configs(settings)
        assert settings == before
    with pytest.raises(ValueError, match=r"no model config nowhere\.json"):
        with_model_configs(recipe("nowhere.json", architecture=None))


class Limited:
    def __init__(self, limit: float | int | None = None):
        self.limit = limit


class Holder:
    def __init__(self, inner: Limited):
        self.inner = inner


@pytest.mark.parametrize("value", ["1", "1.0", "0.5", "null"])
def test_whole_numbers_stay_whole_in_whatever_order_a_union_names_its_kinds(value):
    parser = RecipeParser()
    parser.add_class_arguments(Limited, "it")
    parser.add_class_arguments(Holder, "deep")
    name = f"{__name__}.Limited"
    node = f"{{class_path: {name}, init_args: {{limit: {value}}}}}"
    read = parser.parse_args([f"--it.limit={value}", f"--deep.inner={node}"])
    wanted = yaml.safe_load(value)
    for found in (read.it.limit, read.deep.inner.init_args.limit):
        assert found == wanted and type(found) is type(wanted)
