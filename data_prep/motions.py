"""Make clips of motions to classify: their direction, what comes first, and how fast it goes.

    python -m data_prep.motions --out data/motions

writes ``train-*.tar``, ``val-*.tar``, ``test-*.tar``, ``classes.txt``, ``classes.json`` (class ->
its group and its twin) and ``manifest.json``. Each class is another one backwards: the frames of
"right speeding up", played backwards, are those of "left slowing down". The splits share no
combination of class and look, and validation and test consist of such twins, alike down to the
decoded pixel: what ignores the order of frames can only guess which of two classes it is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from vmm.data.schema import CAPTION
from vmm.shards.demo.data_set import Arguments, DataSet, number
from vmm.shards.demo.shapes import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Scene, render
from vmm.shards.demo.synthesize import SHARD_SAMPLES, deal_pairs
from vmm.shards.encode import encode_mp4
from vmm.shards.tars import Member


class Motion(NamedTuple):
    """A class."""

    name: str
    group: str
    """What tells it from others: its "direction", the "order" of what is seen, its "speed"."""
    motion: str
    """Of ``vmm.shards.demo.shapes``."""
    pace: float = 1
    """As for ``vmm.shards.demo.shapes.render``."""


TWINS = (
    (Motion("left", "direction", "left"), Motion("right", "direction", "right")),
    (Motion("up", "direction", "up"), Motion("down", "direction", "down")),
    (Motion("grows", "order", "grow"), Motion("shrinks", "order", "shrink")),
    (Motion("appears", "order", "appear"), Motion("vanishes", "order", "vanish")),
    (
        Motion("left speeding up", "speed", "left", 3),
        Motion("right slowing down", "speed", "right", 3),
    ),
    (
        Motion("left slowing down", "speed", "left", 1 / 3),
        Motion("right speeding up", "speed", "right", 1 / 3),
    ),
)
CLASSES = [motion for pair in TWINS for motion in pair]
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class MotionArguments(Arguments):
    """What decides the content of the clips, byte for byte."""

    even = ("val", "test", "image_size")
    train: int = number(4096, "training clips")
    val: int = number(96, "validation clips, an even number")
    test: int = number(384, "test clips, an even number: pairs of twins")
    seed: int = number(0, "seed of everything random")
    image_size: int = number(64, "side of the square frames, pixels, even")
    frames: int = number(24, "frames per clip")
    fps: int = number(12, "frames per second")

    def __post_init__(self) -> None:
        super().__post_init__()
        clips = 2 * len(_pairs())
        if self.val + self.test >= clips:
            raise ValueError(
                f"--val {self.val} and --test {self.test} leave nothing to train on: "
                f"there are {clips} combinations; lower them"
            )


class MotionJob(NamedTuple):
    """One clip to render."""

    split: str
    number: int
    """Position in the split."""
    layout: int
    """Seed of place, size and grain; twins of one layout are each other backwards."""
    motion: Motion
    scene: Scene


def _pairs() -> list[tuple[tuple[Motion, Scene], tuple[Motion, Scene]]]:
    return [
        ((one, Scene(*look, one.motion)), (other, Scene(*look, other.motion)))
        for look in product(SHAPES, COLOURS, SIZES, TEXTURES, BACKGROUNDS)
        for one, other in TWINS
    ]


def plan(arguments: MotionArguments) -> dict[str, list[MotionJob]]:
    """Deal combinations of class and look to the splits; none is in two of them."""
    whole = {"test": arguments.test, "val": arguments.val}
    dealt, rest = deal_pairs(_pairs(), whole, arguments.seed)
    dealt["train"] = [(n, rest[n % len(rest)]) for n in range(arguments.train)]
    return {
        split: [MotionJob(split, n, layout, *what) for n, (layout, what) in enumerate(dealt[split])]
        for split in _SPLITS
    }


def make_sample(job: MotionJob, arguments: MotionArguments) -> list[Member]:
    """Render one clip: (member name, content) of its media and metadata."""
    rng = np.random.default_rng((arguments.seed, _SPLITS.index(job.split), job.layout))
    frames = render(job.scene, arguments.frames, arguments.image_size, rng, job.motion.pace)
    key = f"{job.number:09d}"
    metadata = {
        "key": key,
        "status": "success",
        CAPTION: job.motion.name,
        "attributes": job.scene.attributes(),
    }
    text = json.dumps(metadata, sort_keys=True).encode()
    return [(f"{key}.mp4", encode_mp4(frames, arguments.fps)), (f"{key}.json", text)]


def describe_classes() -> dict[str, dict[str, str]]:
    """Say of each class to which group it belongs, and which class is the same one backwards."""
    both = (pair for one, other in TWINS for pair in ((one, other), (other, one)))
    return {motion.name: {"group": motion.group, "twin": twin.name} for motion, twin in both}


MOTIONS = DataSet(
    prog="python -m data_prep.motions",
    description="Make clips of motions to classify.",
    version=2,
    arguments=MotionArguments,
    unit="clip",
    plan=plan,
    deal=lambda jobs: [jobs[i : i + SHARD_SAMPLES] for i in range(0, len(jobs), SHARD_SAMPLES)],
    make_sample=make_sample,
    texts=lambda jobs, arguments: {
        "classes.txt": "".join(f"{c.name}\n" for c in CLASSES),
        "classes.json": json.dumps(describe_classes(), indent=1) + "\n",
    },
)


main = MOTIONS.command

if __name__ == "__main__":
    sys.exit(main())
