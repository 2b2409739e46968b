"""Nodes of a recipe, ``class_path`` and ``init_args``, as untrusted input.

A class that a node names is built only if it is one of vmm's models or already imported by the
caller.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

from torch import nn

from vmm.settings import make

_Part = TypeVar("_Part", bound=nn.Module)
_Any = TypeVar("_Any")

_MODEL_ROOT = "vmm.models."


def build_node(node: Any, base: type[_Part], *args: Any) -> _Part:
    """Build what a ``class_path`` / ``init_args`` node describes, if it is a ``base``."""
    return make(class_of(node, base), init_args_of(node), *args)


def class_of(node: Any, base: type[_Part]) -> type[_Part]:
    """Find the class that a node's ``class_path`` names.

    Raises:
        ValueError: If it is no ``base`` of vmm or of a module that is imported already.
    """
    name = node.get("class_path") if isinstance(node, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"the run's recipe has no class_path for its {base.__name__}")
    module = name.rpartition(".")[0]
    if module.startswith(_MODEL_ROOT):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(f"the recipe names {name}, which this vmm does not have") from error
    whole = [cls for cls in [base, *subclasses(base)] if not inspect.isabstract(cls)]
    known = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in whole}
    if name not in known:
        raise ValueError(
            f"the recipe names {name}, which is no {base.__name__} of vmm; "
            "if it is yours, import its module before loading the run"
        )
    return known[name]


def subclasses(base: type[_Any]) -> list[type[_Any]]:
    """List all classes below a class that are imported."""
    direct = base.__subclasses__()
    return direct + [cls for child in direct for cls in subclasses(child)]


def init_args_of(node: Any) -> dict[str, Any]:
    """Give the constructor arguments of a recipe node; a missing node has none."""
    args = node.get("init_args") if isinstance(node, Mapping) else None
    return dict(args) if isinstance(args, Mapping) else {}
