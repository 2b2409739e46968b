import os
import shutil
import subprocess
import sys

import pytest

from vmm.data.annotations.class_list import read_class_names
from vmm.models.clip_tower import read_config
from vmm.models.library_files import read_configuration
from vmm.models.library_files import read_tokenizer as read_library_tokenizer
from vmm.recipe_files import (
    PACKAGED,
    did_you_mean,
    here_or_packaged,
    prepared,
    refuse_no_steps,
)
from vmm.shards.tokenizer_folder import read_tokenizer


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_vmm_brings_are_the_recipes_of_the_checkout(root):
    ours = {path.relative_to(PACKAGED) for path in PACKAGED.rglob("*") if path.is_file()}
    assert ours == {
        path.relative_to(root / "recipes")
        for path in (root / "recipes").rglob("*")
        if path.is_file()
    }


def test_recipes_are_found_where_git_writes_links_as_text_files(root, tmp_path):
    clone = tmp_path / "clone"  # as Git makes it with core.symlinks=false
    (clone / "vmm").mkdir(parents=True)
    shutil.copy(root / "vmm/recipe_files.py", clone / "vmm")
    shutil.copytree(root / "recipes", clone / "recipes")
    (clone / "vmm/recipes").write_text(os.readlink(root / "vmm/recipes"))
    code = (
        "import recipe_files as r\n"
        "print(r.here_or_packaged('stage2_vtt.yaml'), r.did_you_mean('stage2_vt.yaml'), sep='|')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(clone / "vmm")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    recipe = (clone / "recipes/stage2_vtt.yaml").resolve()
    found = f"{recipe}|; did you mean stage2_vtt.yaml?\n"
    assert (done.stdout, done.stderr) == (found, "")


@pytest.mark.parametrize("name", ["stage2_vtt.yaml", "recipes/stage2_vtt.yaml"])
def test_the_working_folder_wins(here, name):
    assert here_or_packaged(name) == str(PACKAGED / "stage2_vtt.yaml")
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).touch()
    assert here_or_packaged(name) == name


@pytest.mark.parametrize("name", ["bert-base-uncased", "google/bert", "nowhere.yaml", ""])
def test_names_of_nothing_here_stay(here, name):
    assert here_or_packaged(name) == name


