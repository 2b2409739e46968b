"""Long videos of several events, what is asked about them, and why nobody can guess the answers.

An event is a shape of some colour that moves for a while; a film is a row of events. Films come in
groups that are made of the same events, pixel by pixel, and differ in their order (or, where it is
asked how often, in their numbers). Every question is asked, word for word, about as many films of a
group as it has options, and each option is right in one of them (or each in equally many): whoever
sees only the text, or sees the frames without their order, can only guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product

import numpy as np

from vmm.shards.demo.shapes import COLOURS, SHAPES

KINDS = tuple(product(COLOURS, SHAPES))
"""What an event shows: a colour and a shape."""

PARTS = ("at the beginning", "in the middle", "at the end")
NUMBERS = ("once", "twice", "three times")
_OPTIONS = 4
_ASKED = 3  # events, or pairs of them, that a kind of question is asked about in a group
_TOLD = 2  # statements of each kind among the captions of a film


@dataclass(frozen=True)
class FilmQuestion:
    """A question with options, asked about a film."""

    kind: str
    """"what", "when", "before and after" or "how often"."""
    text: str
    options: tuple[str, ...]
    statements: tuple[str, ...]
    """The options as sentences: what would be true of the film if they were right."""
    answer: int


@dataclass(frozen=True)
class Film:
    """A row of events."""

    group: int
    """Films of a group show the same events."""
    events: tuple[int, ...]
    """Numbers of ``KINDS``, in the order in which they are shown."""
    captions: tuple[str, ...]
    """Sentences that are true of it, the whole story first; training draws one, so that one which
    is there twice is drawn twice as often."""
    questions: tuple[FilmQuestion, ...] = ()


def name(kind: int) -> str:
    """Say what an event shows."""
    colour, shape = KINDS[kind]
    return f"a {colour} {shape}"


def orders(length: int) -> list[tuple[int, ...]]:
    """List ``length`` orders of 0 ... length - 1 that are balanced (Williams 1949).

    Each number stands once at every place, and each ordered pair of numbers is adjacent once.

    Args:
        length: An even number.
    """
    first = [0]
    for step in range(1, length):
        first.append((first[-1] + (step if step % 2 else -step)) % length)
    return [tuple((number + row) % length for number in first) for row in range(length)]


def films_of_orders(group: int, kinds: Sequence[int], rng: np.random.Generator) -> list[Film]:
    """Make a film of every balanced order of some events.

    Args:
        group: Number of the group.
        kinds: Different numbers of ``KINDS``, a multiple of six.
        rng: Draws what is asked.
    """
    rows = [tuple(kinds[i] for i in order) for order in orders(len(kinds))]
    asked: list[list[FilmQuestion]] = [[] for _ in rows]
    for which, place in (("first", 0), ("last", -1)):
        _ask_what(asked, rows, which, place, rng)
    for kind in rng.permutation(kinds)[:_ASKED]:
        _ask_when(asked, rows, int(kind), rng)
    for pair in rng.permutation(list(combinations(kinds, 2)))[:_ASKED]:
        _ask_before_after(asked, rows, (int(pair[0]), int(pair[1])), rng)
    return [
        Film(group, row, _captions_of_order(row, rng), tuple(questions))
        for row, questions in zip(rows, asked, strict=True)
    ]


def films_of_numbers(
    group: int, kinds: Sequence[int], length: int, rng: np.random.Generator
) -> list[Film]:
    """Make three films, in each of which another of three events is shown once, twice, three times.

    Args:
        group: Number of the group.
        kinds: Different numbers of ``KINDS``: the three, and ``length`` - 6 that come once.
        length: Events per film.
        rng: Draws the order of the events and of the options.
    """
    films = []
    order = rng.permutation(len(NUMBERS))
    for turn in range(3):
        times = {kind: 1 + (place + turn) % 3 for place, kind in enumerate(kinds[:3])}
        events = [kind for kind in kinds for _ in range(times.get(kind, 1))]
        while any(a == b for a, b in pairwise(events)):  # two of a kind in a row look like one
            events = [events[i] for i in rng.permutation(length)]
        questions = []
        for kind, number in times.items():
            options = tuple(NUMBERS[i] for i in order)
            statements = tuple(f"{name(kind)} is shown {option}" for option in options)
            answer = options.index(NUMBERS[number - 1])
            text = f"how often is {name(kind)} shown?"
            questions.append(FilmQuestion("how often", text, options, statements, answer))
        captions = [f"{name(kind)} is shown {NUMBERS[n - 1]}" for kind, n in times.items()]
        captions = [story(events)] * len(captions) + captions
        films.append(Film(group, tuple(events), tuple(captions), tuple(questions)))
    return films


def story(events: Sequence[int]) -> str:
    """Tell a whole film."""
    return " then ".join(name(kind) for kind in events)


def _captions_of_order(row: Sequence[int], rng: np.random.Generator) -> tuple[str, ...]:
    """Draw what is said of a film of different events; half of it is the whole story."""
    third = len(row) // len(PARTS)
    places = rng.permutation(len(row))[:_TOLD]
    pairs = rng.permutation(list(combinations(range(len(row)), 2)))[:_TOLD]
    said = [f"{name(row[0])} comes first", f"{name(row[-1])} comes last"]
    said += [f"{name(row[i])} is shown {PARTS[i // third]}" for i in places]
    for i, j in pairs:
        first, second = name(row[i]), name(row[j])
        turned = rng.integers(2)
        said.append(f"{second} comes after {first}" if turned else f"{first} comes before {second}")
    return (*[story(row)] * len(said), *said)


def _ask_what(
    asked: list[list[FilmQuestion]],
    rows: Sequence[tuple[int, ...]],
    which: str,
    place: int,
    rng: np.random.Generator,
) -> None:
    """Ask about the films that show one of the options at a place."""
    kinds = [int(kind) for kind in rng.permutation(rows[0])[:_OPTIONS]]
    options = tuple(name(kind) for kind in kinds)
    statements = tuple(f"{option} comes {which}" for option in options)
    for film, row in zip(asked, rows, strict=True):
        if row[place] in kinds:
            answer = kinds.index(row[place])
            film.append(FilmQuestion("what", f"what comes {which}?", options, statements, answer))


def _ask_when(
    asked: list[list[FilmQuestion]],
    rows: Sequence[tuple[int, ...]],
    kind: int,
    rng: np.random.Generator,
) -> None:
    options = tuple(PARTS[i] for i in rng.permutation(len(PARTS)))
    statements = tuple(f"{name(kind)} is shown {option}" for option in options)
    for film, row in zip(asked, rows, strict=True):
        part = PARTS[row.index(kind) // (len(row) // len(PARTS))]
        text = f"when is {name(kind)} shown?"
        film.append(FilmQuestion("when", text, options, statements, options.index(part)))


def _ask_before_after(
    asked: list[list[FilmQuestion]],
    rows: Sequence[tuple[int, ...]],
    pair: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    one, other = name(pair[0]), name(pair[1])
    options = tuple(str(word) for word in rng.permutation(("before", "after")))
    statements = tuple(f"{one} comes {option} {other}" for option in options)
    text = f"does {one} come before or after {other}?"
    for film, row in zip(asked, rows, strict=True):
        right = "before" if row.index(pair[0]) < row.index(pair[1]) else "after"
        film.append(
            FilmQuestion("before and after", text, options, statements, options.index(right))
        )
