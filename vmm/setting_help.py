"""``vmm fit --help SETTING``: what a setting means, its type and default, off signatures."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, get_args

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from vmm import fit_help
from vmm.data.demo import WebVideoData
from vmm.recipe_files import merged
from vmm.runs import TASKS
from vmm.trainer_cli import CALLBACKS

_COLUMNS = 100
_PARTS = {"trainer": Trainer, "data": WebVideoData, **CALLBACKS}
_DEEPEST = 3
"""Classes within classes that a word without its place is looked for in."""


@dataclass(frozen=True)
class Setting:
    """A constructor argument as the command line takes it.

    Args:
        name: With the parts that it belongs to, e.g. "model.proj_dim".
        owner: Class that takes it.
        kind: Its type.
        default: Of the signature.
        about: Of the docstring.
    """

    name: str
    owner: type
    kind: Any
    default: Any
    about: str

    def what(self) -> str:
        """Write type and default down."""
        kind = self.kind.__name__ if isinstance(self.kind, type) else str(self.kind)
        kind = re.sub(r"(?<![\w.])(typing|collections\.abc)\.|vmm\.[\w.]*\.", "", kind)
        needed = getattr(self.default, "__name__", str(self.default)) in ("_empty", "UNSET")
        default = "none, it must be given" if needed else f"default: {_yaml(self.default)}"
        return f"{kind}; {default}"


def explain(word: str, recipes: Sequence[Mapping[str, Any]]) -> str:
    """Explain a setting, or list those of a part.

    Args:
        word: Name of a setting, with the parts that it belongs to or without; or of a part.
        recipes: Of the command line; which classes they name decides whose settings these are.
            Without a model in them, those of all tasks.

    Raises:
        ValueError: If there is no such setting.
    """
    recipe = merged(recipes)
    word = word.replace("init_args.", "").replace("-", "_")
    parts = {name: _classes(recipe.get(name), base) for name, base in _PARTS.items()}
    parts["model"] = _classes(recipe.get("model"), None)
    first, _, rest = word.partition(".")
    if word in fit_help.PLAIN:
        return f"--{word}\n  {fit_help.PLAIN[word]}"
    if first in parts:
        owners = _owners(parts[first], first, rest, recipe)
        if owners:
            return "\n\n".join(_list(name, owner, recipe) for name, owner in owners)
        places: list[tuple[str, type]] = [(first, owner) for owner in parts[first]]
        path = word.rpartition(".")[0]
        if path != first:
            places = _owners(parts[first], first, rest.rpartition(".")[0], recipe)
        found = [s for name, owner in places for s in settings_of(owner, name) if s.name == word]
    else:
        everywhere = [
            setting for name, owners in parts.items() for owner in owners
            for setting in _below(name, owner, recipe)
        ]  # fmt: skip
        tail = f"_{word.replace('.', '_')}"
        found = [s for s in everywhere if s.name.replace(".", "_").endswith(tail)]
    if not found:
        raise ValueError(f"there is no setting {word}{_near(word, parts, recipe)}")
    return "\n\n".join(_entry(name, same, recipe) for name, same in _alike(found))


def settings_of(owner: type, name: str) -> list[Setting]:
    """List the settings of a class.

    Args:
        owner: The class; its bases' settings count if it hands them on.
        name: Under which the command line has it.
    """
    parser = ArgumentParser()
    parser.add_class_arguments(owner, "it", fail_untyped=False, as_group=False)
    settings = []
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        is_setting = action.dest.startswith("it.") and kind is not None
        if is_setting and not action.dest.endswith(".help"):
            about = " ".join(str(action.help or "").split())
            about = "" if about == "==SUPPRESS==" else about
            full = f"{name}{action.dest[2:]}"
            settings.append(Setting(full, owner, kind, action.default, about))
    return settings


def names() -> list[str]:
    """List the settings of all parts, those of the classes of a recipe left out."""
    found = [s.name for part, owner in _PARTS.items() for s in settings_of(owner, part)]
    found += [s.name for task in _classes(None, None) for s in settings_of(task, "model")]
    return [*dict.fromkeys([*fit_help.PLAIN, *(s.name for s in fit_help.SETTINGS), *found])]


def _classes(node: Any, base: type | None) -> list[type]:
    """Give the class of a node of the recipe; without one the usual, or all tasks."""
    named = node.get("class_path") if isinstance(node, Mapping) else None
    if isinstance(named, str) and "." in named:
        return [_imported(named)]
    if base is not None:
        return [base]
    return [_imported(path) for path in TASKS if path.startswith("vmm.tasks.")]


def _imported(path: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        found: type = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no class {path}: {error}") from error
    return found


def _node(recipe: Any, name: str) -> Any:
    """Find what a recipe has under a name; None if nothing."""
    node = recipe
    for part in name.split("."):
        if not isinstance(node, Mapping):
            return None
        node = node[part] if part in node else (node.get("init_args") or {}).get(part)
    return node


def _owners(
    start: Sequence[type], name: str, path: str, recipe: Mapping[str, Any]
) -> list[tuple[str, type]]:
    """Follow a path of settings to the classes at its end; none if it ends at a plain value."""
    if not path:
        return [(name, owner) for owner in start]
    first, _, rest = path.partition(".")
    inner = f"{name}.{first}"
    found = [s for owner in start for s in settings_of(owner, name) if s.name == inner]
    classes = dict.fromkeys(owner for s in found for owner in _inside(s, recipe))
    return _owners(list(classes), inner, rest, recipe) if classes else []


def _inside(setting: Setting, recipe: Mapping[str, Any]) -> list[type]:
    """Give the classes whose settings are settings of a setting."""
    node = _node(recipe, setting.name)
    named = node.get("class_path") if isinstance(node, Mapping) else None
    if isinstance(named, str) and "." in named:
        return [_imported(named)]
    ours = [kind for kind in _kinds(setting.kind) if kind.__module__.startswith("vmm.")]
    return [one for kind in ours for one in _whole(kind)]


def _kinds(kind: Any) -> list[type]:
    """Give the classes that a type is made of, also what a callable returns."""
    inner = [one for part in get_args(kind) for one in _kinds(part)]
    return [kind, *inner] if isinstance(kind, type) else inner


def _whole(kind: type) -> list[type]:
    """Give a class, or those that are built in its place."""
    direct: list[type] = kind.__subclasses__()
    below = [cls for child in direct for cls in _whole(child)]
    is_whole = not kind.__name__.startswith("_") and not getattr(kind, "__abstractmethods__", None)
    return [cls for cls in [kind] if is_whole] + below


def _below(name: str, owner: type, recipe: Mapping[str, Any], depth: int = 1) -> Iterator[Setting]:
    for setting in settings_of(owner, name):
        yield setting
        if depth < _DEEPEST:
            for inner in _inside(setting, recipe):
                yield from _below(setting.name, inner, recipe, depth + 1)


def _alike(found: Sequence[Setting]) -> list[tuple[str, list[Setting]]]:
    """Put together what several classes have under one name and explain in the same words."""
    groups: dict[tuple[str, str, str], list[Setting]] = {}
    for setting in found:
        same = groups.setdefault((setting.name, setting.what(), setting.about), [])
        if setting.owner not in [one.owner for one in same]:
            same.append(setting)
    return [(key[0], settings) for key, settings in groups.items()]


def _entry(name: str, same: Sequence[Setting], recipe: Mapping[str, Any]) -> str:
    setting, node = same[0], _node(recipe, name)
    lines = [f"--{name}  ({', '.join(one.owner.__name__ for one in same)})"]
    text = setting.about or "(its docstring says nothing)"
    lines.append(textwrap.fill(text, _COLUMNS, initial_indent="  ", subsequent_indent="  "))
    lines.append(f"  {setting.what()}")
    if isinstance(node, Mapping) and "class_path" in node:
        lines.append(f"  in these recipes: {node['class_path']}")
    elif node is not None:
        lines.append(f"  in these recipes: {_yaml(node)}")
    if inside := _inside(setting, recipe):
        lines.append(f"  with settings of its own: {', '.join(cls.__name__ for cls in inside)}")
    return "\n".join(lines)


def _list(name: str, owner: type, recipe: Mapping[str, Any]) -> str:
    lines = [f"{name}: {owner.__module__}.{owner.__qualname__}"]
    for setting in settings_of(owner, name):
        node = _node(recipe, setting.name)
        value = setting.default if node is None else node
        here = f" [{_yaml(value)}]" if isinstance(value, str | int | float) else ""
        about = re.split(r"(?<!e\.g)\. ", setting.about)[0].rstrip(".")
        line = f"  --{setting.name}{here}  {about}"
        lines.append(line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 4]} ...")
    return "\n".join([*lines, f"`--help {name}.NAME` says all of one."])


def _near(word: str, parts: Mapping[str, Sequence[type]], recipe: Mapping[str, Any]) -> str:
    known = [
        setting.name for name, owners in parts.items() for owner in owners
        for setting in _below(name, owner, recipe)
    ]  # fmt: skip
    near = get_close_matches(word, [*known, *parts], n=1)
    if not near:
        last = {name.rpartition(".")[2]: name for name in reversed(known)}
        near = [last[one] for one in get_close_matches(word.rpartition(".")[2], last, n=1)]
    return f"; did you mean {near[0]}?" if near else "; `vmm fit --help` says how to find one"


def _yaml(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
