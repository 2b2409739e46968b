"""Recipes as files: where they are, and what is wrong with them before anything heavy is loaded.

vmm brings its recipes along (``vmm/recipes``; in a checkout a link to the folder ``recipes``, and
where Git makes no links a text file with its path). What a name means in the working folder wins;
else it is looked up there, with or without ``recipes/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml


def _behind(link: Path) -> Path:
    """Follow a link of the checkout, also where Git wrote a text file in its place (Windows)."""
    if link.is_file():
        return (link.parent / link.read_text(encoding="utf-8").strip()).resolve()
    return link


CONFIG = "config.yaml"
"""The whole recipe of a run, in its directory."""
PACKAGED = _behind(Path(__file__).parent / "recipes")
_ABOVE = Path(__file__).parents[1]
_MOST_VALUES = 100_000
_NAMED = 5  # runs, in a message
_PARTS = ("model", "data", "video_encoder", "text_encoder", "teacher", "optimizer", "logger")
"""Settings that may be the name of a file that holds them."""
_YAML = (".yaml", ".yml")
_CONFIG = ("-c", "--config")
_ELSEWHERE = {
    "steps": "trainer.max_steps",
    "max_steps": "trainer.max_steps",
    "epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "devices": "trainer.devices",
    "batch_size": "data.init_args.batch_size",
    "workers": "data.init_args.num_workers",
    "num_workers": "data.init_args.num_workers",
    "lr": "model.init_args.optimizer.init_args.lr",
    "learning_rate": "model.init_args.optimizer.init_args.lr",
    "seed": "seed_everything",
}
"""What other programs call a setting -> what it is here."""
_ENDS = ("--trainer.max_steps", "--trainer.max_epochs", "--trainer.limit_train_batches")
_COMMANDS = ("fit", "validate", "test", "predict")
_ALONE = ("-h", "--help", "--resume", "--no_resume", "--print_config")
"""Options that take no value, or only one that comes after "="."""


def here_or_packaged(name: str, beside: Path = Path()) -> str:
    """Find a file or folder of recipes.

    Args:
        name: As it was typed, or as a recipe has it.
        beside: Folder that relative names are of.

    Returns:
        The name, if something is there or vmm brings nothing of that name; else what vmm brings.
    """
    packaged = PACKAGED / name.removeprefix("recipes/")
    there = not name or (beside / name).exists() or not packaged.exists()
    return name if there else str(packaged)


def refuse_no_run(run: Path) -> None:
    """Refuse a folder that is no run directory, before anything heavy is loaded.

    Raises:
        ValueError: With the names of runs beside it, or in it.
    """
    if (run / CONFIG).is_file():
        return
    around = run if run.is_dir() and any(run.glob(f"*/{CONFIG}")) else run.parent
    beside = (path for depth in ("", "*/") for path in around.glob(f"{depth}{CONFIG}"))
    runs = sorted(path.parent for path in beside)
    named = f"one of {', '.join(map(str, runs[-_NAMED:]))}" if runs else ""
    raise ValueError(
        f"{run} is not a run directory of `vmm fit`: no {CONFIG} there; name "
        f"{named or 'a folder that `vmm fit` made'}"
    )


def did_you_mean(name: str, beside: Path = Path()) -> str:
    """Give the recipe whose name looks most like one that is nowhere, as the end of a sentence."""
    typed = beside / name
    own = [path for path in typed.parent.glob("*") if path.suffix in _YAML]
    known = {str(path.relative_to(beside)): path.name for path in own}
    ours = (path for path in sorted(PACKAGED.rglob("*")) if path.suffix in _YAML)
    known |= {path.relative_to(PACKAGED).as_posix(): path.name for path in ours}
    # Without the extension, which makes all short names alike.
    whole = {str(Path(path).with_suffix("")): path for path in known}
    given = str(Path(name.removeprefix("recipes/")).with_suffix(""))
    near = [whole[one] for one in get_close_matches(given, whole, n=1, cutoff=0.75)]
    if not near:  # somebody may have left out the folder, or typed another one
        names = {Path(last).stem: path for path, last in reversed(known.items())}
        near = [names[one] for one in get_close_matches(typed.stem, names, n=1, cutoff=0.75)]
    return f"; did you mean {near[0]}?" if near else ""


def prepared(arguments: Sequence[str]) -> list[str]:
    """Find and check the recipes of a command line, before anything is built of them.

    A recipe needs no ``-c`` before it.

    Args:
        arguments: Command and options, as after ``vmm``.

    Returns:
        The arguments, every recipe after ``-c`` and under the name of a file that is there.

    Raises:
        ValueError: If a recipe is missing, no text, no YAML or no mapping, or names a file or a
            class of vmm that is not there; with its name and the line. If there is none, all are
            overlays, or settings of data are given and none names its class. If an option is one
            of other programs.
    """
    words = _with_flags(arguments)
    for word in words:
        name = word.partition("=")[0]
        meant = _ELSEWHERE.get(name[2:].replace("-", "_"))
        if meant and name.startswith("--"):
            raise ValueError(f"there is no option {name}; did you mean {meant!r}?")
    recipes = []
    for number, word in enumerate(words):
        if number and words[number - 1] in _CONFIG:
            path = _find(word)
            recipes.append(_checked(path))
            words[number] = str(path)
        elif word.endswith(_YAML):
            option, equals, name = word.rpartition("=")
            words[number] = f"{option}{equals}{here_or_packaged(name)}"
    models = [recipe.get("model") for recipe in recipes]
    named = any(isinstance(m, str) or (isinstance(m, dict) and "class_path" in m) for m in models)
    if not named and not any(re.match("--model|-h$|--.*help|--print_", word) for word in words):
        raise ValueError(
            "no recipe here names a model, these are parts of recipes; name a whole one first, "
            "e.g. -c recipes/stage2_vtt.yaml"
            if recipes
            else f"there is no recipe; {_instead(words)}"
        )
    inside = next((word for word in words if word.startswith("--data.")), None)
    named = any(re.match("--data(=|$)", word) for word in words)
    if inside and recipes and not named and not any("data" in recipe for recipe in recipes):
        raise ValueError(
            f"no recipe here names data, so {inside.partition('=')[0]} belongs to nothing; name "
            "its class as stage2_vtt.yaml does, or by --data=vmm.data.datamodules.WebVideoData"
        )
    return words


def _instead(words: Sequence[str]) -> str:
    """Say what was probably meant by words of which none is a recipe."""
    for before, word in pairwise(["", *words]):
        if word.endswith(_YAML):
            return f"{word} stands where the value of {before} does, so put recipes first"
        if not word.startswith("-") and not before.startswith("-") and word not in _COMMANDS:
            inside = Path(word) / CONFIG
            is_run = f"{word} is a folder; name {inside}"
            return is_run if inside.is_file() else f"{word} is none, as they end in {_YAML[0]}"
    return "name one, e.g. -c stage2_vtt.yaml"


def refuse_no_steps(arguments: Sequence[str]) -> None:
    """Refuse a command line of ``fit`` that asks for no step, before anything heavy is loaded.

    Args:
        arguments: Options, as after ``vmm fit``.

    Raises:
        ValueError: With the setting and the remedy.
    """
    words = [part for word in arguments for part in word.split("=", 1)]
    for option, value in pairwise(words):
        if option in _ENDS and re.fullmatch("0+", value):
            raise ValueError(f"{option[2:]} is 0, so there is nothing to do; set it above 0")


def read_recipes(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Read the recipes of a command line, with the files that they name in their places.

    Raises:
        ValueError: As ``prepared``, but there need not be one.
    """
    words = _with_flags(arguments)
    files = [_find(word) for flag, word in pairwise(words) if flag in _CONFIG]
    for file in files:
        _checked(file)
    return [_with_parts(_read(file), file) for file in files]


