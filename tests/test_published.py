"""Every published run has its recipe, which says what was published and trains."""

import csv
import json
import math
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.data.conftest import write_tar
from vmm.cli import main
from vmm.models.videomamba import VideoMamba
from vmm.shards.encode import encode_jpeg

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "recipes/published"
ROWS = json.loads((Path(__file__).parent / "published_rows.json").read_text())
"""Folder and run -> its recipes, bottom to top, and the figures of the published tables."""

RUNS = {
    "imagenet": 10, "stage1": 2, "k400": 20, "ssv2": 12, "breakfast": 8, "coin": 8, "lvu": 9,
    "stage2": 6, "finetuning": 11,
}  # fmt: skip


MIXING = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 1.0, "switch_prob": 0.5}


def merged(row):
    """The settings of a stack of recipes, encoder files read."""
    settings = {}
    for file in ROWS[row]["stack"]:
        settings = lay_over(settings, yaml.safe_load((ROOT / file).read_text()))
    return settings


def lay_over(below, above):
    if isinstance(below, str) and below.startswith("encoders/"):
        below = yaml.safe_load((ROOT / "recipes" / below).read_text())
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: lay_over(below.get(key), value) for key, value in above.items()}


def test_every_published_run_has_a_recipe_and_every_recipe_a_run():
    assert Counter(row.partition("/")[0] for row in ROWS) == RUNS
    stacked = {file for row in ROWS.values() for file in row["stack"]}
    assert stacked >= {str(p.relative_to(ROOT)) for p in PUBLISHED.rglob("*.yaml")}
    assert len({tuple(row["stack"]) for row in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_recipe_says_what_was_published(row):
    settings, wanted = merged(row), ROWS[row]
    trainer, model, data = (settings[part] for part in ("trainer", "model", "data"))
    model, data = model["init_args"], data["init_args"]
    processes = wanted.get("processes") or trainer["devices"] * trainer["num_nodes"]
    batch = processes * data["batch_size"] * trainer.get("accumulate_grad_batches", 1)
    encoder = model["video_encoder"]["init_args"]
    found = {
        "batch": batch,
        "epochs": trainer["max_epochs"],
        "lr": model["optimizer"]["init_args"]["lr"],
        "weight_decay": model.get("weight_decay", 0.05),
        "layer_decay": model.get("layer_decay", 1.0),
        "max_words": model.get("text_encoder", {}).get("init_args", {}).get("max_words"),
    } | {name: encoder[name] for name in ("embed_dim", "depth", "num_frames", "image_size")}
    found["drop_path_rate"] = encoder["drop_path_rate"]
    found["views"] = [*data.get("test_views", {}).values()]
    for name, value in found.items():
        if name in wanted:
            assert value == pytest.approx(wanted[name], rel=1e-3), name
    assert found.keys() - wanted.keys() <= {"layer_decay", "max_words", "views"}
    if "views" in wanted:  # a classifier of videos
        shared_settings(row, model, data)
    if "warmup_epochs" in wanted:
        steps = wanted.get("steps_per_epoch") or wanted.get("train_size", 0) // batch
        assert model["warmup_steps"] == pytest.approx(wanted["warmup_epochs"] * steps, rel=2e-3)
    assert encoder_of(json.dumps(encoder)).num_frames == wanted["num_frames"]


def shared_settings(row, model, data):
    """What all published runs on videos share, and where sets differ."""
    named = row.startswith("ssv2")
    number = row in ("lvu/like", "lvu/views")
    small = model["video_encoder"]["init_args"]["embed_dim"] == 192
    wanted = {
        "sampling": "random_ssv2" if named else "random_finetune",
        "auto_augment": f"rand-m{5 if small else 7}-n{2 if small else 4}-mstd"
        f"{0.25 if small else 0.5}-inc1",
        "crop_scale": [0.08, 1.0],
        "flip": not named,
        "flip_sided": not named,
        "random_erasing": 0.25,
        "aug_repeats": 2,
        "fit": "crop",
        "interpolation": "bilinear",
        "antialias": False,
    }
    assert {name: data[name] for name in wanted} == wanted
    mixing = MIXING | ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0} if number else {})
    assert model["mixing"] == mixing and model["label_smoothing"] == (0.0 if number else 0.1)
    assert (model["decay_policy"], model["layer_decay_policy"]) == ("reference_stage1", "published")


