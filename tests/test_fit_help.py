import subprocess
import sys

import pytest

from vmm.cli import main
from vmm.fit_help import PLAIN, SETTINGS, asked_for, page
from vmm.recipe_files import read_recipes

VALUES = {
    "model.video_encoder": "encoders/joint_vit_demo.yaml",
    "model.init_from": "run",
    "trainer.logger.name": "mine",
    "trainer.logger.version": "one",
    "trainer.precision": "16-mixed",
    "ckpt_path": "best",
}
"""What settings may be that are no numbers."""


def test_every_setting_of_the_page_is_one(capsys):
    valued = [setting.name for setting in SETTINGS if setting.name != "resume"]
    told = ["--resume", *(f"--{name}={VALUES.get(name, 3)}" for name in valued)]
    with pytest.raises(SystemExit) as stop:
        main(["fit", "stage2_vtt.yaml", *told, "--print_config"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "class_path: vmm.models.video_vit.JointViT" in shown and "version: one" in shown
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help", "all"])
    whole = capsys.readouterr().out
    assert stop.value.code == 0 and all(f" --{name}" in whole for name in PLAIN)


def test_it_is_one_screen_that_says_how_to_see_more():
    text = page("fit", [])
    lines = text.splitlines()
    assert len(lines) < 45 and max(map(len, lines)) <= 100
    assert lines[0].startswith("usage: vmm fit RECIPE.yaml")
    for word in ("stage2_vtt.yaml", "ema.yaml", "--help data", "--help all", "--print_config"):
        assert word in text
    assert "--trainer.max_epochs" in text and "--trainer.max_epochs" not in page("validate", [])


def test_values_of_the_recipes_of_the_command_are_shown():
    text = page("fit", read_recipes(["stage2_vtt.yaml", "-c", "overlays/fsdp2.yaml"]))
    assert "clips per step and process [64]" in text and "learning rate [0.003]" in text
    assert "auto = all of this machine [auto]" in text  # of the overlay
    assert "[64]" not in page("fit", [])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("a.yaml --help", ""),
        ("-h", ""),
        ("--help a.yaml", ""),
        ("--help -c a.yaml", ""),
        ("--help data.batch_size", "data.batch_size"),
        ("a.yaml --help=mask_ratio", "mask_ratio"),
        ("--help --model.proj_dim=3", "model.proj_dim"),
        ("a.yaml --model.help X", None),
        ("a.yaml", None),
    ],
)
def test_what_help_is_asked_for(words, asked):
    assert asked_for(words.split()) == asked


def test_it_comes_without_torch():
    code = (
        "import sys; from vmm.cli import main\n"
        "for command in ('fit', 'validate', 'test', 'predict'):\n"
        "    assert main([command, 'stage2_vtt.yaml', '--help']) == 0\n"
        "assert not {'torch', 'lightning', 'jsonargparse', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: vmm {c} " in done.stdout for c in ("fit", "validate", "test", "predict"))


def test_help_for_a_wrong_recipe_says_so(capsys):
    assert main(["fit", "stage2_vt.yaml", "--help"]) == 2
    assert "did you mean stage2_vtt.yaml?" in capsys.readouterr().err
