"""What a shard's index holds for a run: the samples of one media type, and what is left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self, get_args

from vmm.data.faults import BadSample
from vmm.data.index import MAX_TEXT_BYTES, Entry, ShardIndex, Stamp
from vmm.data.schema import Media, media_member, no_caption


class Selection(NamedTuple):
    """Which samples a run uses."""

    media: Media
    """What they must have."""
    captioned: bool = True
    """Whether those without a caption are left out."""

    def usable(self, index: ShardIndex) -> list[Entry]:
        """Return the samples of a shard that are used, in its order."""
        return [
            entry
            for entry in index.entries
            if (entry.captioned or not self.captioned) and media_member(entry.members, self.media)
        ]

    def parts(self, entry: Entry) -> dict[str, tuple[int, int]]:
        """Return the members that are read: the media and all texts."""
        wanted = (media_member(entry.members, self.media), *MAX_TEXT_BYTES)
        return {name: entry.members[name] for name in wanted if name in entry.members}

    def unused(self, name: str, index: ShardIndex) -> Iterator[BadSample]:
        """Name every sample and member of a shard, called ``name``, that is not used."""
        for entry in index.entries:
            if media_member(entry.members, self.media) is None:
                yield BadSample(name, entry.key, f"no {self.media}", entry.failure)
            elif self.captioned and not entry.captioned:
                yield BadSample(name, entry.key, no_caption(entry.failure), entry.failure)
        for member, reason in index.ignored:
            yield BadSample(name, member, f"member {reason}")


@dataclass(frozen=True)
class Summary:
    """What a selection takes of a shard, in a few numbers: all that a start has to know."""

    samples: int
    """That are used."""
    complete: int
    """Of any kind."""
    digest: str
    """Of the keys and places of the samples that are used, in their order."""
    left_out: dict[str, int]
    """Reason -> samples and members that are not used."""
    damage: str | None = None
    """Why the shard could not be read to its end, None if it could."""
    stamp: Stamp | None = None
    """Of the shard; None if it could not be opened."""

    @classmethod
    def of(cls, index: ShardIndex, selection: Selection) -> Self:
        """Summarise an index."""
        usable = selection.usable(index)
        places = repr([(entry.key, selection.parts(entry)) for entry in usable])
        return cls(
            len(usable),
            len(index.entries),
            hashlib.blake2b(places.encode(), digest_size=8).hexdigest(),
            dict(Counter(sample.reason for sample in selection.unused("", index))),
            index.damage,
            index.stamp,
        )

    @classmethod
    def stored(cls, written: dict[str, Any], stamp: Stamp) -> Self:
        """Undo ``summaries``.

        Raises:
            ValueError: If no shard can be like that; LookupError or TypeError for other nonsense.
        """
        samples, complete = int(written["samples"]), int(written["complete"])
        left_out = {str(reason): int(count) for reason, count in written["left_out"].items()}
        if not 0 <= samples <= complete or min(left_out.values(), default=1) < 1:
            raise ValueError(f"no shard has {samples} of {complete} samples, without {left_out}")
        damage = written["damage"]
        return cls(
            samples,
            complete,
            str(written["digest"]),
            left_out,
            None if damage is None else str(damage),
            stamp,
        )


def selections() -> list[Selection]:
    """List all that can be selected."""
    return [Selection(media, flag) for media in get_args(Media) for flag in (True, False)]


def summaries(index: ShardIndex) -> dict[str, dict[str, Any]]:
    """Summarise an index for every selection, in a form for JSON, by ``selection_name``."""
    every = {selection_name(own): asdict(Summary.of(index, own)) for own in selections()}
    for summary in every.values():
        del summary["stamp"]
    return every


def selection_name(selection: Selection) -> str:
    """Name a selection in a file."""
    return f"{selection.media}{' captioned' if selection.captioned else ''}"