@lru_cache
def encoder_of(settings):
    with torch.device("meta"):
        return VideoMamba(**json.loads(settings))


# What of a run cannot be had on two CPU cores without a network; all else is as it stands.
SMALL = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 32}
SMALL_IMAGE = SMALL | {"num_frames": 1}
SMALL_TEXT = {
    "name": "recipes/encoders/bert_demo",
    "fusion_layer": 2,
    "pretrained": False,
    "max_words": 32,
}
SMALL_TEACHER = {
    "name": "recipes/encoders/clip_vit_demo.json",
    "pretrained": None,
    "image_size": 32,
}
LABELS = {
    "model": {"num_classes": 8, "classes": "recipes/demo/motions.txt"},
    "data": {"label_field": "attributes.motion"},
}
FAMILIES = {
    "imagenet/middle_224": (
        {"video_encoder": SMALL_IMAGE, "teacher": SMALL_IMAGE | {"embed_dim": 16}},
        LABELS,
    ),
    "stage1/ssv2": ({"video_encoder": SMALL, "teacher": SMALL_TEACHER}, {}),
    "k400/middle_pretrained_f64_384": ({"video_encoder": SMALL}, LABELS),
    "lvu/scene": ({"video_encoder": SMALL}, LABELS),
    "stage2/17m": (
        {"video_encoder": SMALL, "teacher": SMALL_TEACHER, "text_encoder": SMALL_TEXT},
        {},
    ),
    "stage2/25m_unmasked": ({"video_encoder": SMALL, "text_encoder": SMALL_TEXT}, {}),
    "finetuning/didemo": ({"video_encoder": SMALL, "text_encoder": SMALL_TEXT}, {}),
    "finetuning/msvd_qa": ({"video_encoder": SMALL, "text_encoder": SMALL_TEXT}, {}),
}


@pytest.fixture(scope="module")
def labelled_stills(tmp_path_factory):
    members = []
    for key in range(8):
        still = encode_jpeg(np.full((40, 40, 3), 30 * key, np.uint8))
        label = json.dumps({"attributes": {"motion": "left"}}).encode()
        members += [(f"{key}.jpg", still), (f"{key}.json", label)]  # captions are not needed
    path = tmp_path_factory.mktemp("stills") / "stills.tar"
    write_tar(path, members)
    return str(path)


@pytest.mark.parametrize("row", FAMILIES)
def test_a_run_of_each_kind_trains_two_steps(
    row, demo_shards, labelled_stills, monkeypatch, tmp_path
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("VMM_DATA", str(tmp_path))
    parts, labels = FAMILIES[row]
    model = {name: {"init_args": values} for name, values in parts.items()}
    media = "images" if row.startswith("imagenet") else "videos"
    data = {
        f"{split}_{media}": labelled_stills
        if media == "images"
        else f"{demo_shards.folder}/{split}-*.tar"
        for split in ("train", "val")
    }
    data[f"test_{media}"] = None
    if row.startswith("stage2"):
        data["train_images"] = {"stills": {"shards": f"{demo_shards.folder}/images-*.tar"}}
    if row.endswith("_qa"):
        model["answers"] = f"{demo_shards.folder}/answers.json"
    changes = tmp_path / "changes.yaml"
    trainer = {"max_epochs": 1, "devices": 1, "num_nodes": 1, "accumulate_grad_batches": 1}
    settings = {
        "trainer": trainer,
        "model": {"init_args": model | labels.get("model", {})},
        "data": {"init_args": data | labels.get("data", {})},
    }
    changes.write_text(yaml.safe_dump(settings))
    files = [*ROWS[row]["stack"], "recipes/overlays/debug.yaml", str(changes)]
    logger = "--trainer.logger.init_args"
    where = [f"{logger}.save_dir={tmp_path}", f"{logger}.version=run"]
    assert main(["fit", *(word for file in files for word in ("-c", file)), *where]) == 0
    (run,) = tmp_path.glob("*/run")
    with (run / "metrics.csv").open() as file:
        losses = [float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
