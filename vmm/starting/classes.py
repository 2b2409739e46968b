"""The classes of somebody's shards, as far as the recipe of a classifier depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.text_output import write_text
from vmm.whole import whole_file

if TYPE_CHECKING:
    from vmm.evaluation.common.labels import Truth


@dataclass(frozen=True)
class LabelledPart:
    """The shards of one part.

    Attributes:
        shards: As a recipe names them.
        truths: What each video is labelled with.
    """

    shards: str | list[str]
    truths: list[Truth]

    @property
    def clips(self) -> int:
        """Videos with a label."""
        return sum(truth.name is not None or truth.label is not None for truth in self.truths)


def look_at_classes(shards: str | list[str], part: str, field: str | None) -> LabelledPart:
    """Read the label of every video; nothing is decoded.

    Args:
        shards: As a recipe names them.
        part: Name, for messages.
        field: Where in the JSON the label is; None = where ``vmm shards make`` writes it.

    Raises:
        ValueError: If no video has a label, or one has several.
    """
    from vmm.data.transforms import ClipSettings  # loads torch
    from vmm.evaluation.common.labels import truths_in_shards
    from vmm.evaluation.common.sources import ShardClips

    try:
        clips = ShardClips(shards, ClipSettings(1, 224), captioned=False)
        return LabelledPart(shards, truths_in_shards(clips, field))
    except ValueError as error:
        raise ValueError(f"the {part} shards {shards}: {error}") from error


def find_classes(parts: Mapping[str, LabelledPart], out: Path) -> tuple[int, Path | None]:
    """Number the classes of all parts, and write the list of their names.

    Args:
        parts: By name.
        out: File to write the names to, one of a line, in the order of their numbers.

    Returns:
        How many there are, and the file; None where labels are numbers without names.

    Raises:
        ValueError: If there are fewer than two classes, or a number stands for two.
    """
    from vmm.evaluation.common.labels import number_classes

    classes = number_classes([truth for part in parts.values() for truth in part.truths])
    count = len(classes.names)
    if count < 2:
        raise ValueError(
            f"the clips are of {count} class, and a classifier tells at least 2 apart; add clips "
            "of others, or name the field of the class with --class-field"
        )
    if not any(classes.names):
        return count, None
    with whole_file(out) as file:
        write_text(file, "".join(f"{name or ''}\n" for name in classes.names))
    return count, out


def unseen(parts: Mapping[str, LabelledPart]) -> list[str]:
    """Name the classes that other parts have and training lacks, which it cannot learn."""

    def named(part: LabelledPart) -> set[str]:
        found = ((t.name, t.label) for t in part.truths)
        return {str(label if name is None else name) for name, label in found} - {"None"}

    others = set().union(*(named(part) for name, part in parts.items() if name != "train"))
    return sorted(others - named(parts["train"]))
