"""Films and questions: the answers are right, and without the order of frames nobody can tell."""

import re
from collections import Counter
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest

from data_prep.films import KINDS, name, orders
from data_prep.long_videos import FilmArguments, make_sample, plan
from vmm.shards.demo.shapes import COLOURS, SHAPES

SMALL = FilmArguments(train=9, val=3, test=6, long=6)
NUMBERS = {"once": 1, "twice": 2, "three times": 3}
PARTS = {"at the beginning": 0, "in the middle": 1, "at the end": 2}


@pytest.fixture(scope="module")
def jobs():
    return plan(SMALL)


def films(jobs, split=None):
    return [job.film for part in jobs if split in (None, part) for job in jobs[part]]


def is_true(statement, events):
    """Decide, from the events alone, whether a sentence is true of a film."""
    shown = [name(kind) for kind in events]
    thing = r"a \w+ \w+"
    if match := re.fullmatch(rf"({thing}) comes (first|last)", statement):
        return shown[{"first": 0, "last": -1}[match[2]]] == match[1]
    if match := re.fullmatch(rf"({thing}) comes (before|after) ({thing})", statement):
        early, late = (match[1], match[3]) if match[2] == "before" else (match[3], match[1])
        return shown.index(early) < shown.index(late)
    if match := re.fullmatch(rf"({thing}) is shown (once|twice|three times)", statement):
        return shown.count(match[1]) == NUMBERS[match[2]]
    if match := re.fullmatch(rf"({thing}) is shown (at .*|in .*)", statement):
        place = shown.index(match[1])
        return shown.count(match[1]) == 1 and 3 * place // len(shown) == PARTS[match[2]]
    return statement.split(" then ") == shown


@pytest.mark.parametrize("length", [2, 4, 6, 12])
def test_orders_are_balanced(length):
    rows = orders(length)
    assert len(rows) == length
    for column in zip(*rows, strict=True):
        assert sorted(column) == list(range(length))
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert neighbours == dict.fromkeys(permutations(range(length), 2), 1)
    for a, b in combinations(range(length), 2):
        assert sum(row.index(a) < row.index(b) for row in rows) == length / 2


def test_names_are_all_different():
    assert len({name(kind) for kind in range(len(KINDS))}) == len(COLOURS) * len(SHAPES)


def test_captions_are_true_and_half_of_them_tell_the_whole(jobs):
    for film in films(jobs):
        assert all(is_true(caption, film.events) for caption in film.captions)
        stories = [caption for caption in film.captions if " then " in caption]
        assert len(set(stories)) == 1 and film.captions[0] == stories[0]
        assert 2 * len(stories) == len(film.captions)


def test_exactly_the_right_option_is_true(jobs):
    for film in films(jobs):
        for question in film.questions:
            truths = [is_true(statement, film.events) for statement in question.statements]
            assert truths == [i == question.answer for i in range(len(question.options))]


@pytest.mark.parametrize("split", ["train", "val", "test", "long"])
def test_nobody_can_guess_from_the_text(jobs, split):
    """Word for word the same question has each of its options right equally often."""
    right = {}
    for film in films(jobs, split):
        for q in film.questions:
            right.setdefault((film.group, q.text, q.options), Counter())[q.answer] += 1
    assert len(right) > 10
    for (_, _, options), answers in right.items():
        assert len(set(answers.values())) == 1 and len(answers) == len(options)


def test_all_kinds_of_questions_are_asked_about_all_lengths(jobs):
    for split in ("val", "test", "long"):
        kinds = Counter(q.kind for film in films(jobs, split) for q in film.questions)
        assert kinds.keys() == {"what", "when", "before and after", "how often"}
        assert min(kinds.values()) >= 9


def test_long_films_have_twice_the_events_and_no_kind_twice_in_a_row(jobs):
    assert {len(film.events) for film in films(jobs, "train")} == {6}
    assert {len(film.events) for film in films(jobs, "long")} == {12}
    assert all(a != b for film in films(jobs) for a, b in pairwise(film.events))


def test_no_combination_of_events_is_in_two_groups():
    seen = {}
    for split, part in plan(FilmArguments()).items():
        for job in part:
            counts = Counter(job.film.events)
            repeated = {kind for kind, n in counts.items() if n > 1}
            asked = frozenset(counts) if not repeated else frozenset(job.film.events)
            if repeated and split == "long":  # what is asked about, and what only fills
                asked = frozenset(
                    kind for kind in counts
                    if any(name(kind) in q.text for q in job.film.questions)
                )  # fmt: skip
            assert seen.setdefault(asked, (split, job.film.group)) == (split, job.film.group)
    assert len({split for split, _ in seen.values()}) == 4


def test_films_of_a_group_show_the_same_pictures(jobs, monkeypatch):
    """In another order, pixel by pixel: a bag of frames is the same bag."""
    kept = []
    monkeypatch.setattr(
        "data_prep.long_videos.encode_mp4", lambda frames, fps: kept.append(frames) or b""
    )
    group = [job for job in jobs["test"] if job.film.group == 0]
    for job in group:
        make_sample(job, SMALL)
    bags = {tuple(sorted(frame.tobytes() for frame in frames)) for frames in kept}
    assert len(kept) == 6 and len(bags) == 1
    assert len({frames.tobytes() for frames in kept}) == 6
    assert kept[0].shape == (24, 64, 64, 3)
    other = [make_sample(job, SMALL) for job in jobs["test"] if job.film.group == 1]
    assert len(other) == 6 and not np.array_equal(kept[0], kept[6])
