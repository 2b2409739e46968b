"""Reading recipes and the options beside them; a mistake costs one sentence, not a page."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import Namespace, get_loader, set_loader
from jsonargparse.typing import Path_fr
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer

from vmm.command_line import DEBUG, MISTAKE
from vmm.data.demo import WebVideoData
from vmm.models.clip_tower import read_config
from vmm.models.recipe_nodes import subclasses
from vmm.recipe_files import did_you_mean, here_or_packaged, nearest_class
from vmm.text_output import complain

_PLAIN_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
}
_NOISE = re.compile(
    r"Does not validate against any|Subtypes:|Errors:|Expected a .*(?:class|None)|Giv(en|ing) value"
)
_LONGEST = 400  # characters of a sentence of a library's


class RecipeParser(LightningArgumentParser):
    """The parser of ``vmm fit`` and its like: errors are one sentence with the nearest key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Abbreviations would be taken on the command line but not in a recipe.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add the settings of a class.

        A value that may be plain text is never read from a file of that name: it may be a shard.
        """
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        for action in self._actions:
            kind = getattr(action, "_typehint", None)
            if str in get_args(kind):
                action._enable_path = False  # type: ignore[attr-defined]
            if get_origin(kind) in (Union, UnionType):
                action._typehint = _whole_first(kind)  # type: ignore[attr-defined]
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the mistake and what was probably meant, then exit with status 2."""
        if os.environ.get(DEBUG) or not self.exit_on_error:
            super().error(message, ex)
        near = _nearest(getattr(ex, "subcommand_parser", None) or self, message)
        hint = f"; did you mean {near!r}?" if near else ""
        complain(f"vmm: error: {one_sentence(message)}{hint}")
        raise SystemExit(MISTAKE)


def _whole_first(union: Any) -> Any:
    """Try a value as a whole number before as another: 1 batch is not 1.0, which means all.

    The kinds of a union of typing are in the order in which any module named the same ones before.
    """
    kinds = list(get_args(union))
    if int not in kinds or float not in kinds[: kinds.index(int)]:
        return union
    kinds.remove(int)
    kinds.insert(kinds.index(float), int)
    return functools.reduce(operator.or_, kinds)


def _load(text: str) -> Any:
    """Read YAML; a file that is not beside its recipe but comes with vmm is found there."""
    return _found(_load_yaml(text))


def _found(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _found(value) for key, value in node.items()}
    if not isinstance(node, str) or not node.endswith(".yaml"):
        return node
    try:
        Path_fr(node)  # knows whose folder names are of just now
    except TypeError:
        return here_or_packaged(node)
    return node


_load_yaml = get_loader("yaml")
set_loader("yaml", _load, (yaml.YAMLError,))

_MOVED = {"make_demo": "; the class_path vmm.data.demo.WebVideoData has it, or leave it out"}
"""Settings of older recipes -> where they are."""


def one_sentence(message: str) -> str:
    """Say in one sentence what jsonargparse says on a page.

    Its page tells of every type that it tried, one inside the other; the innermost is about what
    the user wrote.
    """
    if message.startswith("the following arguments are required"):
        return "there is no recipe; name one, e.g. -c stage2_vtt.yaml"
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    key = ".init_args.".join(keys)
    inmost = message[message.rindex("Parser key") :] if keys else message
    refused = re.search(r"Option '([\w.]+)' is not accepted|arguments: --([\w.]+)", inmost)
    if keys and refused:
        name = refused[1] or refused[2]
        return f"there is no setting {key}.init_args.{name}{_MOVED.get(name, '')}"
    required = re.search("the following arguments are required: (.*)", inmost)
    if keys and required:
        return f"{key}.init_args needs {required[1]}"
    unknown = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", inmost)
    if keys and unknown:
        near = get_close_matches(unknown[2], dir(import_module(unknown[1])), n=1)
        hint = f"; did you mean {unknown[1]}.{near[0]}?" if near else ""
        return f"{key}: {unknown[0]}{hint}"
    kinds = re.findall(r"Expected an? (.*?)(?:\. Got value|\n|$)", inmost)
    wanted = " or ".join(filter(None, dict.fromkeys(map(_plain, kinds))))
    value = re.search(
        r"(?:Got|Given) value: (?:NestedArg\(.*val=)?(.*?)(?:\)?\.? Got value|\)?\n|\)?$)", inmost
    )
    if keys and value:
        shown = value[1].strip("'\"")
        if re.search(r"\.ya?ml$", shown):
            return f"{key}: there is no file {shown}{did_you_mean(shown)}"
        if wanted:
            hint = _class_like(shown) if "a class" in wanted and shown.isidentifier() else ""
            return f"{key}: {shown!r} is not {wanted}{hint}"
    lines = (line.strip(" -") for line in message.splitlines() if not _NOISE.search(line))
    text = " ".join(line for line in lines if line)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _class_like(name: str) -> str:
    """Give the class whose name looks most like one that is none, as the end of a sentence."""
    for base in (Optimizer, Logger):
        known = {cls.__name__: f"{cls.__module__}.{cls.__qualname__}" for cls in subclasses(base)}
        if near := get_close_matches(name, known, n=1):
            return f"; did you mean {known[near[0]]}?"
    return nearest_class(name)


