"""Films of three colours to learn from, and others to test on."""

import json

import numpy as np
import pytest

from tests.data.videos import encode_video
from vmm.evaluation.probe.results import ProbeResult
from vmm.shards.tars import write_shard

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 50), "blue": (50, 50, 200)}


def film(colour, number):
    """A film of a colour, unlike all others of another number."""
    rng = np.random.default_rng(number)
    picture = np.full((2, 32, 32, 3), COLOURS[colour]) + rng.integers(-40, 40, (1, 1, 1, 3))
    picture = picture + rng.integers(-9, 9, (2, 32, 32, 1))
    return encode_video(picture.clip(0, 255).astype(np.uint8), preset="ultrafast", crf="8")


def samples(start, each, data=None, **metadata):
    """Members of ``each`` films of every colour."""
    found = []
    for place, colour in enumerate(c for c in COLOURS for _ in range(each)):
        number = start + place
        said = {"label": colour} | {k: v.format(n=number) for k, v in metadata.items()}
        media = film(colour, number) if data is None else data
        found.append([(f"{number}.mp4", media), (f"{number}.json", json.dumps(said).encode())])
    return found


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Shards: 24 films to learn from, 12 to test on."""
    folder = tmp_path_factory.mktemp("films")
    write_shard(folder / "train.tar", samples(0, 8, media="train/{n}.mp4"))
    write_shard(folder / "test.tar", samples(100, 4, media="test/{n}.mp4"))
    return folder


def measured(value, low, high):
    return {
        "top_1": value, "mean_class": value, "interval": {"top_1": [low, high]},
        "per_class": [{"name": "<i>tea", "samples": 3, "top_1": value, "taken_for": "$milk$"}],
    }  # fmt: skip


@pytest.fixture
def result():
    """A linear probe that training has helped, and a knn probe without a control."""
    gain = {"value": 40.0, "interval": [30.0, 50.0]}
    linear = {"model": measured(80.0, 70.0, 90.0), "random": measured(40.0, 30.0, 50.0)}
    linear |= {"gain": gain, "above_majority": gain}
    knn = {"model": measured(50.0, 40.0, 60.0), "random": None, "gain": None}
    knn |= {"above_majority": gain}
    look = {"num_frames": 8, "sampling": "random", "image_size": 64, "fit": "squash"}
    return ProbeResult(
        name="mine",
        command="vmm eval probe --run x",
        model={"encoder": "x", "parameters": 9, "checkpoint": "a.ckpt", "sha256": "ab"},
        data={
            "test_set": "shards, label", "split_hash": "12", "train_hash": "34",
            "train_files": ["train.tar"], "files": ["test.tar"], "media": "clip", "train": 24,
            "train_left_out": 1, "listed": 12, "readable": 11, "unlabelled": 2, "tested": 10,
            "problems": {"empty": 1}, "coverage": "strict", "classes": 2,
            "numbered_by": "their names",
        },
        settings=look | {"width": 32, "tokens": 16, "token_grid": 2, "seed": 0, "device": "cpu",
                         "decoder": "pyav", "batch_size": 8},
        numbers={
            "probes": {"linear": linear, "knn": knn},
            "majority": {"value": 50.0, "interval": [40.0, 60.0]}, "chance": 50.0,
        },
        chosen={"model": {"linear": {"settings": {"C": 0.1}, "held_out": 90.0}}, "random": {}},
        classes=["<i>tea", "$milk$"],
        predictions=[["a", 0, 1, None]],
        findings=[],
        versions={"torch": "2.15"},
    )  # fmt: skip
