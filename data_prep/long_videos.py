"""Make the demo's long videos: films of several events, with questions that only they can answer.

    python -m data_prep.long_videos --out data/films

writes shards of H.264 films, ``train-*.tar``, ``val-*.tar``, ``test-*.tar`` and ``long-*.tar`` (of
twice as many events, for a model that has seen none so long), each with ``NAME-questions.json`` but
the first, ``NAME-moments.jsonl``, which says when each event is shown, and ``manifest.json``. What
is shown and asked is in ``data_prep.films``. No two splits share a combination of events.

A shard of training films holds one group: the loader mixes a few shards at a time, so that films
that differ only in the order of their events meet in a batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from data_prep.films import KINDS, Film, films_of_numbers, films_of_orders, name
from vmm.shards.demo.data_set import Arguments, DataSet, number
from vmm.shards.demo.shapes import Scene, render
from vmm.shards.encode import encode_mp4
from vmm.shards.tars import Member

SPLITS = ("train", "val", "test", "long")
EVENTS = {"train": 6, "val": 6, "test": 6, "long": 12}
_COUNTED = 3  # events that are counted in a group of numbers
_SIDEWAYS = ("left", "right", "up", "down")  # motions in which a shape is always fully visible


@dataclass(frozen=True)
class FilmArguments(Arguments):
    """What decides the content of the films, byte for byte."""

    even = ("image_size",)
    train: int = number(384, "groups of training films, of which a third is about numbers")
    val: int = number(9, "groups of validation films")
    test: int = number(36, "groups of test films")
    long: int = number(24, "groups of test films of twice the length")
    seed: int = number(0, "seed of everything random")
    image_size: int = number(64, "side of the square frames, pixels, even")
    event_frames: int = number(4, "frames per event, which are as many seconds")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train + self.val + self.test + self.long > 900:
            raise ValueError("there are combinations of events for 900 groups; lower the numbers")


@dataclass(frozen=True)
class FilmJob:
    """One film to render."""

    split: str
    number: int
    """Position in the split."""
    film: Film

    @property
    def key(self) -> str:
        """Its name, unique in all splits."""
        return f"{self.split}{self.number:06d}"


def plan(arguments: FilmArguments) -> dict[str, list[FilmJob]]:
    """Invent the films of every split; no combination of events is in two groups."""
    rng = np.random.default_rng(arguments.seed)
    used: set[frozenset[int]] = set()
    jobs: dict[str, list[FilmJob]] = {}
    for split in reversed(SPLITS):  # what is tested first does not depend on how much is trained on
        length = EVENTS[split]
        films: list[Film] = []
        for group in range(getattr(arguments, split)):
            if group % 3 == 2:
                counted, others = _combinations(rng, used, _COUNTED, length - 2 * _COUNTED)
                films += films_of_numbers(group, [*counted, *others], length, rng)
            else:
                films += films_of_orders(group, _combinations(rng, used, length)[0], rng)
        jobs[split] = [FilmJob(split, number, film) for number, film in enumerate(films)]
    return {split: jobs[split] for split in SPLITS}


def _combinations(
    rng: np.random.Generator, used: set[frozenset[int]], number: int, more: int = 0
) -> tuple[list[int], list[int]]:
    """Draw kinds of events that were never together before, and ``more`` others."""
    while True:
        order = [int(kind) for kind in rng.permutation(len(KINDS))]
        if frozenset(order[:number]) not in used:
            used.add(frozenset(order[:number]))
            return order[:number], order[number : number + more]


def make_sample(job: FilmJob, arguments: FilmArguments) -> list[Member]:
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


def question_files(splits: Mapping[str, list[FilmJob]], arguments: FilmArguments) -> dict[str, str]:
    """Write what is asked, in the layout of the data set "questions": file name -> JSON."""
    files = {}
    for split in SPLITS[1:]:
        asked = [
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
            for job in splits[split]
            for number, question in enumerate(job.film.questions)
        ]
        files[f"{split}-questions.json"] = json.dumps(asked, indent=1) + "\n"
    return files


def moment_files(splits: Mapping[str, list[FilmJob]], arguments: FilmArguments) -> dict[str, str]:
    """Write when every event is shown, in the layout of the data set "moments".

    An event that is shown several times has as many moments; the clips of two seconds that show
    it are highlights.
    """
    seconds = arguments.event_frames
    files = {}
    for split in SPLITS:
        lines = []
        for job in splits[split]:
            for kind in dict.fromkeys(job.film.events):
                places = [i for i, event in enumerate(job.film.events) if event == kind]
                windows = [[seconds * i, seconds * (i + 1)] for i in places]
                clips = [n for start, end in windows for n in range(start // 2, end // 2)]
                lines.append(
                    {
                        "qid": f"{job.key}_{kind}",
                        "video": f"{job.key}.mp4",
                        "duration": seconds * len(job.film.events),
                        "query": f"{name(kind)} is shown",
                        "relevant_windows": windows,
                        "relevant_clip_ids": clips,
                        "saliency_scores": [[4]] * len(clips),
                    }
                )
        files[f"{split}-moments.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines)
    return files


def _texts(splits: Mapping[str, list[FilmJob]], arguments: FilmArguments) -> dict[str, str]:
    return question_files(splits, arguments) | moment_files(splits, arguments)


FILMS = DataSet(
    prog="python -m data_prep.long_videos",
    description="Make the demo's long videos: films of several events, with questions and moments.",
    version=2,
    arguments=FilmArguments,
    unit="film",
    plan=plan,
    deal=lambda jobs: [list(films) for _, films in groupby(jobs, lambda job: job.film.group)],
    make_sample=make_sample,
    texts=_texts,
)


main = FILMS.command

if __name__ == "__main__":
    sys.exit(main())
