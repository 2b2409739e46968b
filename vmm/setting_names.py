"""Misspelt settings of recipes and command lines, found before anything heavy is loaded.

What a class takes is read off its source text. Where that does not tell, nothing is said here: the
parser of ``vmm.recipe_parser``, which imports the classes, looks at everything again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vmm.recipe_files import merged, read_recipes, source_of

_TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
_NODE = ("class_path", "init_args", "dict_kwargs", "help")
"""What stands beside a class rather than being a setting of it."""


def refuse_misspelt(arguments: Sequence[str]) -> None:
    """Refuse settings that a class of vmm, or the trainer, does not take.

    Args:
        arguments: The command line, as ``vmm.recipe_files.prepared`` gives it.

    Raises:
        ValueError: With the setting and the nearest one.
    """
    recipe = merged(read_recipes(arguments))
    if isinstance(recipe.get("trainer"), Mapping):
        recipe["trainer"] = {"class_path": _TRAINER, "init_args": recipe["trainer"]}
    for path, owner, name in _settings(recipe):
        _refuse(path, owner, name)
    options = [word[2:].partition("=")[0] for word in arguments if word.startswith("--")]
    options = [option.removesuffix("+") for option in options]  # which appends to a list
    for option in options:
        parts = option.split(".")
        above = {".".join(parts[:length]) for length in range(1, len(parts))}
        if above.isdisjoint(options):  # else a class may be named there, or a file of one
            for path, owner, name in _on_the_way(recipe, parts):
                _refuse(path, owner, name)


def _refuse(path: str, owner: str, name: str) -> None:
    known = parameters(owner)
    if known is None or name in known:
        return
    near = get_close_matches(name, sorted(known), n=1)
    if near:  # what looks like nothing may be said better by what knows all classes
        path = path.replace("trainer.init_args.", "trainer.")
        meant = f"trainer.{near[0]}" if owner == _TRAINER else near[0]
        raise ValueError(f"there is no setting {path}; did you mean {meant!r}?")


def _settings(node: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Give every setting of a class: where it stands, whose it is and its name."""
    if not isinstance(node, Mapping):
        return
    owner, own = node.get("class_path"), node.get("init_args")
    for name, value in node.items():
        yield from _settings(value, f"{path}.{name}" if path else str(name))
    if isinstance(owner, str) and isinstance(own, Mapping):
        yield from ((f"{path}.init_args.{name}", owner, str(name)) for name in own)


def _on_the_way(node: Any, parts: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Give the settings of classes that an option goes through; ``init_args`` may be left out."""
    path = ""
    for part in parts:
        if not isinstance(node, Mapping):
            return
        owner = node.get("class_path")
        if isinstance(owner, str) and part not in _NODE:
            if not path.endswith(".init_args"):
                path += ".init_args"
            yield f"{path}.{part}", owner, part
            node = (node.get("init_args") or {}).get(part)
        elif not (isinstance(owner, str) and part == "init_args"):
            node = node.get(part)
        path = f"{path}.{part}" if path else part


@cache
def parameters(name: str) -> frozenset[str] | None:
    """Name what a class takes; None if its source does not tell.

    Args:
        name: Of the class, with its module.
    """
    module, _, own = name.rpartition(".")
    tree = _tree(module)
    found = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == own] if tree else []
    if tree is None or not found:
        return None
    makers = [n for n in found[0].body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if not makers and (found[0].decorator_list or not found[0].bases):
        return None
    names = set()
    for maker in makers:
        names = {one.arg for one in (*maker.args.args[1:], *maker.args.kwonlyargs)}
        if maker.args.kwarg is None:
            return frozenset(names)
    above = (parameters(_whole_name(module, tree, base)) for base in found[0].bases)
    told = [inherited for inherited in above if inherited is not None]  # others may be mixins
    return frozenset(names).union(*told) if told else None


@cache
def _tree(module: str) -> ast.Module | None:
    """Read a module of vmm, or that of the trainer."""
    if f"{module}.Trainer" == _TRAINER:
        package = find_spec("lightning")
        places = [] if package is None else package.submodule_search_locations or []
        file = Path(*places, *module.split(".")[1:]).with_suffix(".py")
    else:
        file = source_of(module) if module.startswith("vmm.") else Path()
    return ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else None


def _whole_name(module: str, tree: ast.Module, base: ast.expr) -> str:
    """Give the base of a class with its module; "" if no `from` of the file tells."""
    first, _, rest = ast.unparse(base).partition("[")[0].partition(".")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == first:
            return f"{module}.{first}"
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for one in node.names:
                if (one.asname or one.name) == first:
                    return ".".join(filter(None, (node.module, one.name, rest)))
    return ""
