"""What is known of a data set, and telling whose a file is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NamedTuple

from vmm.data.annotations.ids import is_id_list
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.source import Source
from vmm.data.annotations.tables import CAPTION_FIELDS, CLASS_FIELDS, MEDIA_FIELDS, plain_name
from vmm.data.schema import MEDIA_EXTENSIONS, is_leftover

Reader = Callable[[Source], Iterator[Annotation]]

_TABLES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".ndjson")
_SHOWN = 12


class Dataset(NamedTuple):
    """A data set, or a format that several share."""

    read: Reader
    content: Literal["captions", "classes", "questions", "moments"]
    """Items of captions that are about the same media are merged; the others stay apart."""
    fields: tuple[str, ...] = ()
    """Fields that tell the format, words of the file's first record or of its two outermost
    levels; one of these alternatives must be there."""
    files: tuple[str, ...] = ()
    """Usual file names, as patterns."""
    sizes: dict[str, int] = {}  # noqa: RUF012  # never changed
    """Published split -> videos or images, of question sets questions, of moments sentences."""
    paragraph: bool = False
    """Whether its protocol joins the captions of a video to one."""
    odd: dict[str, int] = {}  # noqa: RUF012  # never changed
    """Published split -> rows of its official file that cannot be used."""
    plain: bool = False
    """Whether it is a table of somebody's own: any spelling of its fields will do, and a set
    that asks for as many others is meant before it."""


def fit(dataset: Dataset, source: Source) -> int:
    """Count the fields by which a file is known as the data set's; 0 if it is not."""
    there = source.fields
    if dataset.plain:
        there = frozenset(map(plain_name, there))
    alternatives = [frozenset(words.split()) for words in dataset.fields]
    return max((len(words) for words in alternatives if words <= there), default=0)


def tell(source: Source, datasets: Mapping[str, Dataset]) -> str:
    """Tell whose file it is.

    Args:
        source: The file.
        datasets: All that there are, by name.

    Raises:
        ValueError: If none or several fit.
    """
    fitting = {name: size for name, one in datasets.items() if (size := fit(one, source))}
    found = [name for name, size in fitting.items() if size == max(fitting.values())]
    own = [name for name in found if datasets[name].plain]
    found = [name for name in found if name not in own] or own[:1]
    if len(found) != 1:
        file = source.path.name
        named = [name for name in found or datasets
                 if any(fnmatch(file, pattern) for pattern in datasets[name].files)]  # fmt: skip
        found = named or found
    if len(found) != 1:
        refuse_id_list(source)
        choice = "name the data set: " + " or ".join(found or datasets)
        if not found and source.suffix in _TABLES:  # most likely one's own, not one of forty
            choice = "a published data set's needs --dataset (`vmm shards make --help`)"
        raise ValueError(
            f"cannot tell whose annotations {source.path} holds{_fields_and_remedy(source)}; "
            f"{choice}"
        )
    return found[0]


def refuse_id_list(source: Source) -> None:
    """Refuse a list of ids in the place of annotations."""
    if is_id_list(source):
        raise ValueError(
            f"{source.path} is a list of ids, no annotations: give it as --ids, and the annotation "
            "file that it chooses from"
        )


def inside(folder: Path) -> str:
    """Say which one table a folder holds, as the end of a sentence; nothing if not one."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in _TABLES and p.suffix != ".txt"]
    found = [path for path in files if path.is_file() and not is_leftover(path.name)]
    return f"; it holds {found[0].name}" if len(found) == 1 else ""


def _fields_and_remedy(source: Source) -> str:
    """Say what was found and what a table of one's own must have."""
    fields = sorted(source.fields)
    shown = ", ".join(fields[:_SHOWN]) or "none"
    if source.suffix not in _TABLES:
        return f" (its fields: {shown})"
    media = {extension for names in MEDIA_EXTENSIONS.values() for extension in names}
    if not fields:
        return ": it is empty; begin it with a line of names, video,caption"
    if any(name.rpartition(".")[2].lower() in media for name in fields if "." in name):
        named = "video,caption"
        return f": its first line is a record ({shown}); begin it with a line of names, {named}"
    return (
        f" (its columns: {shown}): a table of your own has a column of files, called one of "
        f"{', '.join(MEDIA_FIELDS)}, and one of captions, called one of "
        f"{', '.join(CAPTION_FIELDS)}, or of classes, {', '.join(CLASS_FIELDS)}; rename them in "
        "the first line"
    )
