"""A run in another place, where nothing is left of what its recipe named."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from tests.models.library_towers import WORDS, write_tokenizer, write_tower
from vmm import VideoTextEncoder
from vmm.cli import main
from vmm.runs import load_run

TEXTS = ["a red circle moves to the left", "a blue bar grows"]


@pytest.fixture(scope="module")
def place(root, demo_shards, tmp_path_factory):
    """Folder of a recipe with a tower of transformers, and of the run of two steps."""
    folder = tmp_path_factory.mktemp("place")
    recipe = yaml.safe_load((root / "recipes/stage2_vtt.yaml").read_text())
    recipe["model"]["init_args"] |= {
        "video_encoder": str(root / "recipes/encoders/videomamba_demo.yaml"),
        "text_encoder": {
            "class_path": "vmm.models.library_text.LibraryTextEncoder",
            "init_args": {
                "name": str(write_tower(folder / "tower")),
                "num_fusion_layers": 1,
                "pooling": "mean",
                "max_words": 20,
            },
        },
    }
    recipe["trainer"]["logger"]["init_args"] |= {"save_dir": str(folder), "version": "run"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["fit", *options(root, demo_shards, folder / "recipe.yaml")]) == 0
    return folder


def options(root, demo_shards, recipe):
    overlay = root / "recipes/overlays/debug.yaml"
    return ["-c", str(recipe), "-c", str(overlay), *demo_shards.options()]


@pytest.fixture(scope="module")
def vectors(place):
    """What the run says where it was made."""
    return text_vectors(place / "stage2_vtt/run")


@pytest.fixture(scope="module")
def moved(place, vectors, tmp_path_factory):
    """The same run elsewhere; the recipe's tower is gone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.move(place / "stage2_vtt/run", folder / "run")
    shutil.move(place / "tower", folder / "tower-of-old")
    return folder / "run"


@torch.no_grad()
def text_vectors(run):
    model = load_run(run, "last").model
    text = model.encode_text(*model.text_encoder.tokenize(TEXTS))
    return torch.nn.functional.normalize(model.project_text(text.pooled)).numpy()


def recipe_of(moved, **changes):
    """The run's recipe, with its own place as the one where runs are."""
    recipe = yaml.safe_load((moved / "config.yaml").read_text())
    recipe["trainer"]["logger"]["init_args"] |= {
        "save_dir": str(moved.parent.parent),
        "name": moved.parent.name,
    }
    recipe["model"]["init_args"]["text_encoder"]["init_args"] |= changes
    path = moved.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_it_says_the_same(moved, vectors):
    assert np.array_equal(text_vectors(moved), vectors)


def test_it_is_exported_and_described(moved, vectors, tmp_path, capfd):
    assert main(["export", str(moved), str(tmp_path / "folder")]) == 0
    encoder = VideoTextEncoder.from_pretrained(tmp_path / "folder", device="cpu", tune=False)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), vectors, atol=1e-6)
    capfd.readouterr()
    assert main(["summary", str(moved), "--json"]) == 0
    parts = json.loads(capfd.readouterr().out)["parameters"]["parts"]
    assert parts["text_encoder"] == sum(p.numel() for p in encoder.model.text_encoder.parameters())


def test_it_goes_on_in_its_place(moved, root, demo_shards):
    recipe = recipe_of(moved)
    before = sorted(file.name for file in (moved / "text_encoder").iterdir())
    asked = [*options(root, demo_shards, recipe), "--trainer.max_epochs=2", "--resume"]
    assert main(["fit", *asked]) == 0
    state = torch.load(moved / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    named = yaml.safe_load((moved / "config.yaml").read_text())["model"]["init_args"]
    assert named["text_encoder"]["init_args"]["name"].endswith("/tower")  # as it was asked for
    assert sorted(file.name for file in (moved / "text_encoder").iterdir()) == before
    asked = [*options(root, demo_shards, recipe), "--trainer.logger.init_args.version=seen"]
    assert main(["validate", *asked, "--ckpt_path", str(moved)]) == 0


def test_another_tokenizer_is_refused(moved, root, demo_shards, capfd):
    other = write_tower(moved.parent / "other")
    write_tokenizer(other, WORDS[::-1])
    recipe = recipe_of(moved, name=str(other))
    for asked in (["--resume"], ["--model.init_args.init_from", str(moved)]):
        version = "run" if asked == ["--resume"] else "new"
        asked = [*asked, f"--trainer.logger.init_args.version={version}", "--trainer.max_epochs=9"]
        assert main(["fit", *options(root, demo_shards, recipe), *asked]) == 2
        said = capfd.readouterr().err.strip().splitlines()[-1]
        assert "another vocabulary than the one in" in said and "token 5 is 'large'" in said


def test_without_its_own_files_it_looks_where_its_recipe_says(moved, vectors, tmp_path):
    shutil.copytree(moved, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/text_encoder")
    with pytest.raises(ValueError, match=r"text encoder .*looked for from /.*\)"):
        load_run(tmp_path / "run", "last")
    recipe = recipe_of(moved, name=str(moved.parent / "tower-of-old"))
    shutil.copy(recipe, tmp_path / "run/config.yaml")
    assert np.array_equal(text_vectors(tmp_path / "run"), text_vectors(moved))
