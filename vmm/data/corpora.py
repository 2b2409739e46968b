"""Several corpora as one source of training samples."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vmm.data.faults import BadSample
from vmm.data.order import MixtureOrder, ShardOrder, derive_seed
from vmm.data.patterns import common_folder, expand_shards, is_remote, some_shards
from vmm.data.schema import RawSample
from vmm.data.shards import ShardSet
from vmm.text_output import number_of
from vmm.types import Media

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """One of several data sets that a run trains on.

    Args:
        shards: Its shards, see ``expand_shards``.
        weight: Passes over it during one pass over the mixture; 2 = its samples come twice as
            often as those of a corpus with weight 1, 0.5 = every other pass.

    Raises:
        ValueError: If the weight is not a positive number.
    """

    shards: str | list[str]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(
                f"weight {self.weight} of the corpus {self.shards!r} is not positive; "
                "remove the corpus to leave it out"
            )


Shards = str | list[str] | dict[str, Corpus]
"""One corpus by its patterns, or several by name."""


def by_name(shards: Shards) -> dict[str, Corpus]:
    """Return corpora by name; patterns alone are one corpus without a name."""
    return dict(shards) if isinstance(shards, dict) else {"": Corpus(shards)}


def patterns_of(shards: Shards) -> list[str]:
    """Return the patterns of all corpora."""
    named = (corpus.shards for corpus in by_name(shards).values())
    return [p for own in named for p in ([own] if isinstance(own, str) else own)]


def warn_of_leak(named: Mapping[str, Shards | None]) -> str:
    """Warn if a run is measured on shards that it trains on; links are looked through.

    Args:
        named: What it trains on, of one media type, then what it is measured on, as the user
            names them; what is not local is not looked at.

    Returns:
        The sentence; empty if it is not.

    Raises:
        ValueError: If a pattern is wrong.
    """
    trained_on, measured = (
        {os.path.realpath(path): path for path in expand_shards(local, quiet=True)}
        for shards in named.values()
        for local in [[p for p in patterns_of(shards or []) if not is_remote(p)]]
    )
    both = [path for real, path in measured.items() if real in trained_on]
    if not both:
        return ""
    train, other = named
    said = (
        f"{train} and {other} share {number_of(len(both), 'shard')}: {some_shards(both)}; what is "
        "measured on clips that were trained on says nothing about new ones, so give "
        f"{other} other shards"
    )
    _log.warning("%s", said)
    return said


def refuse_empty(named: Mapping[str, Shards | None]) -> None:
    """Refuse settings that name no shards; None leaves them out.

    Raises:
        ValueError: With the name of the first one.
    """
    for name, shards in named.items():
        if shards is not None and not shards:
            raise ValueError(
                f"data.init_args.{name} is empty (is a variable of the shell not set?); null "
                "leaves it out"
            )


class Place(NamedTuple):
    """Where a sample is."""

    corpus: int
    shard: int
    sample: int


class Mixture:
    """The training samples of one media type, in an order that never ends.

    Every batch mixes the corpora; over a pass each gives weight x size samples, evenly spread. A
    sample comes again only after all others of its corpus.

    Args:
        sets: The samples of each corpus.
        weights: Passes over each corpus during one pass over the mixture; None = 1 each.
        seed: Seed of the order.

    Raises:
        ValueError: If two corpora have a shard in common.
    """

    def __init__(
        self,
        sets: Mapping[str, ShardSet],
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.names, self.sets = list(sets), list(sets.values())
        self.media = self.sets[0].media
        self.weights = [(weights or {}).get(name, 1.0) for name in sets]
        sizes = [len(own) for own in self.sets]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        seed = derive_seed(seed, self.media)
        self._mixture = MixtureOrder(sizes, self.weights, seed)
        self._orders = [
            ShardOrder(own.counts.tolist(), derive_seed(seed, name) if name else seed)
            for name, own in sets.items()
        ]
        owner: dict[str, str] = {}
        for name, own in sets.items():
            for path in own.paths:
                if owner.setdefault(path, name) != name:
                    raise ValueError(
                        f"the corpora {owner[path]!r} and {name!r} both have the shard {path}; "
                        "set a weight instead of naming it twice"
                    )

    @property
    def size(self) -> int:
        """Samples, each counted once."""
        return sum(len(own) for own in self.sets)

    def __len__(self) -> int:
        """Samples of one pass: each corpus times its weight."""
        return len(self._mixture)

    def taken(self, positions: int) -> dict[str, int]:
        """Return how many samples each corpus, by name, has given before an endless position."""
        return dict(zip(self.names, self._mixture.taken(positions), strict=True))

    def locate(self, position: int) -> Place:
        """Return where the sample of an endless position is."""
        corpus, pass_number, turn = self._mixture.locate(position)
        return Place(corpus, *self._orders[corpus].locate(pass_number, turn))

    def another(self, place: Place, draw: int) -> Place:
        """Return a place in the same corpus that depends on ``draw`` only."""
        own = self.sets[place.corpus]
        return Place(place.corpus, *own.locate(draw % len(own)))

    def read(self, place: Place) -> RawSample:
        """Read a sample's bytes; its number is the row in its own corpus.

        Raises:
            SampleError: If the shard no longer holds them.
        """
        return self.sets[place.corpus].read(place.shard, place.sample)

    def name(self, place: Place) -> tuple[str, str]:
        """Return (shard, key) of a sample."""
        return self.sets[place.corpus].name(place.shard, place.sample)

    def first(self, corpus: int) -> int:
        """Return how many samples the corpora before this one have."""
        return self._starts[corpus]

    def left_out(self) -> Iterator[BadSample]:
        """Name what the indexes of all corpora leave out."""
        for own in self.sets:
            yield from own.left_out()

    def identity(self) -> list[object]:
        """Describe what the order depends on, besides the seed."""
        return [
            (own.fingerprint, own.counts.tolist(), weight)
            for own, weight in zip(self.sets, self.weights, strict=True)
        ]


def open_corpora(
    sources: Mapping[Media, Shards], seed: int, captioned: bool = True
) -> dict[Media, Mixture]:
    """Open all training data; shards are named from the one folder that holds all of them.

    Args:
        sources: Corpora of each media type.
        seed: Seed of the order.
        captioned: Whether samples without a caption are left out.

    Raises:
        ValueError: If a pattern is wrong or a corpus has not one usable sample.
    """
    patterns = [pattern for shards in sources.values() for pattern in patterns_of(shards)]
    folder = common_folder(expand_shards(patterns, quiet=True))
    mixtures: dict[Media, Mixture] = {}
    for media, shards in sources.items():
        corpora = by_name(shards)
        mixtures[media] = Mixture(
            {
                name: ShardSet(corpus.shards, media, folder, captioned=captioned)
                for name, corpus in corpora.items()
            },
            {name: c.weight for name, c in corpora.items()},
            seed,
        )
    return mixtures
