"""Lists of class names: which number each class has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmm.data.annotations.source import Source
from vmm.recipe_files import here_or_packaged

# What tables of classes call their columns.
_NAME_COLUMNS = ("name", "class_name", "label_name", "label", "class", "action")
_NUMBER_COLUMNS = ("id", "class_id", "label_id", "index", "number", "label")


def read_class_names(path: Path) -> list[str | None]:
    """Read class names in the order of their numbers.

    Args:
        path: Text with a name per line, a table of ``id, name``, a JSON list, or JSON between names
            and numbers. A blank line stands for a class without a name.

    Raises:
        ValueError: If it is none of these, a name is twice, or the numbers are not 0 to n - 1.
    """
    source = Source(Path(here_or_packaged(str(path))))
    names: Any
    if source.suffix == ".json":
        names = source.content
        if isinstance(names, dict):
            names = _in_order(source, [(_unquoted(n), v) for n, v in names.items()])
        elif isinstance(names, list):
            names = [None if name == "" else name for name in names]
    elif pairs := _numbered(source):
        names = _in_order(source, pairs)
    else:
        lines = source.lines()
        header = bool(lines) and lines[0].lower() in _NAME_COLUMNS
        names = [_unquoted(line) or None for line in lines[header:]]
    if not isinstance(names, list) or not any(names) or not all(map(_is_name, names)):
        raise source.wrong(
            "class names: one per line, `id,name` per line, a JSON list, or JSON from names to "
            "numbers"
        )
    said = [name for name in names if name is not None]
    if len(set(said)) < len(said):
        raise source.wrong("every class once")
    return list(names)


def _is_name(name: object) -> bool:
    return name is None or isinstance(name, str)


def _unquoted(name: str) -> str:
    """Take off the quotes that some published lists have around their names."""
    return name[1:-1].strip() if len(name) > 1 and name[0] == name[-1] == '"' else name


def _numbered(source: Source) -> list[tuple[str, Any]]:
    """Take names and numbers from a table of both, with a header or without; else nothing."""
    lines = [line for line in source.lines() if line]
    header = re.split(r"\s*[,;\t]\s*", lines[0]) if lines else []
    columns = [
        (name, number) for name in _NAME_COLUMNS for number in _NUMBER_COLUMNS
        if len(header) > 1 and name != number and {name, number} <= set(header)
    ]  # fmt: skip
    if columns:
        name, number = columns[0]
        return [(row.text(name), row.values.get(number)) for row in source.rows()]
    found = [re.fullmatch(r"(\d+)\s*[\s,;:]\s*(\S.*)", line) for line in lines]
    pairs = [(_unquoted(match[2]), match[1]) for match in found if match]
    return pairs if len(pairs) == len(lines) > 0 else []


def _in_order(source: Source, pairs: Sequence[tuple[str, Any]]) -> list[str]:
    """Sort names by their numbers; in JSON either may be the key."""
    if not all(_is_number(number) for _, number in pairs):
        pairs = [(name, number) for number, name in pairs]
    numbers = {
        name: int(number) for name, number in pairs if isinstance(name, str) and _is_number(number)
    }
    if sorted(numbers.values()) != list(range(len(pairs))):
        first = min(numbers.values(), default=0)
        begin = f"; these begin at {first}" if first else ""
        raise source.wrong(f"numbers from 0 to {len(pairs) - 1}, each once{begin}")
    return sorted(numbers, key=numbers.__getitem__)


def _is_number(value: object) -> bool:
    text = str(value) if type(value) in (int, str) else ""
    return text.isdecimal() and len(text) < 10


def plain_name(name: str) -> str:
    """A name as far as spelling matters: files differ in case, underscores and brackets."""
    return " ".join(name.lower().replace("_", " ").replace("[", "").replace("]", "").split())


class ClassList:
    """The classes that a model tells apart, and the number that each label stands for.

    Args:
        num_classes: Classes of the model.
        file: Their names in the order of their numbers, see ``read_class_names``; None = labels
            are numbers.

    Raises:
        ValueError: If the file cannot be read or has another number of classes.
    """

    def __init__(self, num_classes: int, file: Path | None = None) -> None:
        self.num_classes = num_classes
        self.file = file
        self.names = [None] * num_classes if file is None else read_class_names(file)
        if len(self.names) != num_classes:
            raise ValueError(
                f"{file} lists {len(self.names)} classes and model.init_args.num_classes is "
                f"{num_classes}; make them equal"
            )
        self._numbers = {plain_name(n): i for i, n in enumerate(self.names) if n is not None}

    def number(self, label: tuple[str | None, float | None], key: str) -> int:
        """Find the number of a label.

        Args:
            label: Name of the class, or its number, or both.
            key: Of the sample, for messages.

        Raises:
            ValueError: If it is none of these classes, or its name and its number are of two.
        """
        name, number = label
        listed = None if name is None else self._numbers.get(plain_name(name))
        if number is None:
            if listed is not None:
                return listed
            if self.file is None:
                raise ValueError(
                    f"{key} is labelled {name!r}, and nobody says which number that is; give the "
                    "list of the classes, model.init_args.classes"
                )
            raise ValueError(
                f"{key} is labelled {name!r}, which is none of the {self.num_classes} classes of "
                f"{self.file}; is that the list of another data set?"
            )
        if not 0 <= number < self.num_classes or number != int(number):
            raise ValueError(
                f"{key} has label {number}, and model.init_args.num_classes {self.num_classes} "
                f"means 0 to {self.num_classes - 1}; set it to the data set's number of classes"
            )
        if listed not in (None, number):
            raise ValueError(
                f"{key} is labelled {name!r} and {number}, which in {self.file} is "
                f"{self.names[int(number)]!r}; give the list whose order the labels have"
            )
        return int(number)
