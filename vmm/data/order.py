"""The order of training samples as a pure function of (seed, pass, position).

Nothing here depends on workers or ranks: they only divide the work. So a run can stop anywhere and
go on with the same global batches, also on another number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from vmm.types import Media


def derive_seed(*parts: object) -> int:
    """Hash anything with a stable ``repr`` to a 63-bit seed, equal on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_rng(*parts: object) -> np.random.Generator:
    """Return a counter-based generator for a hash of the parts."""
    return np.random.Generator(np.random.Philox(derive_seed(*parts)))


class ShardOrder:
    """Where the sample at a position of a pass is.

    Every pass visits each sample once: the shards are shuffled, then the samples inside windows
    of a few shards, so that a reader touches few files at a time.

    Args:
        counts: Samples per shard.
        seed: Seed of the order.
        window: Shards whose samples are mixed.
    """

    def __init__(self, counts: Sequence[int], seed: int, window: int = 16) -> None:
        self._counts = np.asarray(counts, dtype=np.int64)
        self._seed = seed
        self._window = window
        self._pass: int | None = None
        self._block: int | None = None

    def __len__(self) -> int:
        return int(self._counts.sum())

    def locate(self, pass_number: int, position: int) -> tuple[int, int]:
        """Return (shard, sample in it) of a position in [0, len)."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        if self._pass != pass_number:
            rng = derive_rng(self._seed, "shards", pass_number)
            self._shards = rng.permutation(len(self._counts))
            self._ends = np.cumsum(self._counts[self._shards])
            self._pass, self._block = pass_number, None
        block = int(np.searchsorted(self._ends, position, side="right")) // self._window
        if self._block != block:
            first = block * self._window
            shards = self._shards[first : first + self._window]
            counts = self._counts[shards]
            rng = derive_rng(self._seed, "samples", pass_number, block)
            self._order = rng.permutation(int(counts.sum()))
            self._block_shards, self._block_ends = shards, np.cumsum(counts)
            self._start = int(self._ends[first - 1]) if first else 0
            self._block = block
        number = self._order[position - self._start]
        place = int(np.searchsorted(self._block_ends, number, side="right"))
        before = self._block_ends[place - 1] if place else 0
        return int(self._block_shards[place]), int(number - before)


class MixtureOrder:
    """Which corpus every position of a mixture takes its sample from, and which of its turns.

    A pass over the mixture takes weight x size samples from each corpus, spread evenly over the
    pass. A corpus goes on where the last pass left it, so all its samples take equal turns,
    whatever its weight is.

    Args:
        sizes: Samples of each corpus.
        weights: Passes over each corpus during one pass over the mixture.
        seed: Seed of the order.
        block: Positions within which the corpora are shuffled.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], seed: int, block: int = 4096
    ) -> None:
        self._sizes = list(sizes)
        self._turns = [
            max(1, round(size * weight)) for size, weight in zip(sizes, weights, strict=True)
        ]
        self._seed = seed
        self._blocks = -(-len(self) // block)
        self._current: tuple[int, int] | None = None

    def __len__(self) -> int:
        return sum(self._turns)

    def locate(self, position: int) -> tuple[int, int, int]:
        """Return (corpus, pass over it, place in that pass) of an endless position."""
        pass_number, position = divmod(position, len(self))
        corpus, turn = 0, position
        if len(self._turns) > 1:
            corpus, turn = self._turn(pass_number, position)
        return corpus, *divmod(pass_number * self._turns[corpus] + turn, self._sizes[corpus])

    def taken(self, positions: int) -> list[int]:
        """Return how many samples each corpus has given before an endless position."""
        pass_number, position = divmod(positions, len(self))
        if len(self._turns) == 1:
            return [positions]
        self._turn(pass_number, position)
        assert self._current is not None
        before = self._before(self._current[1])
        inside = np.bincount(self._order[: position - sum(before)], minlength=len(before))
        counts = zip(self._turns, before, inside.tolist(), strict=True)
        return [pass_number * turns + first + more for turns, first, more in counts]

    def _turn(self, pass_number: int, position: int) -> tuple[int, int]:
        """Return (corpus, how often it was taken from in this pass before)."""
        block = position * self._blocks // len(self)
        while sum(self._before(block + 1)) <= position:  # blocks differ by a few positions
            block += 1
        before = self._before(block)
        if self._current != (pass_number, block):
            taken = np.subtract(self._before(block + 1), before)
            rng = derive_rng(self._seed, "mixture", pass_number, block)
            self._order = rng.permutation(np.repeat(np.arange(len(taken)), taken))
            self._current = (pass_number, block)
        place = position - sum(before)
        corpus = int(self._order[place])
        return corpus, before[corpus] + int((self._order[:place] == corpus).sum())

    def _before(self, block: int) -> list[int]:
        """Samples that each corpus gives before a block."""
        return [turns * block // self._blocks for turns in self._turns]


class StepPlan:
    """Which media type every training step takes.

    The steps come in rounds; a round holds the whole global batches of one pass over every media
    type, in shuffled order. An epoch of a fixed number of steps is a cut through this endless
    sequence, so the proportions are exact whatever its length.

    Args:
        batches: Global batches per round of each media type, at least one each.
        seed: Seed of the shuffle.
    """

    def __init__(self, batches: Mapping[Media, int], seed: int) -> None:
        self._media = sorted(batches)
        self._round_media = np.repeat(
            np.arange(len(self._media)), [batches[media] for media in self._media]
        )
        self._seed = seed
        self._round: int | None = None

    @property
    def round_length(self) -> int:
        """Steps of a round."""
        return len(self._round_media)

    def before(self, step: int) -> dict[Media, int]:
        """Return how many batches of each media type come before a global step."""
        number, place = divmod(step, self.round_length)
        self._open(number)
        counts: dict[Media, int] = {}
        for index, media in enumerate(self._media):
            share = int((self._round_media == index).sum())
            counts[media] = number * share + int((self._order[:place] == index).sum())
        return counts

    def at(self, step: int) -> tuple[Media, int]:
        """Return (media, how many batches of it came before) of a global step."""
        number, place = divmod(step, self.round_length)
        self._open(number)
        media = self._order[place]
        share = int((self._round_media == media).sum())
        return self._media[media], number * share + int(self._batch[place])

    def _open(self, number: int) -> None:
        if self._round != number:
            rng = derive_rng(self._seed, "steps", number)
            self._order = rng.permutation(self._round_media)
            self._batch = np.empty_like(self._order)
            for media in range(len(self._media)):
                of_media = self._order == media
                self._batch[of_media] = np.arange(of_media.sum())
            self._round = number
