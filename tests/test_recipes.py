"""Every recipe and overlay parses against the signatures; the runnable ones run two steps."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from vmm.cli import main

ROOT = Path(__file__).parent.parent
RECIPES = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("recipes/demo/*.yaml")])
OVERLAYS = sorted(ROOT.glob("recipes/overlays/*.yaml"))
ENCODERS = sorted(ROOT.glob("recipes/encoders/*.yaml"))
STAGE1_ONLY = {"videomamba_m_k400"}
NEEDS = {"deepspeed_zero2": "deepspeed"}


def name(path):
    return path.stem


def test_all_recipes_are_found():
    assert len(RECIPES) == 5 and len(OVERLAYS) == 8 and len(ENCODERS) == 5


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(capsys, *recipes):
    args = [part for recipe in recipes for part in ("-c", str(recipe))]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args, "--print_config"])
    output = capsys.readouterr()
    assert stop.value.code == 0, output.err
    return yaml.safe_load(output.out)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name)
def test_overlay_changes_what_it_says(overlay, in_root, capsys):
    base = "stage1_mvp" if overlay.stem in STAGE1_ONLY else "stage2_vtt"
    merged = parse(capsys, ROOT / f"recipes/{base}.yaml", overlay)

    def check(wanted, found, path):
        for key, value in wanted.items():
            if isinstance(value, dict) and isinstance(found[key], dict):
                check(value, found[key], f"{path}.{key}")
            else:
                assert found[key] == value, f"{path}.{key}"

    check(yaml.safe_load(overlay.read_text()), merged, overlay.stem)


@pytest.mark.parametrize(
    ("overlay", "base"), [("videomamba_m_k400", "stage1_mvp"), ("videomamba_m_5m", "stage2_vtt")]
)
def test_scale_overlays_leave_nothing_of_the_demo_in_the_encoder(overlay, base, in_root, capsys):
    found = parse(capsys, ROOT / f"recipes/{base}.yaml", ROOT / f"recipes/overlays/{overlay}.yaml")[
        "model"
    ]["init_args"]["video_encoder"]
    middle = yaml.safe_load((ROOT / "recipes/encoders/videomamba_middle.yaml").read_text())
    assert found.pop("class_path") == middle["class_path"]
    assert found["init_args"] | {"drop_path_rate": 0.0} == middle["init_args"]


@pytest.mark.parametrize("encoder", ENCODERS, ids=name)
def test_encoder_file_states_every_argument(encoder):
    node = yaml.safe_load(encoder.read_text())
    module, _, cls = node["class_path"].rpartition(".")
    parameters = set(inspect.signature(getattr(import_module(module), cls)).parameters)
    assert set(node["init_args"]) == parameters


def answers_of(recipe, demo_shards):
    if recipe.stem != "answer_qa":
        return []
    return [f"--model.init_args.answers={demo_shards.folder}/answers.json"]


@pytest.mark.smoke
@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_recipe_trains_two_steps(recipe, in_root, demo_shards, tmp_path):
    code = main(
        [
            "fit",
            "-c",
            str(recipe),
            "-c",
            str(ROOT / "recipes/overlays/debug.yaml"),
            *demo_shards.options(images=recipe.stem not in ("stage1_mvp", "answer_qa")),
            *answers_of(recipe, demo_shards),
            f"--trainer.logger.init_args.save_dir={tmp_path}",
            "--trainer.logger.init_args.version=run",
        ]
    )
    assert code == 0
    run = next(tmp_path.glob("*/run"))
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert (run / "config.yaml").is_file()
    rows = (run / "metrics.csv").read_text().splitlines()
    assert "train/loss" in rows[0] and len(rows) >= 3


@pytest.mark.smoke
def test_the_published_settings_train_two_steps(in_root, demo_shards, tmp_path):
    """Weights, gradients and moments in bfloat16, on the CPU."""
    overlays = [ROOT / f"recipes/overlays/{overlay}.yaml" for overlay in ("as_published", "debug")]
    code = main(
        [
            "fit",
            *("-c", str(ROOT / "recipes/stage2_vtt.yaml")),
            *(part for overlay in overlays for part in ("-c", str(overlay))),
            *demo_shards.options(images=True),
            f"--trainer.logger.init_args.save_dir={tmp_path}",
            "--trainer.logger.init_args.version=run",
        ]
    )
    assert code == 0
    checkpoint = next(tmp_path.glob("*/run/checkpoints/last.ckpt"))
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert all(value.isfinite().all() for value in weights.values())
