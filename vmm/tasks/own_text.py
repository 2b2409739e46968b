"""From which run's own files a command builds its text encoder; see ``vmm.models.run_text``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from vmm.models.run_text import TEXT_FILES, own_text_arguments, text_node
from vmm.models.text_interface import TextEncoder
from vmm.recipe_files import CONFIG
from vmm.runs import read_config
from vmm.tasks.resume import newest_run, newest_whole


def run_behind(settings: Namespace, resume: bool) -> Path | None:
    """Find the run whose weights a command takes: of ``--resume``, a checkpoint or ``init_from``.

    Args:
        settings: Of the command, parsed.
        resume: Whether the run goes on in its own folder.

    Returns:
        The run's folder, where it has text files and weights; else None.
    """
    given, arguments = settings.get("ckpt_path"), settings["model"].get("init_args") or {}
    if resume or given in ("best", "last"):
        run = _folder(settings, resume)
        return run if run is not None and newest_whole(run) is not None else None
    named = given or arguments.get("init_from")
    if not isinstance(named, str) or not named:
        return None
    parts = None if given else arguments.get("init_parts")
    if parts is not None and "text_encoder" not in ([parts] if isinstance(parts, str) else parts):
        return None
    path = Path(named)
    folders = (path, path.parent, path.parent.parent)
    return next(filter(has_own_text, folders), None)


def has_own_text(folder: Path) -> bool:
    """Tell whether a folder is that of a run with files of its text encoder."""
    return (folder / TEXT_FILES).is_dir() and (folder / CONFIG).is_file()


def _folder(settings: Namespace, resume: bool) -> Path | None:
    """Find the folder of a run that goes on, or the newest run beside this one's."""
    curves = settings["trainer"]["logger"]
    own = curves["init_args"] if isinstance(curves, Namespace) else {}
    if "save_dir" not in own or "version" not in own:
        return None
    beside, version = Path(own["save_dir"], own["name"] or ""), own["version"]
    run = beside / (version if isinstance(version, str) else f"version_{version}")
    if not resume and not (run / CONFIG).is_file():
        run = newest_run(beside) or run
    return run if has_own_text(run) else None


@contextmanager
def own_text(parser: ArgumentParser, settings: Namespace, run: Path | None) -> Iterator[bool]:
    """Let the recipe name a run's own files while its classes are built.

    Only where it names the same text encoder as the run's recipe does: what is asked for wins.

    Args:
        parser: Of the command.
        settings: Of the command, as they are again when the block ends.
        run: See ``run_behind``.

    Yields:
        Whether the run's own files are in use.
    """
    if run is None or not (found := _changes(parser, settings, run)):
        yield False
        return
    node = settings["model"]["init_args"]["text_encoder"]["init_args"]
    before = {name: node[name] for name in found}
    for name in found:
        node[name] = found[name]
    try:
        yield True
    finally:
        for name in before:
            node[name] = before[name]


def _changes(parser: ArgumentParser, settings: Namespace, run: Path) -> dict[str, Any]:
    """Give the arguments of the text encoder that are others if it is built from a run's files."""
    asked = text_node(yaml.safe_load(parser.dump(settings, skip_none=False)))
    theirs = text_node(read_config(run))
    if not isinstance(asked, Mapping) or not _alike(asked, theirs):
        return {}
    now = asked.get("init_args") or {}
    own = own_text_arguments(asked, run) or {}
    return {name: value for name, value in own.items() if name in now and value != now[name]}


def _alike(asked: Mapping[str, Any], theirs: Any) -> bool:
    """Tell whether two nodes are of one text encoder; settings that are new may be missing."""
    if not isinstance(theirs, Mapping) or theirs.get("class_path") != asked.get("class_path"):
        return False
    before, now = theirs.get("init_args") or {}, asked.get("init_args") or {}
    return all(name in now and now[name] == value for name, value in before.items())


def check_words(model: Any, run: Path | None) -> None:
    """Refuse to take the weights of a run that had another vocabulary.

    Args:
        model: Of the task, built as the recipe says.
        run: See ``run_behind``.

    Raises:
        ValueError: If its text encoder gives words other numbers than the run's.
    """
    text = getattr(model, "text_encoder", None)
    if run is None or not isinstance(text, TextEncoder):
        return
    theirs = text_node(read_config(run))
    name = f"{type(text).__module__}.{type(text).__qualname__}"
    if isinstance(theirs, Mapping) and theirs.get("class_path") == name:
        text.check_vocabulary(run / TEXT_FILES)
