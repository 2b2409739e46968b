"""The reference of commands and of recipes: read off the code, which is not run for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import griffe
import yaml

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
_ALWAYS = {
    "last_checkpoint": "vmm.tasks.checkpoint_io.LastCheckpoint",
    "number_guard": "vmm.tasks.number_guard.NumberGuard",
    "watchdog": "vmm.tasks.watchdog.Watchdog",
    "throughput": "vmm.tasks.throughput.Throughput",
    "ema": "vmm.tasks.averaging.WeightAverage",
    "compile": "vmm.tasks.compiling.LayerCompiler",
    "lr_finder": "vmm.tasks.lr_finder.RateFinder",
}
"""Key of every recipe -> vmm's callback behind it."""
_NAMED = {
    "Groups of settings": [
        *(
            "vmm.tasks.loss_terms.LossWeights",
            "vmm.masking.MaskSettings",
            "vmm.tasks.mixing.Mixing",
        ),
        *("vmm.data.views.Views", "vmm.models.lora.Lora"),
    ],
    "Strategies": ["vmm.tasks.sharding.ShardedStrategy", "vmm.tasks.zero.ZeroStrategy"],
}
_GROUPS = {
    "Tasks": "What is trained: `model.class_path` of a recipe, with settings in `model.init_args`.",
    "Data": "`data` of a recipe.",
    "Video encoders": "`model.init_args.video_encoder`, usually a file of `encoders/`.",
    "Text encoders": "`model.init_args.text_encoder`.",
    "Teachers": "`model.init_args.teacher` of stage 1.",
    "Groups of settings": "Several settings under one: `loss_weights`, `video_mask`, `mixing`, ...",
    "Strategies": "`trainer.strategy`; the overlays `fsdp2`, `hsdp`, `zero1` to `zero3` name them.",
    "Callbacks": "Keys beside `model` and `data`; each always exists.",
}


_RECIPES_HEAD = """\
# Recipes

A recipe is a YAML file with a `trainer`, a `model` and `data`. Defaults in signatures are overruled
by the recipe, a recipe by the overlays after it, from left to right, all by the command line
(`--model.init_args.proj_dim 256`). This page is made of the files and of the signatures;
`vmm fit --help` says the same of your version.

## Files that come with vmm

Found by these names, with or without `recipes/` before them; a file of that name in the working
folder wins.
"""
_FOLDERS = {
    "": "Whole recipes",
    "overlays": "Overlays, to be put on top",
    "encoders": "Video encoders",
    "published": "Published runs",
    "demo": "Of the demos",
    "ablations": "Of the ablations",
}
_STATUSES = """\
## How a command ends

| status | |
|---|---|
| 0 | what was asked for is done |
| {PARTLY} | it is done in part: the rest is counted and named, and the last line says so |
| {MISTAKE} | a mistake in what was given; one sentence says which, and what to do |
| {STOPPED} | stopped by Ctrl-C; a sentence says what is kept |
| {NO_READER} | nobody reads the output any more, as after `head` |

In part is: a file that `vmm shards make` cannot read, a video that `vmm encode` cannot encode to
its end, also if an earlier run found that, a query of `vmm search --queries` without an answer.
What could be done is written before. Status {PARTLY} also says that `vmm index --verify` found
something wrong, that `vmm doctor` misses what is needed, and, with a traceback, a defect of vmm.
A clip that training passes over is counted, and no failure; nor is one that an evaluation cannot
read, which its result counts as `--coverage` says. `vmm fit` has
[more statuses](../guides/scale.md#how-a-run-ended).
"""
_REST = (griffe.ParameterKind.var_keyword, griffe.ParameterKind.var_positional)


class Setting(NamedTuple):
    """A constructor argument."""

    name: str
    kind: str
    default: str
    about: str
    owner: str


