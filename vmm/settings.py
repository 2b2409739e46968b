"""Settings from a file against the signature of what is made with them."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_Made = TypeVar("_Made")
_LARGEST = 2**31
"""No size of a model is as large: PyTorch could not even say that the memory does not suffice."""


def make(function: Callable[..., _Made], values: Mapping[str, Any], *given: Any) -> _Made:
    """Call a constructor with settings that nobody has checked.

    Args:
        function: A class, or what else makes something.
        values: Its arguments by name, as a file has them.
        given: Arguments before these.

    Raises:
        ValueError: If a name is unknown or missing, a value is of another type than the signature
            says, or nothing can be made of the values.
    """
    name = getattr(function, "__name__", "this")
    try:
        inspect.signature(function).bind(*given, **values)
    except TypeError as error:
        raise ValueError(f"the settings do not fit {name}: {error}") from error
    kinds = _kinds(function)
    values = {key: _made(value, kinds.get(key)) for key, value in values.items()}
    for key, kind in kinds.items():
        if key in values and not _fits(values[key], kind):
            shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            raise ValueError(f"{key} of {name} is {values[key]!r:.80}, it must be {shown}")
    try:
        return function(*given, **values)
    except (RuntimeError, MemoryError) as error:  # sizes below zero or beyond all memory
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be made with these settings: {reason}") from error


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the arguments, as far as they can be found out."""
    init = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    try:
        return get_type_hints(init)
    except (NameError, TypeError):  # somebody's own class, with names known to its checker only
        return {}


def _made(value: Any, kind: Any) -> Any:
    """Make the dataclass that settings inside of settings describe, where one is wanted."""
    wanted = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and is_dataclass(one)]
    return make(wanted[0], value) if wanted and isinstance(value, Mapping) else value


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of a type, as far as files can hold such values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str | int) and value in arguments
    if origin is tuple and ... not in arguments:
        fitting = isinstance(value, list | tuple) and len(value) == len(arguments)
        return fitting and all(map(_fits, value, arguments))
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST
    if kind is float:
        return type(value) is int or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, kind) if isinstance(kind, type) else True


def class_paths(node: Any) -> Iterator[str]:
    """Name every class that a recipe, or a part of one, names."""
    if isinstance(node, Mapping) and "class_path" in node:
        yield str(node["class_path"])
    values = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for value in values:
        yield from class_paths(value)
