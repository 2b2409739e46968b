"""Misspelt settings are told before torch is loaded, and no other one is refused."""

import re
import subprocess
import sys
from importlib import import_module

import pytest

from vmm.recipe_files import prepared
from vmm.setting_names import parameters, refuse_misspelt

S2 = "stage2_vtt.yaml"


def check(*words):
    refuse_misspelt(prepared(words))


@pytest.mark.parametrize(
    ("words", "setting", "near"),
    [
        ("--model.init_args.proj_dmi 3", "model.init_args.proj_dmi", "proj_dim"),
        ("--model.proj_dmi=3", "model.init_args.proj_dmi", "proj_dim"),
        ("--data.batch_sise 3", "data.init_args.batch_sise", "batch_size"),
        ("--model.video_encoder.dept 3", "model.init_args.video_encoder.init_args.dept", "depth"),
        ("--trainer.max_epoch 3", "trainer.max_epoch", "trainer.max_epochs"),
        ("own.yaml", "model.init_args.proj_dmi", "proj_dim"),
        ("trainer.yaml", "trainer.max_epoch", "trainer.max_epochs"),
    ],
)
def test_a_misspelt_setting_is_told(words, setting, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("model: {init_args: {proj_dmi: 3}}")
    (tmp_path / "trainer.yaml").write_text("trainer: {max_epoch: 3}")
    with pytest.raises(ValueError) as error:
        check(S2, *words.split())
    assert str(error.value) == f"there is no setting {setting}; did you mean {near!r}?"


@pytest.mark.parametrize(
    "words",
    [
        "--model.loss_weights.vtm 0 --model.init_args.optimizer.lr 1 --data.num_workers=0",
        "--model.video_encoder vmm.models.video_vit.JointViT --model.video_encoder.mlp_ratio 4",
        "--model somebody.elses.Task --model.init_args.proj_dmi 3 --print_config --ema.decay 0.9",
        "--trainer.callbacks+=X --data.init_args.train_videos.mine.shards x.tar",
        "--trainer.logger.version 3 --model.dict_kwargs.proj_dmi 3",
    ],
)
def test_what_may_be_meant_is_not_refused(words):
    check(S2, *words.split())


def test_no_recipe_of_ours_is_refused(root):
    whole = [*root.glob("recipes/*.yaml"), *root.glob("recipes/demo/*.yaml")]
    for overlay in [*root.glob("recipes/overlays/*.yaml"), *root.glob("recipes/published/*.yaml")]:
        check(S2, str(overlay))
    for recipe in whole:
        if "class_path: vmm.tasks" in recipe.read_text():
            check(str(recipe))
    assert len(whole) > 5


def test_the_source_tells_what_the_class_tells(root):
    from vmm.recipe_parser import _parameters

    found = {"lightning.pytorch.trainer.trainer.Trainer"}
    for recipe in (root / "recipes").rglob("*.yaml"):
        found |= set(re.findall(r"class_path: *(vmm[\w.]+)", recipe.read_text()))
    assert len(found) > 15
    for name in found:
        module, _, own = name.rpartition(".")
        taken = set(_parameters(getattr(import_module(module), own)))
        assert parameters(name) == taken - {"shared", "args", "kwargs"}, name


def test_nothing_heavy_is_loaded_for_it():
    code = (
        f"import sys; from vmm.cli import main\nstatus = main(['fit', '{S2}', '--model.lrr', '1',"
        "'--model.proj_dmi', '3'])\n"
        "heavy = {'torch', 'numpy', 'lightning', 'jsonargparse'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}, status {status}' if heavy or status != 2 else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "there is no setting model.init_args.proj_dmi" in result.stderr