def commands() -> str:
    """Write the page of the commands, from the table of the program itself."""
    from vmm import cli, command_line

    single = {name: command.about for name, command in cli.COMMANDS.items()}
    tables = {"Training": cli.TRAINER_COMMANDS, "One word": single}
    lines = ["# Commands", "", "`vmm COMMAND --help` has the options of each.", ""]
    for title, listed in tables.items():
        lines += [f"## {title}", "", *_table(listed, "vmm "), ""]
    for group, members in cli.GROUPS.items():
        listed = {name: command.about for name, command in members.items()}
        lines += [
            f"## `vmm {group}`",
            "",
            f"{cli.ABOUT_GROUPS[group]}",
            "",
            *_table(listed, f"vmm {group} "),
        ]
        lines.append("")
    lines += [
        "In a checkout the same run as modules, too: `python -m eval.retrieval` is "
        "`vmm eval retrieval`, `python -m data_prep.make_shards` is `vmm shards make`.",
        "",
        *_STATUSES.format(**vars(command_line)).splitlines(),
        "",
    ]
    return "\n".join(lines)


def _table(listed: dict[str, str], before: str) -> list[str]:
    rows = [f"| `{before}{name}` | {_plain(about)} |" for name, about in listed.items()]
    return ["| | |", "|---|---|", *rows]


def _plain(text: str) -> str:
    """Escape what Markdown would read as a link or as the end of a cell."""
    return text.replace("|", "&#124;").replace("[", "&#91;")


@cache
def library() -> griffe.Module:
    """Read all of vmm, statically."""
    module = griffe.GriffeLoader(search_paths=[str(ROOT)], docstring_parser="google").load("vmm")
    assert isinstance(module, griffe.Module)
    return module


def recipes() -> str:
    """Write the page of all recipes and of every setting of the classes that they name."""
    lines = _RECIPES_HEAD.splitlines()
    files = dict(recipe_files())
    for folder, title in _FOLDERS.items():
        lines += ["", f"### {title}", "", "| file | what |", "|---|---|"]
        inside = {name: about for name, about in files.items() if _folder(name) == folder}
        lines += [f"| `{name}` | {about} |" for name, about in inside.items()]
    lines.append("")
    for title, classes in grouped().items():
        lines += [f"## {title}", "", _GROUPS[title], ""]
        for name, cls in classes.items():
            lines += [
                f"### {name}",
                "",
                f"`{cls.path}`: {_first_sentence(cls)}",
                "",
                *_settings_table(cls),
                "",
            ]
    return "\n".join(lines)