def test_what_recipes_name_is_read_where_they_are_not(here):
    assert read_class_names("recipes/demo/motions.txt")[0] == "left"
    assert read_config("recipes/encoders/clip_vit_demo.json")["embed_dim"] == 64
    folder = "recipes/encoders/bert_demo"
    assert read_configuration(folder, "it").model_type == "bert"
    ids = read_library_tokenizer(folder, 1000)(["a dot moves up"])["input_ids"]
    assert read_tokenizer(folder)(["a dot moves up"]) == ids


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stage2_vt.yaml", "stage2_vtt.yaml"),
        ("ema.yaml", "overlays/ema.yaml"),
        ("recipes/overlay/ema.yaml", "overlays/ema.yaml"),
        ("mine/my_recpe.yaml", "mine/my_recipe.yaml"),
        ("encoders/videomamba_dmo.yaml", "encoders/videomamba_demo.yaml"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(here, typed, meant):
    (here / "mine").mkdir()
    (here / "mine/my_recipe.yaml").touch()
    assert did_you_mean(typed) == f"; did you mean {meant}?"
    with pytest.raises(ValueError, match=f"does not exist; did you mean {meant}"):
        prepared(["fit", "-c", typed])


def test_far_from_everything_there_is_no_guess(here):
    assert did_you_mean("zzzzzzzzzzzz.yaml") == ""
    assert did_you_mean("own.yaml") == ""  # though wandb.yaml ends alike
    with pytest.raises(ValueError, match=r"does not exist; name a YAML file, e\.g\. stage2_vtt"):
        prepared(["fit", "-c", "zzzzzzzzzzzz.yaml"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--steps", "trainer.max_steps"), ("--batch-size=4", "data.init_args.batch_size")],
)
def test_an_option_of_another_program_is_known(here, typed, meant):
    with pytest.raises(ValueError, match=rf"no option {typed[:7]}.*; did you mean '{meant}'\?"):
        prepared(["fit", "-c", "stage2_vtt.yaml", typed, "3"])
    for value in ("lr", "a_seed"):
        assert prepared(["fit", "-c", "stage2_vtt.yaml", "--model.name", value])[-1] == value


def test_a_value_may_be_called_as_an_option_of_another_program(here):
    words = ["fit", "-c", "stage2_vtt.yaml", "--trainer.logger.init_args.name", "steps"]
    assert prepared(words)[-1] == "steps"


def test_a_recipe_needs_no_flag(here):
    recipe, overlay = (str(PACKAGED / name) for name in ("stage2_vtt.yaml", "overlays/ema.yaml"))
    wanted = ["fit", "-c", recipe, "-c", overlay]
    for words in (
        "stage2_vtt.yaml overlays/ema.yaml",
        "stage2_vtt.yaml -c overlays/ema.yaml",
        "--config=stage2_vtt.yaml --config overlays/ema.yaml",
        "-c=stage2_vtt.yaml recipes/overlays/ema.yaml",
    ):
        found = prepared(["fit", *words.split()])
        assert ["-c" if word == "--config" else word for word in found] == wanted
    assert prepared(wanted) == wanted  # done twice is done once
    tail = ["--resume", "overlays/ema.yaml"]
    assert prepared(["fit", "stage2_vtt.yaml", *tail])[3:] == ["--resume", "-c", overlay]


def test_files_of_settings_are_found_too(here):
    encoder, option = "encoders/joint_vit_demo.yaml", "--model.init_args.video_encoder"
    for words in ([option, encoder], [f"{option}={encoder}"]):
        found = prepared(["fit", "stage2_vtt.yaml", "--model.proj_dim=8", *words])
        assert " ".join(found[4:]).replace("=", " ") == f"{option} {PACKAGED / encoder}"


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MISTAKES = {
    "a: [1\n": r"it\.yaml is no valid YAML, line 2, column 1",
    "a: 1\nb: }\n": r"no valid YAML, line 2, column 4",
    "model: [1]": "no recipe here names a model",
    "a: &a [*a]": "it.yaml is a part of itself",
    "model: it.yaml": "it.yaml is a part of itself",
    BOMB: "it.yaml stands for more than 100,000 values by its aliases",
    "model: {class_path: vmm.tasks.video_text.VideoTextTsk}": "model.class_path: there is no "
    "class VideoTextTsk in vmm.tasks.video_text; did you mean vmm.tasks.video_text.VideoTextTask",
    "model: {class_path: vmm.tasks.video_txt.VideoTextTask}": "there is no module "
    "vmm.tasks.video_txt; did you mean vmm.tasks.video_text.VideoTextTask",
    "model: {class_path: 3}": "model.class_path: 3 is no class; give its name, e.g. vmm",
    "model: {class_path: x.Y, init_args: {video_encoder: {class_path: }}}": "it.yaml, "
    "model.init_args.video_encoder.class_path: None is no class",
    "model: {class_path: [x.Y]}": r"model.class_path: \['x.Y'\] is no class",
    "model: {class_path: x.Y, init_args: [1]}": r"model.init_args: \[1\] are no settings",
    "model: {init_args: {video_encoder: encoders/mamba.yaml}}": "model.init_args.video_encoder: "
    "there is no file encoders/mamba.yaml",
    "model: {class_path: x.Y, init_args: {video_encoder: own.yaml}}": "own.yaml is no valid YAML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_what_is_wrong_with_a_recipe_is_said_before_it_is_built(here, text):
    (here / "it.yaml").write_text(text)
    (here / "own.yaml").write_text("class_path: [\n")
    with pytest.raises(ValueError, match=MISTAKES[text]):
        prepared(["fit", "-c", "it.yaml"])


def test_what_may_be_right_is_left_to_the_parser(here):
    (here / "it.yaml").write_text(
        "model: {class_path: mine.Task, init_args: {video_encoder: VideoMamba, name: a.yaml}}"
    )
    assert prepared(["fit", "it.yaml"]) == ["fit", "-c", "it.yaml"]
    assert prepared(["fit", "--model", "mine.Task"]) == ["fit", "--model", "mine.Task"]


def test_words_that_are_no_recipe_are_named(here):
    (here / "run").mkdir()
    (here / "run" / "config.yaml").touch()
    for words, said in (
        ([], "; name one, e.g. -c stage2_vtt.yaml"),
        (["run"], "; run is a folder; name run/config.yaml"),
        (["stage2"], "; stage2 is none, as they end in .yaml"),
        (["--nope", "it.yaml"], "; it.yaml stands where the value of --nope does, so put recipes"),
        (["--seed_everything", "3"], "; name one, e.g. -c stage2_vtt.yaml"),
    ):
        with pytest.raises(ValueError, match=f"^there is no recipe{said}"):
            prepared(["fit", *words])


def test_settings_of_data_that_nothing_names_are_explained(here):
    (here / "it.yaml").write_text("model: {class_path: mine.Task}")
    words = ["fit", "it.yaml", "--data.batch_size=3"]
    with pytest.raises(ValueError, match=r"no recipe here names data, so --data\.batch_size"):
        prepared(words)
    assert prepared([*words, "--data=vmm.data.datamodules.WebVideoData"])
    (here / "it.yaml").write_text("model: {class_path: mine.Task}\ndata: {class_path: mine.Data}")
    assert prepared(words)


@pytest.mark.parametrize("words", [["--trainer.max_steps", "0"], ["--trainer.max_epochs=0"]])
def test_no_steps_are_refused_without_torch(words):
    code = (
        "import sys; from vmm.cli import main; "
        f"status = main(['fit', 'stage2_vtt.yaml', *{words}]); "
        "assert not {'torch', 'lightning', 'jsonargparse', 'numpy'} & set(sys.modules);"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    setting = words[0].lstrip("-").partition("=")[0]
    assert done.returncode == 2
    said = f"vmm: error: {setting} is 0, so there is nothing to do; set it above 0\n"
    assert done.stderr == said


def test_only_settings_that_end_a_training_must_be_above_0():
    refuse_no_steps(["--trainer.max_steps=10", "--trainer.max_epochs", "-1", "--seed", "0"])


def test_a_wrong_recipe_is_found_without_torch(here):
    code = (
        "import sys; from vmm.cli import main; status = main(['fit', '-c', 'stage2_vt.yaml']);"
        "assert not {'torch', 'lightning', 'jsonargparse', 'numpy'} & set(sys.modules);"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    said = "vmm: error: the recipe stage2_vt.yaml does not exist; did you mean stage2_vtt.yaml?\n"
    assert done.stderr == said
