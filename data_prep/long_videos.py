"""Make the demo's long videos: films of several events, with questions that only they can answer.

    python -m data_prep.long_videos --out data/films

writes shards of H.264 films, ``train-*.tar``, ``val-*.tar``, ``test-*.tar`` and ``long-*.tar`` (of
twice as many events, for a model that has seen none so long), each with ``NAME-questions.json`` but
the first, and ``manifest.json``. What is shown and asked is in ``data_prep.films``. No two splits
share a combination of events.

A shard of training films holds one group: the loader mixes a few shards at a time, so that films
that differ only in the order of their events meet in a batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import av
import numpy as np

from data_prep.encode import encode_mp4
from data_prep.films import KINDS, Film, films_of_numbers, films_of_orders
from data_prep.folders import make_folder, make_shards_of, run_command
from data_prep.shapes import Scene, render
from data_prep.tars import Member

FORMAT_VERSION = 1  # one higher whenever the same arguments give other data
SPLITS = ("train", "val", "test", "long")
EVENTS = {"train": 6, "val": 6, "test": 6, "long": 12}
_COUNTED = 3  # events that are counted in a group of numbers
_SIDEWAYS = ("left", "right", "up", "down")  # motions in which a shape is always fully visible
_HELP = {
    "train": "groups of training films, of which a third is about numbers",
    "val": "groups of validation films",
    "test": "groups of test films",
    "long": "groups of test films of twice the length",
    "seed": "seed of everything random",
    "image_size": "side of the square frames, pixels, even",
    "event_frames": "frames per event, which are as many seconds",
}


@dataclass(frozen=True)
class Arguments:
    """What decides the content of the data, byte for byte.

    Args:
        train: Groups of training films, of which a third is about numbers.
        val: Groups of validation films.
        test: Groups of test films.
        long: Groups of test films of twice the length.
        seed: Seed of everything random.
        image_size: Side of the square frames, pixels, even.
        event_frames: Frames per event, which are as many seconds.

    Raises:
        ValueError: If a number does not fit.
    """

    train: int = 384
    val: int = 9
    test: int = 36
    long: int = 24
    seed: int = 0
    image_size: int = 64
    event_frames: int = 4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name == "seed" else 1):
                raise ValueError(f"--{name.replace('_', '-')} is {value}; give a positive number")
        if self.image_size % 2:
            raise ValueError(f"--image-size is {self.image_size}; give an even number")
        if self.train + self.val + self.test + self.long > 900:
            raise ValueError("there are combinations of events for 900 groups; lower the numbers")


@dataclass(frozen=True)
class Job:
    """One film to render."""

    split: str
    number: int
    """Position in the split."""
    film: Film

    @property
    def key(self) -> str:
        """Its name, unique in all splits."""
        return f"{self.split}{self.number:06d}"


def plan(arguments: Arguments) -> dict[str, list[Job]]:
    """Invent the films of every split; no combination of events is in two groups."""
    rng = np.random.default_rng(arguments.seed)
    used: set[frozenset[int]] = set()
    jobs: dict[str, list[Job]] = {}
    for split in reversed(SPLITS):  # what is tested first does not depend on how much is trained on
        length = EVENTS[split]
        films: list[Film] = []
        for group in range(getattr(arguments, split)):
            if group % 3 == 2:
                counted, others = _combinations(rng, used, _COUNTED, length - 2 * _COUNTED)
                films += films_of_numbers(group, [*counted, *others], length, rng)
            else:
                films += films_of_orders(group, _combinations(rng, used, length)[0], rng)
        jobs[split] = [Job(split, number, film) for number, film in enumerate(films)]
    return jobs


def _combinations(
    rng: np.random.Generator, used: set[frozenset[int]], number: int, more: int = 0
) -> tuple[list[int], list[int]]:
    """Draw kinds of events that were never together before, and ``more`` others."""
    while True:
        order = [int(kind) for kind in rng.permutation(len(KINDS))]
        if frozenset(order[:number]) not in used:
            used.add(frozenset(order[:number]))
            return order[:number], order[number : number + more]


def make_sample(job: Job, arguments: Arguments) -> list[Member]:
    """Render one film: (member name, content) of the video, its story and its metadata."""
    split = SPLITS.index(job.split)
    frames = []
    for kind in job.film.events:  # the same event is the same pixels in all films of a group
        rng = np.random.default_rng((arguments.seed, split, job.film.group, kind))
        colour, shape = KINDS[kind]
        motion = _SIDEWAYS[rng.integers(len(_SIDEWAYS))]
        scene = Scene(shape, colour, "large", "plain", "black", motion)
        frames.append(render(scene, arguments.event_frames, arguments.image_size, rng))
    captions = list(job.film.captions)
    metadata = {"key": job.key, "status": "success", "caption": captions}
    text = json.dumps(metadata, sort_keys=True).encode()
    return [
        (f"{job.key}.mp4", encode_mp4(np.concatenate(frames), 1)),
        (f"{job.key}.txt", captions[0].encode()),
        (f"{job.key}.json", text),
    ]


def question_records(jobs: Sequence[Job], arguments: Arguments) -> list[dict[str, object]]:
    """List what is asked of films, in the layout of the data set "questions"."""
    return [
        {
            "question_id": f"{job.key}_{number}",
            "video": f"{job.key}.mp4",
            "duration": len(job.film.events) * arguments.event_frames,
            "question": question.text,
            "options": list(question.options),
            "statements": list(question.statements),
            "answer": question.answer,
            "question_type": question.kind,
        }
        for job in jobs
        for number, question in enumerate(job.film.questions)
    ]


def make_long_videos(
    out: Path, arguments: Arguments, workers: int, overwrite: bool = False
) -> bool:
    """Write the whole data set, or nothing; see ``data_prep.folders.make_folder``.

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
        f"{split}-{group:06d}.tar": list(films)
        for split in SPLITS
        for group, films in groupby(jobs[split], lambda job: job.film.group)
    }
    make = partial(make_sample, arguments=arguments)
    digests = make_shards_of(shards, make, folder, workers, "film")
    for split in SPLITS[1:]:
        text = json.dumps(question_records(jobs[split], arguments), indent=1)
        (folder / f"{split}-questions.json").write_text(text + "\n", encoding="utf-8")
    return {
        "films": {split: len(jobs[split]) for split in SPLITS},
        "shards": digests,
        "made_with": {"av": av.__version__, "numpy": np.__version__},
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    what = "Make the demo's long videos: films of several events, with questions."
    return run_command("data_prep.long_videos", what, Arguments, _HELP, make_long_videos, argv)


if __name__ == "__main__":
    sys.exit(main())