def _folder(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def recipe_files() -> Iterator[tuple[str, str]]:
    """Yield the name of every recipe and the first sentence of the comment at its head."""
    for path in sorted(RECIPES.rglob("*.yaml")):
        head = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#") or line.strip() == "#":
                break
            head.append(line.lstrip("# ").strip())
        text = " ".join(head) or "a part of another recipe"
        sentence = re.split(r"(?<=[.:;])\s", text)[0].rstrip(".:;")
        yield path.relative_to(RECIPES).as_posix(), sentence.replace("|", "&#124;")


def named_classes() -> list[str]:
    """List every class of vmm that a recipe names."""
    found: set[str] = set()
    for path in RECIPES.rglob("*.yaml"):
        found |= set(_class_paths(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return sorted(name for name in found if name.startswith("vmm."))


def _class_paths(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "class_path" in node:
            yield str(node["class_path"])
        for value in node.values():
            yield from _class_paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from _class_paths(value)


def grouped() -> dict[str, dict[str, griffe.Class]]:
    """Sort the classes that recipes may name; every subclass of a base is one of its group."""
    bases = {
        "TrainingTask": "Tasks",
        "VideoDataModule": "Data",
        "VideoEncoder": "Video encoders",
        "TextEncoder": "Text encoders",
        "Teacher": "Teachers",
    }
    groups: dict[str, dict[str, griffe.Class]] = {title: {} for title in _GROUPS}
    for cls in _classes(library()):
        above = {base.name for base in cls.mro()}
        for base, title in bases.items():
            if base in above and not _is_base(cls):
                groups[title][cls.name] = cls
    for title, paths in _NAMED.items():
        groups[title] = {path.rpartition(".")[2]: find(path) for path in paths}
    groups["Callbacks"] = {f"`{key}`": find(path) for key, path in _ALWAYS.items()}
    return {title: dict(sorted(classes.items())) for title, classes in groups.items()}


def _is_base(cls: griffe.Class) -> bool:
    """Tell whether a class is only there to be inherited from."""
    abstract = any(
        "abstractmethod" in str(d.value) for f in cls.functions.values() for d in f.decorators
    )
    direct = {
        "TrainingTask",
        "PretrainTask",
        "WithTeacher",
        "VideoEncoder",
        "TubeletEncoder",
        "TextEncoder",
        "FusionEncoder",
        "TokenizedTextEncoder",
        "Teacher",
        "FrameTeacher",
        "VideoDataModule",
    }
    return abstract or cls.name in direct or cls.name.startswith("_")


def _classes(module: griffe.Module) -> Iterator[griffe.Class]:
    for member in module.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Class):
            yield member
        elif isinstance(member, griffe.Module):
            yield from _classes(member)


def find(path: str) -> griffe.Class:
    """Give a class by its path.

    Raises:
        KeyError: If it was moved; this file then names another one.
    """
    found = library()[path.removeprefix("vmm.")]
    assert isinstance(found, griffe.Class)
    return found


def settings(cls: griffe.Class) -> list[Setting]:
    """List the arguments of a class, and of its bases as long as they are handed on."""
    found: dict[str, Setting] = {}
    about: dict[str, str] = {}
    for one in reversed([cls, *cls.mro()]):
        about |= _documented(one)
    for one in [cls, *cls.mro()]:
        init = one.members.get("__init__")
        parameters = list(init.parameters)[1:] if isinstance(init, griffe.Function) else []
        if init is None and "dataclass" in {str(d.value).partition("(")[0] for d in one.decorators}:
            fields = [
                a
                for a in one.attributes.values()
                if a.annotation is not None and "instance-attribute" in a.labels
            ]
            for field in fields:
                text = about.get(field.name) or (field.docstring.value if field.docstring else "")
                kind, default = (
                    _kind(field.annotation),
                    str(field.value) if field.value is not None else "",
                )
                found.setdefault(field.name, Setting(field.name, kind, default, text, one.name))
            break
        if init is None:
            continue
        for parameter in parameters:
            if parameter.kind in _REST or parameter.name not in about:
                continue
            default = "" if parameter.default is None else str(parameter.default)
            kind = _kind(parameter.annotation)
            text = about.get(parameter.name, "")
            found.setdefault(parameter.name, Setting(parameter.name, kind, default, text, one.name))
        if not any(p.kind is griffe.ParameterKind.var_keyword for p in parameters):
            break
    return list(found.values())


def _kind(annotation: Any) -> str:
    """Write a type; the words of a choice in the place of its name."""
    text = "" if annotation is None else str(annotation)
    for expression in annotation.iterate(flat=True) if isinstance(annotation, griffe.Expr) else ():
        if isinstance(expression, griffe.ExprName):
            try:
                named = library()[expression.canonical_path.removeprefix("vmm.")]
            except KeyError:
                continue
            value = str(getattr(named, "value", ""))
            if value.startswith("Literal["):
                words = " | ".join(value.removeprefix("Literal[").removesuffix("]").split(", "))
                text = re.sub(rf"\b{expression.name}\b", words.strip(" |"), text)
    return text


def _documented(cls: griffe.Class) -> dict[str, str]:
    """Name -> text of the sections of arguments and attributes of a docstring."""
    if cls.docstring is None:
        return {}
    texts = {}
    for section in cls.docstring.parse("google", warnings=False):
        if section.kind in (
            griffe.DocstringSectionKind.parameters,
            griffe.DocstringSectionKind.attributes,
        ):
            texts |= {item.name: " ".join(item.description.split()) for item in section.value}
    return texts


def _first_sentence(cls: griffe.Class) -> str:
    text = " ".join((cls.docstring.value if cls.docstring else "").partition("\n\n")[0].split())
    return _safe(text)


def _settings_table(cls: griffe.Class) -> list[str]:
    rows = []
    for one in settings(cls):
        default = _code(one.default) if one.default else "required"
        rows.append(f"| `{one.name}` | {_code(one.kind)} | {default} | {_safe(one.about)} |")
    if not rows:
        return ["No settings."]
    return ["| setting | type | default | |", "|---|---|---|---|", *rows]


def _code(text: str) -> str:
    """Put code into a cell; a bar would end it."""
    return (
        "<code>"
        + text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
        + "</code>"
    )


def _safe(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("|", "&#124;")