def _with_parts(node: Any, file: Path, key: str = "") -> Any:
    if isinstance(node, dict):
        return {name: _with_parts(value, file, str(name)) for name, value in node.items()}
    if key in _PARTS and isinstance(node, str) and node.endswith(_YAML):
        part = file.parent / here_or_packaged(node, file.parent)
        return _with_parts(_read(part), part)
    return node


def merged(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay recipes over each other, the last on top; lists and classes are replaced."""
    whole: dict[str, Any] = {}
    for recipe in recipes:
        for key, value in recipe.items():
            before = whole.get(key)
            whole[key] = value
            if isinstance(before, dict) and isinstance(value, Mapping):
                same = value.get("class_path") in (None, before.get("class_path"))
                whole[key] = merged([before, value]) if same else value
    return whole


def _with_flags(arguments: Sequence[str]) -> list[str]:
    """Put ``-c`` before recipes that have none, and take "--config=X" apart."""
    words: list[str] = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        before = words[-1] if words else ""
        is_value = before.startswith("-") and before not in _ALONE and "=" not in before
        if equals and flag in _CONFIG:
            words += [flag, value]
        elif word.endswith(_YAML) and not word.startswith("-") and not is_value:
            words += ["-c", word]
        else:
            words.append(word)
    return words


def _find(name: str) -> Path:
    path = Path(here_or_packaged(name))
    if path.is_file():
        return path
    inside = path / CONFIG
    if inside.is_file():
        raise ValueError(f"the recipe {name} is a folder; name {inside}")
    what = "is a folder" if path.is_dir() else "does not exist"
    hint = "" if path.is_dir() else did_you_mean(name)
    remedy = hint or (
        "; name a YAML file, e.g. stage2_vtt.yaml (`vmm init` writes one for your own shards)"
    )
    raise ValueError(f"the recipe {name} {what}{remedy}")


def _checked(path: Path) -> dict[str, Any]:
    """Read a recipe and the files that it names."""
    content = _read(path)
    try:
        for key, value in _nodes(content):
            name = key.rpartition(".")[2]
            if name == "class_path":
                _check_class(value, f"{path}, {key}")
            elif name == "init_args" and not isinstance(value, dict | None):
                raise ValueError(f"{path}, {key}: {value!r} are no settings; write `name: value`")
            elif name in _PARTS and isinstance(value, str) and value.endswith(_YAML):
                file = path.parent / here_or_packaged(value, path.parent)
                if not file.is_file():
                    near = did_you_mean(value, path.parent)
                    raise ValueError(f"{path}, {key}: there is no file {value}{near}")
                _checked(file)
    except RecursionError as error:
        raise ValueError(f"the recipe {path} is a part of itself; take that out") from error
    return content


def _nodes(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Give everything in a recipe and where it stands."""
    yield key, node
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _nodes(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value, key)


def _check_class(name: Any, place: str) -> None:
    """Refuse a class of vmm that does not exist, without importing its module."""
    if not isinstance(name, str):
        raise ValueError(
            f"{place}: {name!r} is no class; give its name, e.g. "
            "vmm.models.videomamba.VideoMamba, or leave the key out"
        )
    module, _, own = name.rpartition(".")
    if not module.startswith("vmm."):
        return
    file = source_of(module)
    if not file.is_file():
        raise ValueError(f"{place}: there is no module {module}{nearest_class(own)}")
    if own not in re.findall(r"\w+", file.read_text(encoding="utf-8")):
        raise ValueError(f"{place}: there is no class {own} in {module}{nearest_class(own)}")


def source_of(module: str) -> Path:
    """Say where the source of a module of vmm would be."""
    file = _ABOVE / module.replace(".", "/")
    return file / "__init__.py" if file.is_dir() else file.with_suffix(".py")


def nearest_class(name: str) -> str:
    """Give vmm's class whose name looks most like that of none, as the end of a sentence."""
    classes = {}
    for file in sorted((_ABOVE / "vmm").rglob("*.py")):
        module = ".".join(file.relative_to(_ABOVE).with_suffix("").parts)
        for own in re.findall(r"^class ([A-Z]\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            classes[own] = f"{module}.{own}"
    near = get_close_matches(name, classes, n=1)
    return f"; did you mean {classes[near[0]]}?" if near else ""


def refuse_endless(content: Any, path: Path) -> None:
    """Refuse YAML whose aliases make billions of values of a few lines, or a part of itself.

    Args:
        content: What was read; nothing of it has been walked through.
        path: Of the file.

    Raises:
        ValueError: With the number of values.
    """
    counts: dict[int, int] = {}

    def count(node: Any) -> int:
        if not isinstance(node, dict | list):
            return 1
        if id(node) not in counts:
            inside = node.values() if isinstance(node, dict) else node
            counts[id(node)] = 1 + sum(map(count, inside))
        return counts[id(node)]

    try:
        number = count(content)
    except RecursionError as error:
        raise ValueError(f"{path} is a part of itself; take that out") from error
    if number > _MOST_VALUES:
        raise ValueError(
            f"{path} stands for more than {_MOST_VALUES:,} values by its aliases (*name), so it is "
            "no recipe; write out what is meant"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text, so it is no recipe") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "not allowed there"
        if mark is not None and "\t" in (text.split("\n")[mark.line])[: mark.column + 1]:
            problem = "a tab; YAML wants spaces"
        raise ValueError(f"the recipe {path} is no valid YAML{place}: {problem}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings, so it is no recipe; see those in recipes/")
    refuse_endless(content, path)
    return content
