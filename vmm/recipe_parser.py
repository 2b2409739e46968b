"""Reading recipes and the options beside them; a mistake costs one sentence, not a page."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from vmm.command_line import DEBUG, MISTAKE
from vmm.data.demo import WebVideoData
from vmm.models.clip_tower import read_config
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
        """Never read a value that may be plain text from a file of that name: it may be a shard."""
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        for action in self._actions:
            if str in get_args(getattr(action, "_typehint", None)):
                action._enable_path = False  # type: ignore[attr-defined]
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the mistake and what was probably meant, then exit with status 2."""
        if os.environ.get(DEBUG) or not self.exit_on_error:
            super().error(message, ex)
        near = _nearest(getattr(ex, "subcommand_parser", None) or self, message)
        hint = f"; did you mean {near!r}?" if near else ""
        if re.fullmatch(r"unrecognized arguments: \S+\.ya?ml", message):
            hint = "; a recipe comes after -c"
        complain(f"vmm: error: {one_sentence(message)}{hint}")
        raise SystemExit(MISTAKE)


_MOVED = {"make_demo": "; the class_path vmm.data.demo.WebVideoData has it, or leave it out"}
"""Settings of older recipes -> where they are."""


def check_recipes(arguments: Sequence[str]) -> None:
    """Read the recipes that a command line names, before anything is built of them.

    Raises:
        ValueError: If one is missing, no text, no YAML or no mapping; with its name and the line.
            Or if all are overlays.
    """
    recipes = []
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for flag, name in pairwise(words):
        if flag in ("-c", "--config"):
            recipes.append(_read_recipe(Path(name)))
    models = [recipe.get("model") for recipe in recipes]
    named = any(isinstance(node, str) or "class_path" in (node or {}) for node in models)
    if recipes and not named and not any(word.startswith("--model") for word in words):
        raise ValueError(
            "no recipe here names a model, these are parts of recipes; name a whole one first, "
            "e.g. -c recipes/stage2_vtt.yaml"
        )


def _read_recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        inside = path / "config.yaml"
        remedy = f"name {inside}" if inside.is_file() else "name a YAML file, e.g. of recipes/"
        raise ValueError(f"the recipe {path} {what}; {remedy}")
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text, so it is no recipe") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "not allowed there"
        if mark is not None and "\t" in text.splitlines()[mark.line][: mark.column + 1]:
            problem = "a tab; YAML wants spaces"
        raise ValueError(f"the recipe {path} is no valid YAML{place}: {problem}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings, so it is no recipe; see those in recipes/")
    return content


def one_sentence(message: str) -> str:
    """Say in one sentence what jsonargparse says on a page.

    Its page tells of every type that it tried, one inside the other; the innermost is about what
    the user wrote.
    """
    if message.startswith("the following arguments are required"):
        return "there is no recipe; name one, e.g. -c recipes/stage2_vtt.yaml"
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
    unknown = re.search(r"module '[\w.]+' has no attribute '\w+'", inmost)
    if keys and unknown:
        return f"{key}: {unknown[0]}"
    kinds = re.findall(r"Expected an? (.*?)(?:\. Got value|\n|$)", inmost)
    wanted = " or ".join(filter(None, dict.fromkeys(map(_plain, kinds))))
    value = re.search(
        r"(?:Got|Given) value: (?:NestedArg\(.*val=)?(.*?)(?:\)?\.? Got value|\)?\n|\)?$)", inmost
    )
    if keys and value:
        shown = value[1].strip("'\"")
        if re.search(r"\.ya?ml$", shown):
            return f"{key}: there is no file {shown}"
        if wanted:
            return f"{key}: {shown!r} is not {wanted}"
    lines = (line.strip(" -") for line in message.splitlines() if not _NOISE.search(line))
    text = " ".join(line for line in lines if line)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


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
