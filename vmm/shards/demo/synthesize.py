"""Make the demo data: shapes in motion, as shards of H.264 clips and JPEG stills with captions.

    vmm shards demo --out data/demo

writes ``train-*.tar``, ``val-*.tar``, ``test-*.tar`` and ``images-*.tar`` in the video2dataset
convention (``vmm.data.schema``), ``answers.json``, the answers to all questions that the clips'
JSON asks, and ``manifest.json``.

The splits share no scene. The validation and test splits consist of pairs of twins: scenes that are
each other's time reversal, rendered alike, so that one clip is exactly the other backwards, down to
the decoded pixel. The captions of both are in the gallery: a model that uses the order of frames
retrieves the wrong twin when the frames are reversed, and one that ignores it can only guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from vmm.data.schema import CAPTION, ITEMS, REVERSED_CAPTION
from vmm.shards.demo.data_set import Arguments, DataSet, number
from vmm.shards.demo.shapes import Scene, all_answers, questions, render, twin_pairs
from vmm.shards.encode import encode_jpeg, encode_mp4
from vmm.shards.tars import Member

SHARD_SAMPLES = 512
_SPLITS = ("train", "val", "test", "images")
_Scene = TypeVar("_Scene")


@dataclass(frozen=True)
class ClipArguments(Arguments):
    """What decides the content of the demo data, byte for byte."""

    even = ("val", "test", "image_size")
    train: int = number(4096, "training clips")
    val: int = number(64, "validation clips, an even number")
    test: int = number(256, "test clips, an even number: pairs of twins")
    images: int = number(256, "stills of training scenes")
    seed: int = number(0, "seed of everything random")
    image_size: int = number(64, "side of the square frames, pixels, even")
    frames: int = number(24, "frames per clip")
    fps: int = number(12, "frames per second")

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = len(twin_pairs())
        if self.val + self.test >= 2 * pairs:
            raise ValueError(
                f"--val {self.val} and --test {self.test} leave nothing to train on: "
                f"there are {2 * pairs} scenes; lower them"
            )


@dataclass(frozen=True)
class ClipJob:
    """One sample to render."""

    split: str
    number: int
    """Position in the split."""
    layout: int
    """Seed of place, size and grain; twins of one layout are each other backwards."""
    scene: Scene


def plan(arguments: ClipArguments) -> dict[str, list[ClipJob]]:
    """Deal the scenes to the splits; no scene is in two of them (stills use training scenes)."""
    whole = {"test": arguments.test, "val": arguments.val}
    dealt, rest = deal_pairs(twin_pairs(), whole, arguments.seed)
    jobs = {
        split: [ClipJob(split, n, layout, scene) for n, (layout, scene) in enumerate(scenes)]
        for split, scenes in dealt.items()
    }
    for split, count in (("train", arguments.train), ("images", arguments.images)):
        jobs[split] = [ClipJob(split, n, n, rest[n % len(rest)]) for n in range(count)]
    return {split: jobs[split] for split in _SPLITS}


def deal_pairs(
    pairs: Sequence[tuple[_Scene, _Scene]], whole: Mapping[str, int], seed: int
) -> tuple[dict[str, list[tuple[int, _Scene]]], list[_Scene]]:
    """Deal pairs of twins to splits that consist of them.

    Args:
        pairs: All of them.
        whole: Split -> samples, an even number.
        seed: Of the order.

    Returns:
        Split -> (layout, the same for both of a pair, and scene); all other scenes, shuffled.
    """
    rng = np.random.default_rng(seed)
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    dealt, taken = {}, 0
    for split, count in whole.items():
        of_split = range(taken, taken + count // 2)
        dealt[split] = [(layout, scene) for layout in of_split for scene in pairs[layout]]
        taken += count // 2
    rest = [scene for pair in pairs[taken:] for scene in pair]
    return dealt, [rest[i] for i in rng.permutation(len(rest))]


def make_sample(job: ClipJob, arguments: ClipArguments) -> list[Member]:
    """Render one sample: (member name, content) of its media, caption and metadata."""
    rng = np.random.default_rng((arguments.seed, _SPLITS.index(job.split), job.layout))
    key = f"{job.number:09d}"
    metadata: dict[str, object] = {"key": key, "status": "success"}
    if job.split == "images":
        # A frame of a sideways motion: never half transparent, of the size that it is called.
        scene = replace(job.scene, motion="left")
        clip = render(scene, arguments.frames, arguments.image_size, rng)
        media = (f"{key}.jpg", encode_jpeg(clip[rng.integers(len(clip))]))
        caption = job.scene.still_caption
    else:
        clip = render(job.scene, arguments.frames, arguments.image_size, rng)
        media = (f"{key}.mp4", encode_mp4(clip, arguments.fps))
        caption = job.scene.caption
        metadata[REVERSED_CAPTION] = job.scene.twin.caption
        metadata["attributes"] = job.scene.attributes()
        metadata[ITEMS] = [
            {
                "id": f"{job.split}-{key}-{kind}",
                "metadata": {"question": question, "answer": answer, "question_type": kind},
            }
            for kind, (question, answer) in questions(job.scene).items()
        ]
    metadata[CAPTION] = caption
    text = json.dumps(metadata, sort_keys=True).encode()
    return [media, (f"{key}.txt", caption.encode()), (f"{key}.json", text)]


CLIPS = DataSet(
    prog="vmm shards demo",
    description="Make the demo data: clips and stills of shapes in motion, with captions.",
    version=4,
    arguments=ClipArguments,
    unit="sample",
    plan=plan,
    deal=lambda jobs: [jobs[i : i + SHARD_SAMPLES] for i in range(0, len(jobs), SHARD_SAMPLES)],
    make_sample=make_sample,
    texts=lambda jobs, arguments: {"answers.json": json.dumps(all_answers(), indent=0) + "\n"},
)


main = CLIPS.command
