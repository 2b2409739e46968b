"""What somebody's shards hold, as far as a recipe depends on it. No media are decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vmm.data.caption_sample import sample_captions
from vmm.data.index_files import load_indexes
from vmm.data.patterns import SHARD_SUFFIX, expand_shards
from vmm.data.schema import VIDEO_EXTENSIONS
from vmm.shards.splits import PARTS

_LOOKED_AT = 10_000
PartT = TypeVar("PartT")


@dataclass(frozen=True)
class Part:
    """The shards of one part.

    Attributes:
        shards: As a recipe names them.
        clips: Videos with a caption.
        without_caption: Videos without one.
        captions: Of some of the clips.
    """

    shards: str | list[str]
    clips: int
    without_caption: int
    captions: list[str]

    @property
    def repeated(self) -> float:
        """Share of the captions that are another clip's, too."""
        counts = Counter(self.captions)
        return sum(n for n in counts.values() if n > 1) / max(1, len(self.captions))


def find_parts(
    given: Sequence[str],
    validation: str | None,
    test: str | None,
    look: Callable[[str | list[str], str], PartT],
) -> dict[str, PartT]:
    """Find the parts of a data set.

    Args:
        given: Shards to train on; or the one folder that ``vmm shards make --split`` wrote, which
            has the others, too.
        validation: Shards to validate on, where they are elsewhere.
        test: Shards to test on.
        look: Gives what there is to know of the shards of a part; see ``look_at_captions``.

    Returns:
        By the names of ``PARTS``; training and validation are always there.

    Raises:
        ValueError: If shards are missing, or ``look`` has nothing to learn from.
    """
    named: dict[str, str | list[str] | None] = {
        "train": given[0] if len(given) == 1 else list(given),
        "validation": validation,
        "test": test,
    }
    folder = Path(given[0])
    if folder.is_file() and folder.suffix != SHARD_SUFFIX:
        raise ValueError(
            f"{folder} is no shard; make some of it first: `vmm shards make {folder} FOLDER -o "
            "SHARDS --split 80/10/10`"
        )
    if len(given) == 1 and folder.is_dir() and not list(folder.glob(f"*{SHARD_SUFFIX}")):
        inside = {part: str(folder / part) for part in PARTS if (folder / part).is_dir()}
        if "train" not in inside:
            raise ValueError(
                f"{folder} has neither shards nor a folder train of them; make them by `vmm shards "
                "make CLIPS.csv FOLDER -o SHARDS --split 80/10/10`"
            )
        named = {part: inside.get(part, named[part]) for part in PARTS} | {
            part: other for part, other in named.items() if part != "train" and other is not None
        }
    if named["validation"] is None:
        expand_shards(given, quiet=True)  # a name that is nowhere is said first
        raise ValueError(
            f"there are no validation shards beside {', '.join(given)}; name some with "
            "--validation, or make all parts at once by `vmm shards make ... --split 80/10/10`: "
            "without them nothing tells which checkpoint is good"
        )
    from vmm.data.corpora import warn_of_leak  # with torch

    for part in ("validation", "test"):
        warn_of_leak({"the training shards": named["train"], f"--{part}": named[part]})
    return {part: look(shards, part) for part, shards in named.items() if shards is not None}


def look_at_captions(shards: str | list[str], part: str) -> Part:
    """Count the videos of shards.

    Raises:
        ValueError: If there is none with a caption.
    """
    paths = expand_shards(shards)
    clips = without = 0
    for index in load_indexes(paths):
        for entry in index.entries:
            if not entry.members.keys().isdisjoint(VIDEO_EXTENSIONS):
                clips += entry.captioned
                without += not entry.captioned
    if not clips:
        raise ValueError(
            f"the {part} shards {shards} have no video with a caption"
            + (f" ({without} without)" if without else "")
            + "; `vmm shards inspect` shows what they hold, and `vmm init --task classification` "
            "trains on classes"
        )
    return Part(shards, clips, without, sample_captions(paths, _LOOKED_AT))