def _plain(kind: str) -> str:
    """Put a type into words; nothing for None."""
    named = re.fullmatch(r"<class '(?:[\w.]+\.)?(\w+)'>", kind)
    if named:
        return "" if named[1] == "NoneType" else _PLAIN_TYPES.get(named[1], f"a {named[1]}")
    choices = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    if choices:
        return f"one of {choices[1]}"
    if kind.startswith("dot import path"):
        return "a class"
    return "" if kind.startswith("path but") else kind


def _nearest(parser: LightningArgumentParser, message: str) -> str | None:
    """The accepted key that looks most like the one an error message refuses."""
    refused = re.search(r"[Oo]ption '([\w.+-]+)'|arguments?: --([\w.+-]+)", message)
    if refused is None:
        return None
    group = re.search(r"Group '([\w.]+)'", message)
    key = (f"{group[1]}." if group else "") + (refused[1] or refused[2]).replace("-", "_")
    known = _settings_of_owner(message, refused)
    if known is None:
        commands = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
        parsers = [parser, *(sub for choices in commands for sub in choices.values())]
        known = [action.dest for sub in parsers for action in sub._actions]
        known += [f"data.init_args.{name}" for name in _parameters(WebVideoData)]
    near = get_close_matches(key, known, n=1)
    if not near:  # somebody may have left out where a setting belongs
        last = {name.rpartition(".")[2]: name for name in known}
        near = [last[name] for name in get_close_matches(key, last, n=1)]
    return near[0] if near and not key.startswith(f"{near[0]}.") else None


def _settings_of_owner(message: str, refused: re.Match[str]) -> list[str] | None:
    """The settings of the class whose setting was refused; None if it is no class's."""
    before, after = message[: refused.start()], message[refused.end() :]
    owners = re.findall(r"class_path '([\w.]+)'", before)
    if "callable class" in before.rpartition("Parser key")[2]:
        owners = re.findall(r"class_path='([\w.]+)'", after)[:1]
    if not owners:
        return None
    module, _, name = owners[-1].rpartition(".")
    return _parameters(getattr(import_module(module), name))


def _parameters(cls: type) -> list[str]:
    """The arguments of a class, and of its bases as long as they are handed on."""
    names: list[str] = []
    for base in cls.__mro__:
        parameters = inspect.signature(base).parameters
        names += parameters
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            break
    return names


def with_model_configs(settings: Namespace) -> None:
    """Put model configs of open_clip in the place of files that hold them.

    So a run's recipe is complete in itself, wherever the run is moved to.

    Args:
        settings: Of a command, parsed; changed in place.

    Raises:
        ValueError: If there is no such file, or it is no model config.
    """
    for value in vars(settings).values():
        if isinstance(value, Namespace):
            with_model_configs(value)
    name = settings.get("name")
    if "architecture" in settings and isinstance(name, str) and name.endswith(".json"):
        settings["architecture"] = read_config(name)
        settings["name"] = Path(name).stem
