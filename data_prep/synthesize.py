"""Make the demo data: shapes in motion, as shards of H.264 clips and JPEG stills with captions.

    python -m data_prep.synthesize --out data/demo

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
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import av
import numpy as np

from data_prep.encode import encode_jpeg, encode_mp4
from data_prep.folders import make_folder, make_shards_of, run_command
from data_prep.shapes import Scene, all_answers, questions, render, twin_pairs
from data_prep.tars import Member
from vmm.data.schema import CAPTION, ITEMS, REVERSED_CAPTION

FORMAT_VERSION = 4  # one higher whenever the same arguments give other data
SHARD_SAMPLES = 512
_SPLITS = ("train", "val", "test", "images")
_HELP = {
    "train": "training clips",
    "val": "validation clips, an even number",
    "test": "test clips, an even number: pairs of twins",
    "images": "stills of training scenes",
    "seed": "seed of everything random",
    "image_size": "side of the square frames, pixels, even",
    "frames": "frames per clip",
    "fps": "frames per second",
}


@dataclass(frozen=True)
class Arguments:
    """What decides the content of the data, byte for byte.

    Args:
        train: Training clips.
        val: Validation clips, an even number.
        test: Test clips, an even number.
        images: Stills of training scenes.
        seed: Seed of everything random.
        image_size: Side of the square frames, pixels, even.
        frames: Frames per clip.
        fps: Frames per second.

    Raises:
        ValueError: If a number does not fit.
    """

    train: int = 4096
    val: int = 64
    test: int = 256
    images: int = 256
    seed: int = 0
    image_size: int = 64
    frames: int = 24
    fps: int = 12

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name == "seed" else 1):
                raise ValueError(f"--{name.replace('_', '-')} is {value}; give a positive number")
        for name in ("val", "test", "image_size"):
            if getattr(self, name) % 2:
                raise ValueError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; give an even number"
                )
        pairs = len(twin_pairs())
        if self.val + self.test >= 2 * pairs:
            raise ValueError(
                f"--val {self.val} and --test {self.test} leave nothing to train on: "
                f"there are {2 * pairs} scenes; lower them"
            )


@dataclass(frozen=True)
class Job:
    """One sample to render."""

    split: str
    number: int
    """Position in the split."""
    layout: int
    """Seed of place, size and grain; twins of one layout are each other backwards."""
    scene: Scene


def plan(arguments: Arguments) -> dict[str, list[Job]]:
    """Deal the scenes to the splits; no scene is in two of them (stills use training scenes)."""
    rng = np.random.default_rng(arguments.seed)
    pairs = twin_pairs()
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    jobs: dict[str, list[Job]] = {}
    taken = 0
    for split, count in (("test", arguments.test), ("val", arguments.val)):
        scenes = [(i, scene) for i in range(taken, taken + count // 2) for scene in pairs[i]]
        jobs[split] = [Job(split, n, i, scene) for n, (i, scene) in enumerate(scenes)]
        taken += count // 2
    rest = [scene for pair in pairs[taken:] for scene in pair]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    for split, count in (("train", arguments.train), ("images", arguments.images)):
        jobs[split] = [Job(split, n, n, rest[n % len(rest)]) for n in range(count)]
    return jobs


def make_sample(job: Job, arguments: Arguments) -> list[Member]:
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


def synthesize(out: Path, arguments: Arguments, workers: int, overwrite: bool = False) -> bool:
    """Write the whole data set, or nothing.

    Args:
        out: Folder to create.
        arguments: What to make.
        workers: Processes that render.
        overwrite: Replace a folder that holds something else.

    Returns:
        False if ``out`` already holds exactly this.

    Raises:
        ValueError: If ``out`` holds something else.
    """
    write = partial(_write_all, arguments=arguments, workers=workers)
    return make_folder(out, FORMAT_VERSION, asdict(arguments), write, overwrite)


def _write_all(folder: Path, arguments: Arguments, workers: int) -> dict[str, object]:
    jobs = plan(arguments)
    shards = {
        f"{split}-{number:06d}.tar": jobs[split][start : start + SHARD_SAMPLES]
        for split in _SPLITS
        for number, start in enumerate(range(0, len(jobs[split]), SHARD_SAMPLES))
    }
    make = partial(make_sample, arguments=arguments)
    digests = make_shards_of(shards, make, folder, workers, "sample")
    (folder / "answers.json").write_text(json.dumps(all_answers(), indent=0) + "\n")
    return {
        "samples": {split: len(jobs[split]) for split in _SPLITS},
        "shards": digests,
        "made_with": {"av": av.__version__, "numpy": np.__version__},
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    what = "Make the demo data: clips and stills of shapes in motion, with captions."
    return run_command("data_prep.synthesize", what, Arguments, _HELP, synthesize, argv)


if __name__ == "__main__":
    sys.exit(main())
